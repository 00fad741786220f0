"""The codes of a large library in memory, kept in step with the file."""

from __future__ import annotations

from typing import TypeVar

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
from .hamming import closest, hamming
from .records import Space

_T = TypeVar("_T", bound=np.generic)


class CodedRows:
    """All codes of one space: first the persisted rows, behind them the fresh ones that no chunk holds yet.

    320 bytes a vector of 2048 dimensions. Rows are in rising order of their segment id.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._centre: Centre | None = None
        self._forget()
        self._searches = 0

    def _forget(self) -> None:
        width = head_bytes(self._space.identity.dims)
        self._generation = 0
        self._chunks = 0
        self._persisted = 0
        self._rows = 0
        self._last_dropped = 0
        self._ids = np.empty(0, np.int64)
        self._head = np.empty((0, width), np.uint8)
        self._tail = np.empty((0, self._space.identity.dims // 8 - width), np.uint8)

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
        width = min(len(bits), self._head.shape[1])
        head, tail = bits[:width], bits[width:]
        # Slicing before gathering keeps both contiguous for a truncated query.
        codes = self._head[: self._rows, :width]
        self._searches += 1
        wanted = first if len(tail) else second
        positions, distances = closest(
            codes if among is None else codes[among], head, wanted, with_faiss=self._searches > 1
        )
        if among is not None:
            positions = among[positions]
        if len(tail) and len(positions) > second:
            distances = distances + hamming(self._tail[positions, : len(tail)], tail)
            positions = positions[np.argpartition(distances, second)[:second]]
        return self._ids[np.sort(positions)]

    def _put(self, chunk: CodeChunk) -> None:
        end = self._rows + len(chunk.ids)
        if end > len(self._ids):
            # Room to grow, so that appending chunk after chunk copies each row only a few times.
            capacity = max(end, self._rows + self._rows // 4, 4 * CHUNK_ROWS)
            self._ids = _grown(self._ids, capacity)
            self._head = _grown(self._head, capacity)
            self._tail = _grown(self._tail, capacity)
        self._ids[self._rows : end] = chunk.ids
        self._head[self._rows : end] = chunk.head
        self._tail[self._rows : end] = chunk.tail
        self._rows = end

    def _drop(self, dropped: list[tuple[int, int]]) -> None:
        if not dropped:
            return
        gone = np.array([segment_id for _, segment_id in dropped], np.int64)
        keep = np.flatnonzero(~np.isin(self.ids, gone))
        for array in (self._ids, self._head, self._tail):
            array[: len(keep)] = array[keep]
        self._rows = len(keep)
        self._last_dropped = dropped[-1][0]


def _grown(array: NDArray[_T], capacity: int) -> NDArray[_T]:
    larger = np.empty((capacity, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
