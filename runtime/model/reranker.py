"""The reranker: how well documents answer a query, one joint reading of each pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, InputError
from .bundle import Bundle
from .loading import LoadedPart
from .ort_session import Device, SessionOptions
from .pixels import PixelBudget
from .request import Input, Request, parse_request, parse_requests
from .resolve import resolve


class Reranker:
    """Scores pairs with the reranker of a bundle. Made by `Reranker.open`; graphs load on first use."""

    def __init__(self, bundle: Bundle, options: SessionOptions, *, pixels: PixelBudget | None = None) -> None:
        self._loaded = LoadedPart(bundle, "reranker", options, pixels=pixels)
        self._head = _load_head(bundle, self._loaded.config.text.hidden_size)

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        device: Device = "cpu",
        threads: int | None = None,
        precision: str | None = None,
        pixels: PixelBudget | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> Reranker:
        """Open the reranker of a model; arguments and errors as for `Embedder.open`."""
        bundle = resolve(model, precision=precision, device=device, progress=progress)
        return cls(bundle, SessionOptions(device=device, threads=threads), pixels=pixels)

    @property
    def bundle(self) -> Bundle:
        """The bundle that is in use."""
        return self._loaded.bundle

    @property
    def budget(self) -> PixelBudget:
        """The pixel budget in force."""
        return self._loaded.budget

    @property
    def fusion(self) -> Mapping[str, float]:
        """Measured weights for ranking: {"cosine_weight": w} sorts by logit + w * cosine. May be empty."""
        return dict(self.bundle.manifest.fusion)

    def score(
        self, query: Input, documents: Iterable[Input], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Probability that each document answers the query, float32 [n] in [0, 1]; see `logits`."""
        logits = self.logits(query, documents, instruction=instruction).astype(np.float64)
        scores: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * logits))  # the sigmoid, without overflow
        return scores.astype(np.float32)

    def logits(
        self, query: Input, documents: Iterable[Input], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Log-odds of "yes", float32 [n]: (W_yes - W_no) times the last token's state, in float32.

        Args:
            query: a mapping as in `Embedder.embed`.
            documents: any number of such mappings; `fps` and `max_frames` count for each one's own videos.
            instruction: what makes a document relevant; None takes the query's `instruction`, then the
                official one.

        Raises:
            InputError: an unknown key or a value of the wrong kind.
            MediaError: a picture or a film cannot be used; it carries the path.
        """
        asked = parse_request(query, name="the query")
        given = parse_requests(documents, name="document")
        processor = self._loaded.processor
        wanted = instruction if instruction is not None else asked.instruction
        subject = processor.prepare(asked)
        prompts = (
            processor.reranking_prompt(subject, processor.prepare(document), instruction=wanted)
            for document in _without_instructions(given)
        )
        pooled = self._loaded.pool(prompts)
        logits: NDArray[np.float32] = pooled @ self._head
        return logits

    def unload(self) -> None:
        """Free the graphs' memory; the next `score` loads them again."""
        self._loaded.unload()


def _without_instructions(documents: list[Request]) -> list[Request]:
    """An instruction belongs to the pair; one at a document would be lost silently."""
    for i, document in enumerate(documents):
        if document.instruction is not None:
            raise InputError(f"document {i}: takes no instruction. Give it to the query, or as instruction=.")
    return documents


def _load_head(bundle: Bundle, width: int) -> NDArray[np.float32]:
    """W_yes - W_no, float32 [H]."""
    name = bundle.part("reranker").head
    if name is None:
        raise BundleError(f"{bundle.path}: its reranker has no yes/no head. Export the bundle again.")
    file = bundle.file(name)
    try:
        head: NDArray[np.float32] = np.load(file, allow_pickle=False).astype(np.float32).reshape(-1)
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: cannot be read ({error}). Export the bundle again.") from error
    if head.shape != (width,):
        raise BundleError(f"{file}: holds {head.size} values instead of {width}. Export the bundle again.")
    return head
