"""The media of a library and their segments and vectors: written, copied, removed, read with their folder.

Every function runs inside the transaction of its caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .connection import fetch, fetch_one
from .records import EncodedSegment, FailedMedia, FoundFile, IndexedMedia, Space
from .rows import MEDIA_COLUMNS, file_values, info_values, marks, stored_name, stored_text

SELECT_MEDIA = f"SELECT {MEDIA_COLUMNS} FROM media m JOIN folder f ON f.id = m.folder_id"

# `KnownFile` of a media row as seen from one space (the first parameter of the query).
KNOWN_COLUMNS = (
    "m.id, m.folder_id, m.name, m.size, m.mtime_ns, m.content_hash, "
    "CASE WHEN m.state = 'indexed' AND NOT EXISTS "
    "(SELECT 1 FROM segment s WHERE s.media_id = m.id AND s.space_id = ?1) THEN 'pending' "
    "WHEN m.failed_in != ?1 THEN 'pending' ELSE m.state END"
)

_NO_INFO: dict[str, Any] = dict.fromkeys(
    ("kind", "width", "height", "duration_s", "taken_at", "latitude", "longitude", "camera")
)


def write_media(connection: apsw.Connection, item: IndexedMedia | FailedMedia, space: Space) -> int:
    """Insert or replace the row of a file and clear the vectors that it makes stale; returns its media id."""
    if isinstance(item, IndexedMedia):
        values = info_values(item.info) | {"state": "indexed", "error": None, "failed_in": None}
    else:
        failed_in = space.id if item.is_models else None
        values = _NO_INFO | {"state": "failed", "error": stored_text(item.reason), "failed_in": failed_in}
    values |= file_values(item.file) | {"content_hash": item.content_hash}
    known = fetch_one(
        connection,
        "SELECT id, content_hash FROM media WHERE folder_id = ? AND name = ?",
        (values["folder_id"], values["name"]),
    )
    if known is None:
        return _insert(connection, values)
    media_id: int = known[0]
    same_content = known[1] == item.content_hash and isinstance(item, IndexedMedia)
    _remove_segments(connection, media_id, space if same_content else None)
    _update(connection, media_id, values)
    return media_id


def write_segments(
    connection: apsw.Connection,
    media_id: int,
    space: Space,
    segments: Sequence[EncodedSegment],
    stored: NDArray[np.int8],
) -> None:
    """Add the segments of an item with their vectors: stored int8 [segments, dims]."""
    for segment, row in zip(segments, stored, strict=True):
        _insert_segment(connection, media_id, space.id, segment.t0_ms, segment.t1_ms, row.tobytes())


def move_media(connection: apsw.Connection, media_id: int, file: FoundFile) -> None:
    """Give a row another place; a row that lies there already is removed."""
    remove_media(connection, [other for other in _ids_at(connection, file) if other != media_id])
    _update(connection, media_id, file_values(file))


def copy_media(connection: apsw.Connection, media_id: int, file: FoundFile) -> int:
    """Write `file` as a second file with the content of `media_id`, in every space; returns its media id."""
    if fetch_one(connection, "SELECT 1 FROM media WHERE id = ?", (media_id,)) is None:
        raise InputError(f"no item has the id {media_id}")
    present = _ids_at(connection, file)
    if media_id in present:
        _update(connection, media_id, file_values(file))
        return media_id
    remove_media(connection, present)
    shared = f"content_hash, state, error, {', '.join(_NO_INFO)}"
    values = file_values(file)
    connection.execute(
        f"INSERT INTO media ({', '.join(values)}, {shared}) "
        f"SELECT {marks(values)}, {shared} FROM media WHERE id = ?",
        (*values.values(), media_id),
    )
    copied = connection.last_insert_rowid()
    rows = fetch(
        connection,
        "SELECT s.space_id, s.t0_ms, s.t1_ms, v.embedding "
        "FROM segment s JOIN vector v ON v.segment_id = s.id "
        "WHERE s.media_id = ? ORDER BY s.id",
        (media_id,),
    )
    for space_id, t0_ms, t1_ms, embedding in rows:
        _insert_segment(connection, copied, space_id, t0_ms, t1_ms, embedding)
    return copied


def remove_media(connection: apsw.Connection, media_ids: Iterable[int]) -> int:
    """Delete media with their segments and vectors; returns how many were items, and not in quarantine."""
    removed = 0
    for media_id in media_ids:
        _remove_segments(connection, media_id, None)
        row = fetch_one(connection, "DELETE FROM media WHERE id = ? RETURNING state", (media_id,))
        removed += row == ("indexed",)
    return removed


def _ids_at(connection: apsw.Connection, file: FoundFile) -> list[int]:
    rows = fetch(
        connection,
        "SELECT id FROM media WHERE folder_id = ? AND name = ?",
        (file.folder_id, stored_name(file.name)),
    )
    return [media_id for (media_id,) in rows]


def _insert(connection: apsw.Connection, values: Mapping[str, Any]) -> int:
    connection.execute(
        f"INSERT INTO media ({', '.join(values)}) VALUES ({marks(values)})", tuple(values.values())
    )
    return connection.last_insert_rowid()


def _insert_segment(
    connection: apsw.Connection, media_id: int, space_id: int, t0_ms: int, t1_ms: int, embedding: bytes
) -> None:
    """Add one segment with its vector; `embedding` is int8 [dims] as bytes, what `vec_int8` makes of it."""
    connection.execute(
        "INSERT INTO segment (media_id, space_id, t0_ms, t1_ms) VALUES (?, ?, ?, ?)",
        (media_id, space_id, t0_ms, t1_ms),
    )
    connection.execute(
        "INSERT INTO vector (segment_id, space_id, embedding) VALUES (?, ?, vec_int8(?))",
        (connection.last_insert_rowid(), space_id, embedding),
    )


def _update(connection: apsw.Connection, media_id: int, values: Mapping[str, Any]) -> None:
    connection.execute(
        f"UPDATE media SET {', '.join(f'{column} = ?' for column in values)} WHERE id = ?",
        (*values.values(), media_id),
    )


def _remove_segments(connection: apsw.Connection, media_id: int, space: Space | None) -> None:
    """Delete the segments of an item with their vectors, in one space or (None) in all."""
    condition, parameters = "media_id = ?", [media_id]
    if space is not None:
        condition, parameters = "media_id = ? AND space_id = ?", [media_id, space.id]
    connection.execute(
        f"DELETE FROM vector WHERE segment_id IN (SELECT id FROM segment WHERE {condition})", parameters
    )
    connection.execute(f"DELETE FROM segment WHERE {condition}", parameters)
