"""How well every stretch of one item fits a query: what a moment bar shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

if TYPE_CHECKING:
    from .store import Store


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of an item and its cosine with the query, in [-1, 1]; 0 to 0 s for a photo."""

    start_s: float
    end_s: float
    score: float


def moments(store: Store, media_id: int, vector: NDArray[np.float32]) -> tuple[Moment, ...]:
    """Every segment of an item in order of time, with its cosine to `vector`.

    `vector`: float32 [d], of the full width or an MRL prefix, of any length. Nothing where the item is not
    known, or has no vectors in the active space.

    Raises:
        InputError: the vector is wider than those of the library, zero, or not finite.
    """
    segments, rows = store.segments(media_id), store.vectors(media_id)
    if not len(rows):
        return ()
    query = np.asarray(vector, np.float32)
    length = float(np.linalg.norm(query))
    if query.ndim != 1 or not 0 < len(query) <= rows.shape[1] or not np.isfinite(length) or length == 0:
        raise InputError(f"a query vector of shape {query.shape} does not fit vectors of {rows.shape[1]}")
    rows = rows[:, : len(query)]
    lengths = np.linalg.norm(rows, axis=1) * length
    cosines = np.clip(rows @ query / np.maximum(lengths, 1e-12), -1.0, 1.0)
    return tuple(
        Moment(segment.t0_ms / 1000, segment.t1_ms / 1000, float(cosine))
        for segment, cosine in zip(segments, cosines, strict=True)
    )
