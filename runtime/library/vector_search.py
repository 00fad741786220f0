"""The segments nearest to a query vector, best segment of each item.

Knows vectors, segments and candidate conditions; does not know what an item looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .filters import Condition
from .records import Space

_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item's segment and its cosine with the query, in [-1, 1]."""

    media_id: int
    segment_id: int
    cosine: float


class VectorSearch:
    """The search over one space."""

    def __init__(self, connection: apsw.Connection, space: Space) -> None:
        self._connection = connection
        self._space = space

    def nearest(
        self, vector: NDArray[np.float32], *, limit: int, condition: Condition | None
    ) -> list[Neighbour]:
        """The `limit` nearest items that meet `condition`, best first, each with its best segment."""
        query = _checked_query(vector, self._space)
        if condition is None:
            rows = self._connection.execute(
                "SELECT s.id, s.media_id, v.embedding FROM segment s JOIN vector v ON v.segment_id = s.id "
                "WHERE s.space_id = ?",
                (self._space.id,),
            ).fetchall()
        else:
            rows = self._connection.execute(
                "SELECT s.id, s.media_id, v.embedding FROM media m JOIN segment s ON s.media_id = m.id "
                f"JOIN vector v ON v.segment_id = s.id WHERE s.space_id = ? AND {condition.sql}",
                (self._space.id, *condition.values),
            ).fetchall()
        best: dict[int, Neighbour] = {}
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            stored = np.frombuffer(b"".join(row[2] for row in chunk), np.int8).reshape(len(chunk), -1)
            cosines = _cosines(stored, query)
            for (segment_id, media_id, _), cosine in zip(chunk, cosines.tolist()):
                known = best.get(media_id)
                if known is None or cosine > known.cosine:
                    best[media_id] = Neighbour(media_id, segment_id, cosine)
        return sorted(best.values(), key=lambda n: (-n.cosine, n.segment_id))[:limit]


def _cosines(stored: NDArray[np.int8], query: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = stored[:, : len(query)].astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    cosines: NDArray[np.float32] = (rows @ query) / np.maximum(lengths, 1.0)
    return np.clip(cosines, -1.0, 1.0)


def _checked_query(vector: NDArray[np.float32], space: Space) -> NDArray[np.float32]:
    query = np.asarray(vector, np.float32)
    if query.ndim != 1 or not 0 < len(query) <= space.identity.dims:
        raise InputError(
            f"a query vector of shape {query.shape} does not fit this library's {space.identity.dims} dimensions"
        )
    length = float(np.linalg.norm(query))
    if not np.isfinite(length) or length == 0:
        raise InputError("the query vector is zero or not finite")
    return query / np.float32(length)
