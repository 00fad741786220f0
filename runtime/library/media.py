"""The media of a library and their segments and vectors: written, copied, removed, read with their folder.

Every function runs inside the transaction of its caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .companions import pair_up
from .connection import count, fetch, fetch_one
from .records import EncodedSegment, FailedMedia, FoundFile, IndexedMedia, MediaItem, Space
from .rows import (
    MEDIA_COLUMNS,
    file_values,
    info_values,
    loaded_name,
    marks,
    media_item,
    stored_name,
    stored_text,
)

_SELECT_MEDIA = f"SELECT {MEDIA_COLUMNS} FROM media m JOIN folder f ON f.id = m.folder_id"

_NO_INFO: dict[str, Any] = dict.fromkeys(
    ("kind", "width", "height", "duration_s", "taken_at", "latitude", "longitude", "camera")
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A media row that is there already. `is_described`: its content was read well once."""

    id: int
    content_hash: bytes
    is_described: bool


def write_media(connection: apsw.Connection, item: IndexedMedia | FailedMedia, space: Space) -> int:
    """Insert or replace the row of a file and clear what it makes stale; returns its media id."""
    known = _row_at(connection, item.file)
    if isinstance(item, FailedMedia):
        media_id = _write_failed(connection, item, space, known)
    else:
        values = info_values(item.info) | {"state": "indexed", "error": None} | _place(item)
        if known is None:
            media_id = _insert(connection, values)
        else:
            media_id = known.id
            _clear(connection, media_id, space if known.content_hash == item.content_hash else None)
            _update(connection, media_id, values)
    pair_up(connection, item.file.folder_id, item.file.name)
    return media_id


def _write_failed(connection: apsw.Connection, item: FailedMedia, space: Space, known: _Row | None) -> int:
    is_same = known is not None and known.content_hash == item.content_hash
    if known is not None and known.is_described:
        if not item.content_hash:
            return known.id  # the system refused it: no news of its content
        if is_same:
            # What was read well once is not at fault: the failure costs this space, the others still serve.
            _clear(connection, known.id, space)
            _update(connection, known.id, _place(item))
            _refuse(connection, known.id, space, item.reason)
            return known.id
    error = None if item.is_models else stored_text(item.reason)
    values = _NO_INFO | {"state": "failed", "error": error} | _place(item)
    if known is None:
        media_id = _insert(connection, values)
    else:
        media_id = known.id
        _clear(connection, media_id, space if is_same and item.is_models else None)
        _update(connection, media_id, values)
    if item.is_models:
        _refuse(connection, media_id, space, item.reason)
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
    known = _row_at(connection, file)
    if known is not None and known.id != media_id:
        remove_media(connection, [known.id])
    before = _name_of(connection, media_id)
    _update(connection, media_id, file_values(file) | {"shown_by": None})
    for folder_id, name in {*before, (file.folder_id, file.name)}:
        pair_up(connection, folder_id, name)


def copy_media(connection: apsw.Connection, media_id: int, file: FoundFile) -> int:
    """Write `file` as a second file with the content of `media_id`, in every space; returns its media id.

    One that was known with this content keeps its own vectors where `media_id` has none.
    """
    source = fetch_one(connection, "SELECT content_hash FROM media WHERE id = ?", (media_id,))
    if source is None:
        raise InputError(f"no item has the id {media_id}")
    known = _row_at(connection, file)
    if known is not None and known.id == media_id:
        _update(connection, media_id, file_values(file))
        return media_id
    values = file_values(file)
    shared = f"content_hash, state, error, {', '.join(_NO_INFO)}"
    if known is None:
        connection.execute(
            f"INSERT INTO media ({', '.join(values)}, {shared}) "
            f"SELECT {marks(values)}, {shared} FROM media WHERE id = ?",
            (*values.values(), media_id),
        )
        copied = connection.last_insert_rowid()
    else:
        copied = known.id
        if known.content_hash != source[0]:
            _clear(connection, copied, None)
        connection.execute(
            f"UPDATE media SET ({shared}) = (SELECT {shared} FROM media WHERE id = ?) WHERE id = ?",
            (media_id, copied),
        )
        _update(connection, copied, values)
    _copy_vectors(connection, media_id, copied)
    pair_up(connection, file.folder_id, file.name)
    return copied


