"""The reranker: how well documents answer a query, one joint reading of each pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, InputError
from .bundle import Role
from .head import sigmoid
from .pair import PairModel
from .pixels import PixelBudget
from .processor import Counted
from .request import Input, Request, parse_request, parse_requests
from .session import Engine


@dataclass(frozen=True, slots=True, eq=False)
class Judgements:
    """`logits` float32 [n], the log-odds of "yes"; `tokens`: how many the model read for each document."""

    logits: NDArray[np.float32]
    tokens: tuple[int, ...]

    @property
    def scores(self) -> NDArray[np.float32]:
        """Probabilities, float32 [n] in [0, 1]."""
        return sigmoid(self.logits).astype(np.float32)


class Reranker(PairModel):
    """Scores pairs with the reranker of a model. See `PairModel.open`."""

    role: ClassVar[Role] = "reranker"

    def __init__(self, engine: Engine, *, pixels: PixelBudget | None = None) -> None:
        super().__init__(engine, pixels=pixels)
        if engine.head is None:
            raise BundleError(f"{engine.bundle.path}: has no yes/no head, so it is no reranker.")
        self._head = engine.head

    @property
    def fusion(self) -> Mapping[str, float]:
        """Measured weights for ranking: {"cosine_weight": w} sorts by logit + w * cosine. May be empty."""
        return dict(self.bundle.manifest.fusion)

    def score(
        self, query: Input, documents: Iterable[Input], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Probability that each document answers the query, float32 [n] in [0, 1]; see `logits`."""
        return self.judge(query, documents, instruction=instruction).scores

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
        return self.judge(query, documents, instruction=instruction).logits

    def judge(
        self, query: Input, documents: Iterable[Input], *, instruction: str | None = None
    ) -> Judgements:
        """Judge documents, and say how many tokens each took. Arguments and errors as for `logits`."""
        asked = parse_request(query, name="the query")
        given = parse_requests(documents, name="document")
        processor = self._loaded.processor
        wanted = instruction if instruction is not None else asked.instruction
        subject = processor.prepare(asked)
        prompts = Counted(
            processor.reranking_prompt(subject, processor.prepare(document), instruction=wanted)
            for document in _without_instructions(given)
        )
        pooled = self._loaded.pool(prompts)
        logits: NDArray[np.float32] = pooled @ self._head
        return Judgements(logits, tuple(prompts.tokens))


def _without_instructions(documents: list[Request]) -> list[Request]:
    """An instruction belongs to the pair; one at a document would be lost silently."""
    for i, document in enumerate(documents):
        if document.instruction is not None:
            raise InputError(f"document {i}: takes no instruction. Give it to the query, or as instruction=.")
    return documents
