"""The items nearest to a vector, each once and with what people want to see of it.

Every function runs inside the transaction of its caller.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import apsw
import numpy as np
from numpy.typing import NDArray

from .companions import as_shown, companions_of, has_pairs
from .connection import fetch
from .filters import condition_of
from .records import Candidate, Filters, Segment, Space
from .rows import MEDIA_COLUMNS, media_item
from .vector_search import Neighbour, VectorSearch


def nearest(
    connection: apsw.Connection,
    search: VectorSearch,
    space: Space,
    vector: NDArray[np.float32],
    *,
    limit: int,
    filters: Filters | None,
) -> tuple[Candidate, ...]:
    """See `Store.nearest`; `search` is that of `space`."""
    condition = condition_of(connection, filters)
    if not has_pairs(connection):
        return _candidates(connection, search.nearest(vector, limit=limit, condition=condition))
    # Both parts of every Live Photo may be among them.
    neighbours = search.nearest(vector, limit=2 * limit, condition=condition)
    return _candidates(connection, as_shown(connection, space, neighbours)[:limit])


def _candidates(connection: apsw.Connection, neighbours: Sequence[Neighbour]) -> tuple[Candidate, ...]:
    """Neighbours with their rows, which exist in the same transaction."""
    rows = fetch(
        connection,
        f"SELECT s.id, s.t0_ms, s.t1_ms, {MEDIA_COLUMNS} FROM json_each(?) j "
        "CROSS JOIN segment s ON s.id = j.value JOIN media m ON m.id = s.media_id "
        "JOIN folder f ON f.id = m.folder_id",
        (json.dumps([neighbour.segment_id for neighbour in neighbours]),),
    )
    by_segment = {row[0]: row for row in rows}
    companions = companions_of(connection, [neighbour.media_id for neighbour in neighbours])
    candidates = []
    for neighbour in neighbours:
        segment_id, t0_ms, t1_ms, *media = by_segment[neighbour.segment_id]
        segment = Segment(segment_id, neighbour.media_id, t0_ms, t1_ms)
        item = media_item(tuple(media))
        candidates.append(Candidate(item, segment, neighbour.cosine, companions.get(item.id, ())))
    return tuple(candidates)