def _copy_vectors(connection: apsw.Connection, source_id: int, target_id: int) -> None:
    """Give an item the segments, vectors and refusals of another, in every space where that has some."""
    rows = fetch(
        connection,
        "SELECT s.space_id, s.t0_ms, s.t1_ms, v.embedding "
        "FROM segment s JOIN vector v ON v.segment_id = s.id "
        "WHERE s.media_id = ? ORDER BY s.id",
        (source_id,),
    )
    refusals = fetch(connection, "SELECT space_id, error FROM refusal WHERE media_id = ?", (source_id,))
    for space_id in {row[0] for row in (*rows, *refusals)}:
        _clear_space(connection, target_id, space_id)
    for space_id, t0_ms, t1_ms, embedding in rows:
        _insert_segment(connection, target_id, space_id, t0_ms, t1_ms, embedding)
    for space_id, error in refusals:
        connection.execute("INSERT INTO refusal VALUES (?, ?, ?)", (target_id, space_id, error))


def remove_media(connection: apsw.Connection, media_ids: Iterable[int]) -> int:
    """Delete media with their segments and vectors; returns how many people saw as items."""
    media_ids = list(media_ids)
    removed = count(
        connection,
        "SELECT count(*) FROM json_each(?) j JOIN media m ON m.id = j.value WHERE m.state = 'indexed' "
        "AND m.shown_by IS NULL AND EXISTS (SELECT 1 FROM segment s WHERE s.media_id = m.id)",
        (json.dumps(media_ids),),
    )
    for media_id in media_ids:
        _clear(connection, media_id, None)
        before = _name_of(connection, media_id)
        connection.execute("DELETE FROM media WHERE id = ?", (media_id,))
        for folder_id, name in before:
            pair_up(connection, folder_id, name)
    return removed


def failed_media(connection: apsw.Connection, space: Space | None) -> list[tuple[MediaItem, str]]:
    """The files that cannot be used, and those that got no vectors in `space`, with their reasons."""
    faults = fetch(connection, f"{_SELECT_MEDIA} WHERE m.state = 'failed' AND m.error IS NOT NULL")
    refused = fetch(
        connection,
        f"SELECT {MEDIA_COLUMNS}, r.error FROM refusal r JOIN media m ON m.id = r.media_id "
        "JOIN folder f ON f.id = m.folder_id WHERE r.space_id = ?",
        (0 if space is None else space.id,),
    )
    items = [(item, item.error or "unknown") for item in map(media_item, faults)]
    return items + [(media_item(row[:-1]), row[-1]) for row in refused]


def media_of(connection: apsw.Connection, media_id: int) -> MediaItem | None:
    """The item of this id, or None."""
    row = fetch_one(connection, f"{_SELECT_MEDIA} WHERE m.id = ?", (media_id,))
    return None if row is None else media_item(row)


def media_at(connection: apsw.Connection, folder_id: int, name: str) -> MediaItem | None:
    """The item `name` of a root, or None."""
    there = "m.folder_id = ? AND m.name = ?"
    row = fetch_one(connection, f"{_SELECT_MEDIA} WHERE {there}", (folder_id, stored_name(name)))
    return None if row is None else media_item(row)


def _row_at(connection: apsw.Connection, file: FoundFile) -> _Row | None:
    row = fetch_one(
        connection,
        "SELECT id, content_hash, state = 'indexed' FROM media WHERE folder_id = ? AND name = ?",
        (file.folder_id, stored_name(file.name)),
    )
    return None if row is None else _Row(row[0], row[1], bool(row[2]))


def _name_of(connection: apsw.Connection, media_id: int) -> list[tuple[int, str]]:
    """Where a row lies: its folder and name, or nothing when there is no such row."""
    rows = fetch(connection, "SELECT folder_id, name FROM media WHERE id = ?", (media_id,))
    return [(folder_id, loaded_name(name)) for folder_id, name in rows]


def _place(item: IndexedMedia | FailedMedia) -> dict[str, Any]:
    return file_values(item.file) | {"content_hash": item.content_hash}


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


def _refuse(connection: apsw.Connection, media_id: int, space: Space, reason: str) -> None:
    connection.execute("INSERT INTO refusal VALUES (?, ?, ?)", (media_id, space.id, stored_text(reason)))


def _clear(connection: apsw.Connection, media_id: int, space: Space | None) -> None:
    """Forget what one space (None: every space) holds of an item."""
    if space is not None:
        _clear_space(connection, media_id, space.id)
        return
    spaces = fetch(
        connection,
        "SELECT space_id FROM segment WHERE media_id = ?1 "
        "UNION SELECT space_id FROM refusal WHERE media_id = ?1",
        (media_id,),
    )
    for (space_id,) in spaces:
        _clear_space(connection, media_id, space_id)


def _clear_space(connection: apsw.Connection, media_id: int, space_id: int) -> None:
    own, parameters = "media_id = ? AND space_id = ?", (media_id, space_id)
    connection.execute(f"DELETE FROM refusal WHERE {own}", parameters)
    connection.execute(
        f"DELETE FROM vector WHERE segment_id IN (SELECT id FROM segment WHERE {own})", parameters
    )
    connection.execute(f"DELETE FROM segment WHERE {own}", parameters)
