"""How many items, segments and failures a library holds, as people see them: a Live Photo is one item.

Every function runs inside the transaction of its caller.
"""

from __future__ import annotations

import apsw

from .connection import count, fetch
from .filters import SHOWN
from .media import failed_media
from .records import Counts, Space

_ITEMS = (
    f"media m WHERE {SHOWN} AND EXISTS (SELECT 1 FROM segment s WHERE s.media_id = m.id AND s.space_id = ?)"
)


def count_all(connection: apsw.Connection, space: Space | None) -> Counts:
    """What a library holds in `space`; None is one that was never indexed."""
    failed = len(failed_media(connection, space))
    if space is None:
        return Counts(0, 0, 0, 0, failed)
    kinds: dict[str, int] = dict(
        fetch(connection, f"SELECT m.kind, count(*) FROM {_ITEMS} GROUP BY m.kind", (space.id,))
    )
    segments = count(connection, "SELECT count(*) FROM segment WHERE space_id = ?", (space.id,))
    photos, videos = kinds.get("photo", 0), kinds.get("video", 0)
    return Counts(photos + videos, photos, videos, segments, failed)


def count_by_folder(connection: apsw.Connection, space: Space | None) -> dict[int, int]:
    """How many items each root holds in `space`, by the root's id."""
    sql = f"SELECT m.folder_id, count(*) FROM {_ITEMS} GROUP BY m.folder_id"
    return dict(fetch(connection, sql, (0 if space is None else space.id,)))
