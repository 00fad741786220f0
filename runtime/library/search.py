"""A search in two steps: the embedder's order at once, the reranked order when it is ready.

    found = find(store, query_vector, limit=20)
    first = found.result()                                     # SearchResult, ordered by cosine
    final = rerank(found, judge, weight=reranker.fusion)       # SearchResult, ordered by the fused score

Knows the store and the fusion; the models come in as a vector and a callable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .fusion import Ranked, by_cosine, fuse
from .records import Candidate, Filters, Hit, SearchResult, Space
from .store import Store

# Judges candidates: float32 logits [n] of "yes" against "no", NaN for one that could not be read.
Judge = Callable[[Sequence[Candidate]], NDArray[np.float32]]

RERANKED = 20


@dataclass(frozen=True, slots=True)
class Found:
    """What the vector search brought: enough candidates for the reranker and for the page.

    `vector`: what was searched by, float32 [d]. `shown`: the picture or video of the query, if there is one,
    as an input of the models.
    """

    query: str | None
    candidates: tuple[Candidate, ...]
    limit: int
    top: int
    timings_ms: Mapping[str, float]
    vector: NDArray[np.float32] = field(compare=False, repr=False)
    shown: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def result(self) -> SearchResult:
        """The hits in the embedder's order."""
        return SearchResult(self.query, _hits(by_cosine(self.candidates), self.limit), dict(self.timings_ms))


def find(
    store: Store,
    vector: NDArray[np.float32],
    *,
    limit: int = 20,
    filters: Filters | None = None,
    top: int = RERANKED,
    query: str | None = None,
    space: Space | None = None,
    exclude: int | None = None,
    timings_ms: Mapping[str, float] | None = None,
    shown: Mapping[str, Any] | None = None,
) -> Found:
    """The fast step. `vector`: float32 [d], full width or an MRL prefix.

    `limit` hits will be shown, the first `top` may be reranked. `exclude` is a media id that shall not appear
    (the item itself, in a search for similar ones). `timings_ms` of earlier steps, such as "embed", are kept.
    `shown` as in `Found`. Adds "search". Raises InputError for a limit below 1, and as `Store.nearest`.
    """
    check_limit(limit, top)
    start = time.perf_counter()
    wanted = max(limit, top)
    exclude = None if exclude is None else store.shown_as(exclude)
    candidates = store.nearest(vector, limit=wanted + (exclude is not None), filters=filters, space=space)
    candidates = tuple(c for c in candidates if c.item.id != exclude)[:wanted]
    timings = {**(timings_ms or {}), "search": _ms_since(start)}
    return Found(query, candidates, limit, top, timings, vector, shown or {})


def check_limit(limit: int, top: int) -> None:
    """Raise InputError for numbers of hits, and of those to rerank, that make no sense."""
    if limit < 1 or top < 0:
        raise InputError(f"a search needs a limit of at least 1, not {limit}")


def rerank(found: Found, judge: Judge, *, weight: float) -> SearchResult:
    """The slow step: `judge` the first `top` candidates in one batch and order them by the fused score.

    `weight` is the cosine's part in the sum, measured for the reranker (see `fusion`). Adds "rerank".
    """
    start = time.perf_counter()
    judged = found.candidates[: found.top]
    logits = np.asarray(judge(judged), np.float64) if judged else np.empty(0)
    if logits.shape != (len(judged),):
        raise InputError(f"the reranker returned {logits.shape} logits for {len(judged)} candidates")
    ranked = fuse(found.candidates, logits.tolist(), weight=weight)
    timings = {**found.timings_ms, "rerank": _ms_since(start)}
    return SearchResult(found.query, _hits(ranked, found.limit), timings)


def _hits(ranked: Sequence[Ranked], limit: int) -> tuple[Hit, ...]:
    return tuple(_hit(rank, entry) for rank, entry in enumerate(ranked[:limit], start=1))


def _hit(rank: int, entry: Ranked) -> Hit:
    item, segment = entry.candidate.item, entry.candidate.segment
    is_video = item.kind == "video"
    return Hit(
        rank=rank,
        media_id=item.id,
        path=item.path,
        kind="video" if is_video else "photo",
        score=entry.score,
        embedding_score=entry.candidate.cosine,
        reranker_score=entry.probability,
        start_s=segment.t0_ms / 1000 if is_video else None,
        end_s=segment.t1_ms / 1000 if is_video else None,
        taken_at=item.taken_at,
        width=item.width,
        height=item.height,
        companions=entry.candidate.companions,
        latitude=item.latitude,
        longitude=item.longitude,
    )


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000
