"""The items nearest to a query vector, each with its best segment.

    filters -> candidates -> small library:  exact scan of int8 vectors in memory
                             narrow filter:  exact distances by sqlite-vec
                             else:           leading bits, top 4000 -> all bits, top 500
                                             -> exact distances by sqlite-vec

Filters choose the candidates before anything is compared, so a search never comes back short because the
nearest items were filtered away. Knows vectors, segments and conditions; does not know what an item looks
like.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .coded_rows import CodedRows
from .codes import CODED_FROM_ROWS
from .connection import count, fetch
from .exact_rows import ExactRows
from .filters import Condition
from .quantization import quantize_query
from .records import Space

# Up to so many candidates in a large library are compared exactly, straight from the file (5 ms a thousand).
EXACT_CANDIDATES = 4000

# Rows that pass the leading bits, and rows that pass all bits, for up to 100 hits.
FIRST = 4000
SECOND = 500
_SECOND_PER_HIT = 5
# Few bits order less well: with fewer than this many, four times as many rows pass. Recall@100 of 30,000
# vectors of 256 dimensions: 0.935 with 500 rows, 0.974 with 2000.
_ENOUGH_BITS = 1024
_NARROW_FACTOR = 4

_REMEMBERED_FILTERS = 8


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item's segment and its cosine with the query, in [-1, 1]."""

    media_id: int
    segment_id: int
    cosine: float


class VectorSearch:
    """The search over one space of an open library. Must be called inside a read transaction."""

    def __init__(self, connection: apsw.Connection, space: Space) -> None:
        self._connection = connection
        self._space = space
        self._version: tuple[int, int] | None = None
        self._exact: ExactRows | None = None
        self._coded: CodedRows | None = None
        self._matching: dict[Condition, NDArray[np.int64]] = {}

    def nearest(
        self, vector: NDArray[np.float32], *, limit: int, condition: Condition | None
    ) -> list[Neighbour]:
        """The `limit` nearest items that meet `condition`, best first.

        `vector`: float32 [d], full width or an MRL prefix, of any length. Raises InputError when it does
        not fit.
        """
        query = _checked_query(vector, self._space)
        self._refresh()
        among = None if condition is None else self._positions(condition)
        if limit < 1 or (among is not None and len(among) == 0):
            return []
        if self._exact is not None:
            scanned = self._exact.scan(query, among)
            return _best_of_each(scanned.media_ids, scanned.segment_ids, scanned.cosines, limit)
        assert self._coded is not None
        if among is not None and len(among) <= EXACT_CANDIDATES:
            return self._measure(query, self._coded.ids[among], limit)
        return self._staged(query, limit, among)

    def _staged(
        self, query: NDArray[np.float32], limit: int, among: NDArray[np.int64] | None
    ) -> list[Neighbour]:
        assert self._coded is not None
        available = len(self._coded.ids) if among is None else len(among)
        second = max(SECOND, _SECOND_PER_HIT * limit)
        if len(query) < _ENOUGH_BITS:
            second *= _NARROW_FACTOR
        first = max(FIRST, FIRST // SECOND * second)
        while True:
            ids = self._coded.shortlist(query, first, second, among)
            found = self._measure(query, ids, limit)
            # A few long videos can fill the shortlist; then look further, for `limit` items and not segments.
            if len(found) >= limit or len(ids) >= available:
                return found
            first, second = 4 * first, 4 * second

    def _measure(self, query: NDArray[np.float32], ids: NDArray[np.int64], limit: int) -> list[Neighbour]:
        """Exact distances of these segments from the file; the best segment of each item, best item first."""
        embedding = "vec_int8(v.embedding)"
        if len(query) < self._space.identity.dims:
            embedding = f"vec_slice({embedding}, 0, {len(query)})"
        rows = fetch(
            self._connection,
            f"SELECT s.media_id, s.id, min(vec_distance_cosine({embedding}, vec_int8(?))) AS distance "
            "FROM json_each(?) j CROSS JOIN vector v ON v.segment_id = j.value "
            "CROSS JOIN segment s ON s.id = v.segment_id GROUP BY s.media_id ORDER BY distance, s.id LIMIT ?",
            (quantize_query(query).tobytes(), json.dumps(ids.tolist()), limit),
        )
        # Rounding may carry the cosine of a vector with itself past 1.
        return [
            Neighbour(media_id, segment_id, min(1.0, max(-1.0, 1.0 - distance)))
            for media_id, segment_id, distance in rows
        ]

    def _refresh(self) -> None:
        """Bring the rows in memory to the state of this transaction, when anything was written since."""
        version = (count(self._connection, "PRAGMA data_version"), self._connection.total_changes())
        if version == self._version:
            return
        self._matching.clear()
        rows = count(self._connection, "SELECT count(*) FROM segment WHERE space_id = ?", (self._space.id,))
        if rows < CODED_FROM_ROWS:
            self._coded = None
            self._exact = self._exact or ExactRows(self._space)
            self._exact.refresh(self._connection)
        else:
            self._exact = None
            self._coded = self._coded or CodedRows(self._space)
            self._coded.refresh(self._connection)
        self._version = version

    def _positions(self, condition: Condition) -> NDArray[np.int64]:
        """Where in memory the segments lie that meet `condition`, rising."""
        known = self._matching.get(condition)
        if known is not None:
            return known
        rows = fetch(
            self._connection,
            # CROSS JOIN: from the media to their segments, so that a narrow filter costs little. Left to
            # itself, SQLite starts from all segments of the space. An item that another one stands for is
            # meant wherever that one is.
            "SELECT s.id FROM media m CROSS JOIN segment s ON s.media_id = m.id AND s.space_id = ? "
            f"WHERE m.shown_by IS NULL AND ({condition.sql}) UNION ALL "
            "SELECT s.id FROM media film CROSS JOIN media m ON m.id = film.shown_by "
            "CROSS JOIN segment s ON s.media_id = film.id AND s.space_id = ? "
            f"WHERE film.shown_by IS NOT NULL AND ({condition.sql})",
            (self._space.id, *condition.values, self._space.id, *condition.values),
        )
        wanted = np.array([row[0] for row in rows], np.int64)
        table = self._exact or self._coded
        assert table is not None
        positions = np.flatnonzero(np.isin(table.ids, wanted))
        if len(self._matching) >= _REMEMBERED_FILTERS:
            self._matching.pop(next(iter(self._matching)))
        self._matching[condition] = positions
        return positions


def _best_of_each(
    media_ids: NDArray[np.int64], segment_ids: NDArray[np.int64], cosines: NDArray[np.float32], limit: int
) -> list[Neighbour]:
    """The best row of each item, best item first; among equals the oldest segment."""
    best: dict[int, Neighbour] = {}
    for at in np.argsort(-cosines, kind="stable").tolist():
        media_id = int(media_ids[at])
        if media_id not in best:
            best[media_id] = Neighbour(media_id, int(segment_ids[at]), float(cosines[at]))
            if len(best) == limit:
                break
    return list(best.values())


def _checked_query(vector: NDArray[np.float32], space: Space) -> NDArray[np.float32]:
    query = np.asarray(vector, np.float32)
    dims = space.identity.dims
    if query.ndim != 1 or not 0 < len(query) <= dims:
        raise InputError(
            f"a query vector of shape {query.shape} does not fit a library of {dims} dimensions; "
            f"it needs the model that the library was indexed with"
        )
    length = float(np.linalg.norm(query))
    if not np.isfinite(length) or length == 0:
        raise InputError("the query vector is zero or not finite")
    return query / np.float32(length)
