"""The files that a library remembers, as a walk compares them with those on disk.

Every function runs inside the transaction of its caller. The `state` of a file is that in one space:
"pending" when it has neither vectors nor a failure there.
"""

from __future__ import annotations

import apsw

from .connection import fetch, fetch_one
from .filters import condition_of, inside
from .records import Filters, KnownFile, Space
from .rows import known_file, stored_name

PAGE = 10_000

# `KnownFile` of a media row as seen from one space (the first parameter of the query).
_COLUMNS = (
    "m.id, m.folder_id, m.name, m.size, m.mtime_ns, m.content_hash, "
    "CASE WHEN m.error IS NOT NULL THEN 'failed' "
    "WHEN EXISTS (SELECT 1 FROM segment s WHERE s.media_id = m.id AND s.space_id = ?1) THEN 'indexed' "
    "WHEN EXISTS (SELECT 1 FROM refusal r WHERE r.media_id = m.id AND r.space_id = ?1) THEN 'failed' "
    "ELSE 'pending' END"
)


def known_page(
    connection: apsw.Connection, folder_id: int, space: Space, *, after: int
) -> tuple[KnownFile, ...]:
    """Up to `PAGE` files of a root in the order of their ids, which are above `after`."""
    rows = fetch(
        connection,
        f"SELECT {_COLUMNS} FROM media m WHERE m.folder_id = ? AND m.id > ? ORDER BY m.id LIMIT ?",
        (space.id, folder_id, after, PAGE),
    )
    return tuple(map(known_file, rows))


def known_at(connection: apsw.Connection, folder_id: int, name: str, space: Space) -> KnownFile | None:
    """The file `name` of a root, or None."""
    row = fetch_one(
        connection,
        f"SELECT {_COLUMNS} FROM media m WHERE m.folder_id = ? AND m.name = ?",
        (space.id, folder_id, stored_name(name)),
    )
    return None if row is None else known_file(row)


def known_below(
    connection: apsw.Connection, folder_id: int, name: str, space: Space
) -> tuple[KnownFile, ...]:
    """The file `name` of a root and all files in the subfolder `name`."""
    there = inside(folder_id, name)
    rows = fetch(
        connection,
        f"SELECT {_COLUMNS} FROM media m WHERE {there.sql}",
        (space.id, *there.values),
    )
    return tuple(map(known_file, rows))


def known_content(
    connection: apsw.Connection, content_hash: bytes, size: int, space: Space
) -> tuple[KnownFile, ...]:
    """The files of this content under any root, whatever they are called."""
    rows = fetch(
        connection,
        f"SELECT {_COLUMNS} FROM media m WHERE m.content_hash = ? AND m.size = ? ORDER BY m.id",
        (space.id, content_hash, size),
    )
    return tuple(map(known_file, rows))


def is_any_known(connection: apsw.Connection, path: str) -> bool:
    """Whether any file is remembered at this absolute path or below."""
    there = condition_of(connection, Filters(under=path))
    if there is None:
        return False
    found = f"SELECT 1 FROM media m WHERE {there.sql} LIMIT 1"
    return fetch_one(connection, found, there.values) is not None


def is_content_known(connection: apsw.Connection, content_hash: bytes) -> bool:
    """Whether any file has this content."""
    found = "SELECT 1 FROM media WHERE content_hash = ? LIMIT 1"
    return fetch_one(connection, found, (content_hash,)) is not None
