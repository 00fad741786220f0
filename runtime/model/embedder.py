"""The embedder: texts, images and videos to vectors of one space."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .bundle import Role
from .pair import PairModel
from .processor import Counted
from .request import Input, parse_requests


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """`vectors` float32 [n, dims], rows L2-normalised; `tokens`: how many the model read for each row."""

    vectors: NDArray[np.float32]
    tokens: tuple[int, ...]


class Embedder(PairModel):
    """Embeds inputs with the embedder of a model. See `PairModel.open`."""

    role: ClassVar[Role] = "embedder"

    @property
    def dims(self) -> int:
        """Width of a vector when `embed` is given none."""
        return self._loaded.part.dims

    @property
    def max_dims(self) -> int:
        """Full width: the decoder's hidden size."""
        return self._loaded.config.text.hidden_size

    @property
    def space(self) -> dict[str, Any]:
        """What identifies the vector space, as JSON-able values: vectors of different spaces never mix."""
        return {
            "model": self._loaded.part.source.name,
            "bundle": self.bundle.revision,
            "precision": f"{self._loaded.part.decoder_precision}/{self._loaded.part.vision_precision}",
            "pixels": self.budget.describe(),
            "template": self._loaded.processor.template.digest,
        }

    def width(self, dims: int | None = None) -> int:
        """Width of the vectors that `embed` makes when it is given `dims`.

        Raises:
            InputError: the model has no such width.
        """
        width = self.dims if dims is None else dims
        if isinstance(width, bool) or not isinstance(width, int) or not 0 < width <= self.max_dims:
            raise InputError(f"dims must be a whole number from 1 to {self.max_dims}, not {width!r}.")
        return width

    def embed(self, inputs: Iterable[Input], *, dims: int | None = None) -> NDArray[np.float32]:
        """Embed inputs.

        Args:
            inputs: mappings with `text`, `image`, `video` (each one or a list), `instruction`, `fps`,
                `max_frames`, all optional, or chat messages; see `parse_request`. An empty mapping is the
                text "NULL".
            dims: keep so many leading components (MRL) and normalise again; None is `self.dims`.

        Returns:
            float32 [n, dims], rows L2-normalised, in the order of the inputs.

        Raises:
            InputError: an unknown key, a value of the wrong kind, or an impossible width.
            MediaError: a picture or a film cannot be used; it carries the path.
        """
        return self.embed_counted(inputs, dims=dims).vectors

    def embed_counted(self, inputs: Iterable[Input], *, dims: int | None = None) -> Embeddings:
        """Embed inputs, and say how many tokens each took. Arguments and errors as for `embed`."""
        width = self.width(dims)
        requests = parse_requests(inputs, name="input")
        processor = self._loaded.processor
        prompts = Counted(
            processor.embedding_prompt(processor.prepare(request), instruction=request.instruction)
            for request in requests
        )
        vectors = normalized(self._loaded.pool(prompts)[:, :width])
        return Embeddings(vectors, tuple(prompts.tokens))


def normalized(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of unit length, float32; a row of zeros stays."""
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (wide / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
