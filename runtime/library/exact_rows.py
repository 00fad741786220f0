"""The int8 vectors of a small library in memory, for exact scans, kept in step with the file.

Measured at 20,000 vectors of 2048 dimensions, one thread: 11 ms a scan, against 105 ms for
`vec_distance_cosine` over the table; reading them in takes 54 ms once.
"""

from __future__ import annotations

from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from .connection import fetch
from .records import Space

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Scanned:
    """Every row of a scan. `segment_ids`, `media_ids`: int64 [n]; `cosines`: float32 [n]."""

    segment_ids: NDArray[np.int64]
    media_ids: NDArray[np.int64]
    cosines: NDArray[np.float32]


class ExactRows:
    """All vectors of one space, one byte a component."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._ids = np.empty(0, np.int64)
        self._media_ids = np.empty(0, np.int64)
        self._vectors = np.empty((0, space.identity.dims), np.int8)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The segment ids, int64 [n], rising."""
        return self._ids

    def refresh(self, connection: apsw.Connection) -> None:
        """Read what was written since the last call and leave out what was deleted."""
        last = int(self._ids[-1]) if len(self._ids) else 0
        if last:
            rows = fetch(
                connection, "SELECT id FROM segment WHERE space_id = ? AND id <= ?", (self._space.id, last)
            )
            keep = np.isin(self._ids, np.array([row[0] for row in rows], np.int64))
            if not keep.all():
                self._ids, self._media_ids = self._ids[keep], self._media_ids[keep]
                self._vectors = self._vectors[keep]
        rows = fetch(
            connection,
            "SELECT s.id, s.media_id, v.embedding FROM segment s JOIN vector v ON v.segment_id = s.id "
            "WHERE s.space_id = ? AND s.id > ? ORDER BY s.id",
            (self._space.id, last),
        )
        if rows:
            stored = np.frombuffer(b"".join([row[2] for row in rows]), np.int8)
            self._ids = np.concatenate([self._ids, np.array([row[0] for row in rows], np.int64)])
            self._media_ids = np.concatenate([self._media_ids, np.array([row[1] for row in rows], np.int64)])
            self._vectors = np.concatenate([self._vectors, stored.reshape(len(rows), -1)])

    def scan(self, query: NDArray[np.float32], among: NDArray[np.int64] | None) -> Scanned:
        """The cosine of every row (or those at the positions `among`) with `query`: float32 [d], length 1."""
        vectors, ids, media_ids = self._vectors, self._ids, self._media_ids
        if among is not None:
            vectors, ids, media_ids = vectors[among], ids[among], media_ids[among]
        cosines = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), _BLOCK):
            # A block of floats stays in the cache; the whole matrix as floats would not.
            rows = vectors[start : start + _BLOCK, : len(query)].astype(np.float32)
            lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
            cosines[start : start + _BLOCK] = (rows @ query) / np.maximum(lengths, 1.0)
        return Scanned(ids, media_ids, np.clip(cosines, -1.0, 1.0))
