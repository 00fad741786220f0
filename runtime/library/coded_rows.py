"""The codes of a large library in memory, kept in step with the file."""

from __future__ import annotations

import apsw
import numpy as np
from numpy.typing import NDArray

from .codes import (
    CHUNK_ROWS,
    Centre,
    CodeChunk,
    code_state,
    dropped_after,
    encode_after,
    head_bytes,
    measure_centre,
    stored_chunks,
)
from .hamming import column_distances, row_distances, smallest, words
from .records import Space


class CodedRows:
    """All codes of one space: first the persisted rows, behind them the fresh ones that no chunk holds yet.

    264 bytes a vector of 2048 dimensions. Rows are in rising order of their segment id.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._centre: Centre | None = None
        self._forget()

    def _forget(self) -> None:
        head = head_bytes(self._space.identity.dims)
        tail = self._space.identity.dims // 8 - head
        self._generation = 0
        self._chunks = 0
        self._persisted = 0
        self._rows = 0
        self._last_dropped = 0
        self._ids = np.empty(0, np.int64)
        # The leading bits by column, for a scan over all rows; the others by row, for looking at a few.
        self._head = np.empty((-(-head // 8), 0), np.uint64)
        self._tail = np.empty((0, -(-tail // 8)), np.uint64)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The segment ids, int64 [n], rising."""
        return self._ids[: self._rows]

    def refresh(self, connection: apsw.Connection) -> None:
        """Read what was written since the last call: new chunks, dropped rows, and the fresh rows anew."""
        state = code_state(connection, self._space)
        if state.generation == 0 or state.generation != self._generation:
            self._forget()
            self._generation = state.generation
            # Without persisted codes (the indexer was killed before its first upkeep) they are made for this
            # process alone.
            self._centre = state.centre or measure_centre(connection, self._space)
        self._rows = self._persisted
        if state.generation:
            for chunk in stored_chunks(connection, self._space, state.generation, self._chunks):
                self._put(chunk)
                self._chunks += 1
            self._drop(dropped_after(connection, self._space, self._last_dropped))
            self._persisted = self._rows
        assert self._centre is not None
        for chunk in encode_after(connection, self._space, self._centre, state.coded_to):
            self._put(chunk)

    def shortlist(
        self, query: NDArray[np.float32], first: int, second: int, among: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """Segment ids of the `second` best of the `first` best rows, int64 [<= second].

        `query`: float32 [d], length 1. The leading bits choose the first, all bits the second. `among`:
        positions of the rows that may be returned (None: all).
        """
        assert self._centre is not None
        bits = self._centre.query_bits(query)
        width = head_bytes(self._space.identity.dims)
        head, tail = bits[:width], bits[width:]
        # A truncated query says nothing about the bits behind its own.
        head_mask, tail_mask = words(np.full_like(head, 255)), words(np.full_like(tail, 255))
        columns = self._head[:, : self._rows] if among is None else self._head[:, among]
        distances = column_distances(columns, words(head), head_mask)
        chosen = smallest(distances, first if len(tail) else second)
        positions = chosen if among is None else among[chosen]
        if len(tail) and len(positions) > second:
            both = distances[chosen] + row_distances(self._tail[positions], words(tail), tail_mask)
            positions = positions[smallest(both, second)]
        return self._ids[positions]

    def _put(self, chunk: CodeChunk) -> None:
        end = self._rows + len(chunk.ids)
        if end > len(self._ids):
            # Room to grow, so that appending chunk after chunk copies each row only a few times.
            self._reserve(max(end, self._rows + self._rows // 4, 4 * CHUNK_ROWS))
        self._ids[self._rows : end] = chunk.ids
        self._head[:, self._rows : end] = words(chunk.head).T
        self._tail[self._rows : end] = words(chunk.tail)
        self._rows = end

    def _reserve(self, capacity: int) -> None:
        ids, head, tail = self._ids, self._head, self._tail
        self._ids = np.empty(capacity, np.int64)
        self._head = np.empty((len(head), capacity), np.uint64)
        self._tail = np.empty((capacity, tail.shape[1]), np.uint64)
        self._ids[: self._rows] = ids[: self._rows]
        self._head[:, : self._rows] = head[:, : self._rows]
        self._tail[: self._rows] = tail[: self._rows]

    def _drop(self, dropped: list[tuple[int, int]]) -> None:
        if not dropped:
            return
        gone = np.array([segment_id for _, segment_id in dropped], np.int64)
        keep = np.flatnonzero(~np.isin(self.ids, gone))
        self._ids[: len(keep)] = self._ids[keep]
        self._head[:, : len(keep)] = self._head[:, keep]
        self._tail[: len(keep)] = self._tail[keep]
        self._rows = len(keep)
        self._last_dropped = dropped[-1][0]
