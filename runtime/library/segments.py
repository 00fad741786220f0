"""The segments of an item and their vectors, as they are read.

Every function runs inside the transaction of its caller.
"""

from __future__ import annotations

import apsw
import numpy as np
from numpy.typing import NDArray

from .connection import fetch
from .quantization import dequantize
from .records import Segment, Space
from .spaces import scale_of


def segments_of(connection: apsw.Connection, media_id: int, space: Space | None) -> tuple[Segment, ...]:
    """The segments of an item in `space`, in order of time; none where there is no space."""
    rows = fetch(
        connection,
        "SELECT id, media_id, t0_ms, t1_ms FROM segment WHERE media_id = ? AND space_id = ? "
        "ORDER BY t0_ms, id",
        (media_id, 0 if space is None else space.id),
    )
    return tuple(Segment(*row) for row in rows)


def vectors_of(connection: apsw.Connection, media_id: int, space: Space | None) -> NDArray[np.float32]:
    """The vectors of an item, float32 [segments, dims], in the order of `segments_of`, as exact as int8."""
    if space is None:
        return np.empty((0, 0), np.float32)
    rows = fetch(
        connection,
        "SELECT v.embedding FROM segment s JOIN vector v ON v.segment_id = s.id "
        "WHERE s.media_id = ? AND s.space_id = ? ORDER BY s.t0_ms, s.id",
        (media_id, space.id),
    )
    stored = np.frombuffer(b"".join(row for (row,) in rows), np.int8)
    scale = scale_of(connection, space)
    return dequantize(stored.reshape(-1, space.identity.dims), scale or 1.0)
