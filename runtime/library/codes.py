"""Sign-bit codes of centred vectors: one bit a component, compared by Hamming distance.

A code is one bit for each component: is it above the mean of that component over the library? Centring
matters: embeddings share a large common part, whose bits would say nothing. Codes are derived from the int8
vectors, kept in chunks of 4096 rows, and built anew (a new generation) when the library has outgrown the
mean that they were taken with or when many of their rows were deleted.

The leading `HEAD_BITS` are kept apart from the others, because the first step of a search looks at nothing
else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from .connection import count, fetch, fetch_one
from .records import Space

CHUNK_ROWS = 4096
HEAD_BITS = 512

# A library with fewer vectors is searched without codes.
CODED_FROM_ROWS = 20_000

_MEAN_SAMPLE = 10_000
# The mean is taken again when the library has grown by this factor since.
_REGROWTH = 4
# The codes are built again when this part of their rows is gone.
_DROPPED_PART = 0.1


@dataclass(frozen=True, slots=True)
class Centre:
    """Where the bits flip. `mean`, `mean_square`: float32 [dims], of stored int8 components."""

    mean: NDArray[np.float32]
    mean_square: NDArray[np.float32]

    def row_bits(self, stored: NDArray[np.int8]) -> NDArray[np.uint8]:
        """int8 [n, dims] -> uint8 [n, dims / 8], component 0 in the lowest bit of byte 0."""
        # x > mean and x > floor(mean) are the same question for whole numbers, and int8 compares fast.
        return np.packbits(stored > np.floor(self.mean).astype(np.int8), axis=1, bitorder="little")

    def query_bits(self, query: NDArray[np.float32]) -> NDArray[np.uint8]:
        """float32 [d], length 1 -> uint8 [d // 8]. A truncated query counts as the start of a full one."""
        # A stored row's first d components have this length on average; the query gets the same.
        length = np.sqrt(float(self.mean_square[: len(query)].sum()))
        whole = len(query) // 8 * 8
        above = query[:whole] * np.float32(length) > self.mean[:whole]
        return np.packbits(above, bitorder="little")


@dataclass(frozen=True, slots=True)
class CodeChunk:
    """Up to 4096 rows. `ids`: int64 [n], rising; `head`, `tail`: uint8 [n, bytes]."""

    ids: NDArray[np.int64]
    head: NDArray[np.uint8]
    tail: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CodeState:
    """What the database says about the codes of a space; generation 0 means that there are none."""

    generation: int
    coded_to: int
    coded_from: int
    centre: Centre | None


def head_bytes(dims: int) -> int:
    """The width of the leading part of a code of `dims` bits."""
    return min(HEAD_BITS, dims) // 8


def code_state(connection: apsw.Connection, space: Space) -> CodeState:
    """The state of the codes as of this transaction."""
    row = fetch_one(
        connection,
        "SELECT generation, coded_to, coded_from, mean, mean_square FROM space WHERE id = ?",
        (space.id,),
    )
    if row is None or row[0] == 0:
        return CodeState(0, 0, 0, None)
    centre = Centre(np.frombuffer(row[3], np.float32), np.frombuffer(row[4], np.float32))
    return CodeState(row[0], row[1], row[2], centre)


def upkeep(connection: apsw.Connection, space: Space) -> None:
    """After a write, in a transaction of its own: code what is not coded yet, build anew when it is time."""
    state = code_state(connection, space)
    uncoded = _count_vectors(connection, space, above=state.coded_to)
    coded = CHUNK_ROWS * _count_chunks(connection, space, state)
    dropped = _count_dropped(connection, space)
    rows = coded + uncoded - dropped
    if rows < CODED_FROM_ROWS:
        return
    outgrown = rows >= _REGROWTH * state.coded_from
    if state.generation == 0 or outgrown or dropped > _DROPPED_PART * coded:
        _build(connection, space, state, rows)
    elif uncoded >= CHUNK_ROWS:
        _append(connection, space, state)


def measure_centre(connection: apsw.Connection, space: Space) -> Centre:
    """The centre of a space, from a sample of its vectors spread over the whole library."""
    ids = np.array([row[0] for row in fetch(connection, _IDS, (space.id,))], np.int64)
    sample = ids[:: max(1, len(ids) // _MEAN_SAMPLE)]
    rows = fetch(
        connection,
        "SELECT v.embedding FROM json_each(?) j CROSS JOIN vector v ON v.segment_id = j.value",
        (json.dumps(sample.tolist()),),
    )
    stored = np.frombuffer(b"".join(row[0] for row in rows), np.int8).reshape(-1, space.identity.dims)
    components = stored.astype(np.float32)
    return Centre(components.mean(axis=0), np.square(components).mean(axis=0))


def encode_after(
    connection: apsw.Connection, space: Space, centre: Centre, above: int
) -> Iterator[CodeChunk]:
    """Codes for the vectors with a segment id over `above`, a chunk at a time; the last may be short."""
    width = head_bytes(space.identity.dims)
    while True:
        rows = fetch(
            connection,
            "SELECT s.id, v.embedding FROM segment s JOIN vector v ON v.segment_id = s.id "
            "WHERE s.space_id = ? AND s.id > ? ORDER BY s.id LIMIT ?",
            (space.id, above, CHUNK_ROWS),
        )
        if not rows:
            return
        stored = np.frombuffer(b"".join(row[1] for row in rows), np.int8).reshape(len(rows), -1)
        bits = centre.row_bits(stored)
        ids = np.array([row[0] for row in rows], np.int64)
        yield CodeChunk(ids, bits[:, :width], bits[:, width:])
        if len(rows) < CHUNK_ROWS:
            return
        above = rows[-1][0]


def stored_chunks(
    connection: apsw.Connection, space: Space, generation: int, first: int
) -> Iterator[CodeChunk]:
    """The persisted chunks from number `first` on."""
    cursor = connection.execute(
        "SELECT ids, head, tail FROM code WHERE space_id = ? AND generation = ? AND chunk >= ? "
        "ORDER BY chunk",
        (space.id, generation, first),
    )
    for stored_ids, head, tail in cursor:
        ids = np.frombuffer(stored_ids, np.int64)
        yield CodeChunk(
            ids,
            np.frombuffer(head, np.uint8).reshape(len(ids), -1),
            np.frombuffer(tail, np.uint8).reshape(len(ids), len(tail) // len(ids)),
        )


def dropped_after(connection: apsw.Connection, space: Space, last: int) -> list[tuple[int, int]]:
    """(number of the entry, segment id) of coded rows that were deleted since entry `last`."""
    return [
        (row[0], row[1])
        for row in fetch(
            connection,
            "SELECT id, segment_id FROM dropped WHERE space_id = ? AND id > ? ORDER BY id",
            (space.id, last),
        )
    ]


def _build(connection: apsw.Connection, space: Space, state: CodeState, rows: int) -> None:
    centre = measure_centre(connection, space)
    connection.execute("DELETE FROM code WHERE space_id = ?", (space.id,))
    connection.execute("DELETE FROM dropped WHERE space_id = ?", (space.id,))
    connection.execute(
        "UPDATE space SET generation = generation + 1, coded_to = 0, coded_from = ?, "
        "mean = ?, mean_square = ? WHERE id = ?",
        (rows, centre.mean.tobytes(), centre.mean_square.tobytes(), space.id),
    )
    _append(connection, space, CodeState(state.generation + 1, 0, rows, centre))


def _append(connection: apsw.Connection, space: Space, state: CodeState) -> None:
    """Persist full chunks; the rows behind the last one are coded by each reader for itself."""
    assert state.centre is not None
    chunk = _count_chunks(connection, space, state)
    for codes in encode_after(connection, space, state.centre, state.coded_to):
        if len(codes.ids) < CHUNK_ROWS:
            break
        connection.execute(
            "INSERT INTO code (space_id, generation, chunk, ids, head, tail) VALUES (?, ?, ?, ?, ?, ?)",
            (
                space.id,
                state.generation,
                chunk,
                codes.ids.tobytes(),
                codes.head.tobytes(),
                codes.tail.tobytes(),
            ),
        )
        connection.execute("UPDATE space SET coded_to = ? WHERE id = ?", (int(codes.ids[-1]), space.id))
        chunk += 1


def _count_vectors(connection: apsw.Connection, space: Space, *, above: int) -> int:
    return count(connection, "SELECT count(*) FROM segment WHERE space_id = ? AND id > ?", (space.id, above))


def _count_chunks(connection: apsw.Connection, space: Space, state: CodeState) -> int:
    return count(
        connection,
        "SELECT count(*) FROM code WHERE space_id = ? AND generation = ?",
        (space.id, state.generation),
    )


def _count_dropped(connection: apsw.Connection, space: Space) -> int:
    return count(connection, "SELECT count(*) FROM dropped WHERE space_id = ?", (space.id,))


_IDS = "SELECT id FROM segment WHERE space_id = ? ORDER BY id"
