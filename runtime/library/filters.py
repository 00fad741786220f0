"""Search filters as SQL conditions over `media AS m`.

The conditions choose the candidates before any vector is looked at, so a narrow filter never loses hits
to the items that it excludes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import apsw

from ..errors import InputError
from .connection import fetch
from .records import Filters
from .roots import in_terms_of, is_inside
from .rows import loaded_name, marks, stored_moment, stored_name


@dataclass(frozen=True, slots=True)
class Condition:
    """An SQL expression over `media AS m`, and its parameters."""

    sql: str
    values: tuple[str | bytes | int, ...]


def condition_of(connection: apsw.Connection, filters: Filters | None) -> Condition | None:
    """What `filters` asks of a media row; None when every item may be returned.

    Raises InputError for an unknown kind, a date with a time zone, or a relative `under`.
    """
    if filters is None:
        return None
    parts: list[Condition] = []
    if filters.kind is not None:
        if filters.kind not in ("photo", "video"):
            raise InputError(f"unknown kind {filters.kind!r}; it is photo or video")
        parts.append(Condition("m.kind = ?", (filters.kind,)))
    after, before = stored_moment(filters.after), stored_moment(filters.before)
    if after is not None:
        parts.append(Condition("m.taken_at >= ?", (after,)))
    if before is not None:
        parts.append(Condition("m.taken_at < ?", (before,)))
    if filters.camera is not None:
        parts.append(_camera(connection, filters.camera))
    if filters.under is not None:
        parts.append(_under(connection, filters.under))
    return _joined(" AND ", parts) if parts else None


def _camera(connection: apsw.Connection, wanted: str) -> Condition:
    # A library knows few cameras; comparing them here makes "any case" hold beyond ASCII.
    names = fetch(connection, "SELECT DISTINCT camera FROM media WHERE camera IS NOT NULL")
    matching = [name for (name,) in names if wanted.casefold() in name.casefold()]
    return Condition(f"m.camera IN ({marks(matching)})", tuple(matching))


def _under(connection: apsw.Connection, under: str) -> Condition:
    if not os.path.isabs(under):  # noqa: PTH117 - a Path would lose nothing but says less
        raise InputError(f"{under}: a search below a folder needs an absolute path")
    rows = fetch(connection, "SELECT id, path FROM folder")
    folders = {folder_id: loaded_name(stored_path) for folder_id, stored_path in rows}
    wanted = in_terms_of(os.path.normpath(under), folders.values())
    parts = []
    for folder_id, folder in folders.items():
        if is_inside(folder, wanted):
            parts.append(Condition("m.folder_id = ?", (folder_id,)))
        elif is_inside(wanted, folder):
            parts.append(inside(folder_id, os.path.relpath(wanted, folder)))
    return _joined(" OR ", parts) if parts else Condition("0", ())


def inside(folder_id: int, name: str) -> Condition:
    """The file `name` of a folder, or everything below the subfolder `name`; served by the index on names."""
    bounds: list[str | bytes] = []
    first, last = name + os.sep, name + chr(ord(os.sep) + 1)
    # Names are compared by code point or byte; SQLite sorts every BLOB behind every TEXT, so a range of texts
    # holds no undecodable name and needs the range of bytes beside it.
    if isinstance(stored_name(name), str):
        bounds += [first, last]
    bounds += [os.fsencode(first), os.fsencode(last)]
    ranges = " OR ".join(["(m.name >= ? AND m.name < ?)"] * (len(bounds) // 2))
    return Condition(f"m.folder_id = ? AND (m.name = ? OR {ranges})", (folder_id, stored_name(name), *bounds))


def _joined(word: str, parts: list[Condition]) -> Condition:
    return Condition(
        word.join(f"({part.sql})" for part in parts), tuple(value for part in parts for value in part.values)
    )
