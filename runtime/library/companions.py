"""Files that belong to a photo and are shown with it, as one item: raw files, and the film of a Live Photo.

    IMG_1.HEIC + IMG_1.MOV of at most 4 s    the photo stands for both; the film's row names it, `shown_by`
    IMG_1.JPG + IMG_1.CR2                    the raw file is noted, and not read; alone it would be a photo

Two files belong together when they lie in one folder and their names differ in the extension alone. Every
function runs inside the transaction of its caller.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

import apsw

from .connection import fetch, fetch_one
from .filters import Condition, inside
from .records import Companion, Space
from .rows import loaded_name, stored_name
from .vector_search import Neighbour

LIVE_S = 4.0
"""The film of a Live Photo lasts three seconds or less; a longer one only happens to have its name."""

# In the order in which they stand for a film: exports put a JPEG beside the HEIC that the camera made.
_STILLS = (".heic", ".heif", ".jpg", ".jpeg", ".dng")
_FILMS = (".mov", ".mp4")


def pair_up(connection: apsw.Connection, folder_id: int, name: str) -> None:
    """Find out anew which films the photos of this name stand for, after a file of it was written or went."""
    stem, extension = _split(name)
    if extension not in _STILLS and extension not in _FILMS:
        return
    rows = fetch(
        connection,
        "SELECT id, name, kind, duration_s, shown_by FROM media "
        "WHERE folder_id = ? AND name >= ? AND name < ? AND state = 'indexed' ORDER BY id",
        (folder_id, *_bounds(stem)),
    )
    files = [(_split(loaded_name(row[1])), row) for row in rows]
    here = [(own_extension, row) for (own_stem, own_extension), row in files if own_stem == stem]
    stills = [(_STILLS.index(e), row[0]) for e, row in here if row[2] == "photo" and e in _STILLS]
    still = min(stills)[1] if stills else None
    for own_extension, (media_id, _, kind, duration_s, shown_by) in here:
        is_live = kind == "video" and own_extension in _FILMS and (duration_s or LIVE_S + 1) <= LIVE_S
        wanted = still if is_live else None
        if shown_by != wanted:
            connection.execute("UPDATE media SET shown_by = ? WHERE id = ?", (wanted, media_id))


def known_raws(connection: apsw.Connection, folder_id: int, *, below: str, stem: str | None) -> set[str]:
    """The names of the raw files that are remembered in a root, or in its subfolder `below`.

    `stem`: only those of this name, without its extension.
    """
    if stem is not None:
        there = Condition("m.name >= ? AND m.name < ?", _bounds(stem))
    else:
        there = inside(folder_id, below) if below else Condition("1", ())
    rows = fetch(
        connection,
        f"SELECT m.name FROM raw m WHERE m.folder_id = ? AND ({there.sql})",
        (folder_id, *there.values),
    )
    return {loaded_name(name) for (name,) in rows}


def note_raws(
    connection: apsw.Connection, folder_id: int, *, gone: Iterable[str], found: Iterable[str]
) -> None:
    """Remember raw files of a folder by name, and forget others."""
    for name in gone:
        connection.execute("DELETE FROM raw WHERE folder_id = ? AND name = ?", (folder_id, stored_name(name)))
    for name in found:
        connection.execute(
            "INSERT OR REPLACE INTO raw (folder_id, stem, name) VALUES (?, ?, ?)",
            (folder_id, stored_name(_split(name)[0]), stored_name(name)),
        )


def companions_of(connection: apsw.Connection, media_ids: Iterable[int]) -> dict[int, tuple[Companion, ...]]:
    """The companions of those items that have some."""
    wanted = json.dumps(list(media_ids))
    found: dict[int, list[Companion]] = {}
    for media_id, film_id, name in fetch(
        connection,
        "SELECT m.shown_by, m.id, m.name FROM json_each(?) j CROSS JOIN media m ON m.shown_by = j.value "
        "WHERE m.state = 'indexed' ORDER BY m.id",
        (wanted,),
    ):
        found.setdefault(media_id, []).append(Companion("live", _base(name), film_id))
    if fetch_one(connection, "SELECT 1 FROM raw LIMIT 1") is not None:
        for media_id, name in fetch(
            connection,
            "SELECT m.id, r.name FROM json_each(?) j CROSS JOIN media m ON m.id = j.value "
            f"CROSS JOIN raw r ON r.folder_id = m.folder_id AND r.stem = {_STEM} "
            "WHERE m.kind = 'photo' AND r.name <> m.name ORDER BY r.name",
            (wanted,),
        ):
            found.setdefault(media_id, []).append(Companion("raw", _base(name)))
    return {media_id: tuple(companions) for media_id, companions in found.items()}


def has_pairs(connection: apsw.Connection) -> bool:
    """Whether any item stands for another one."""
    return fetch_one(connection, "SELECT 1 FROM media WHERE shown_by IS NOT NULL LIMIT 1") is not None


def shown_as(connection: apsw.Connection, media_id: int) -> int:
    """The item that people see for this one: the photo for the film of a Live Photo, else itself."""
    row = fetch_one(connection, "SELECT shown_by FROM media WHERE id = ?", (media_id,))
    return media_id if row is None or row[0] is None else int(row[0])


def as_shown(connection: apsw.Connection, space: Space, neighbours: Sequence[Neighbour]) -> list[Neighbour]:
    """Neighbours with the photo in the place of its film, each item once, at its better cosine."""
    rows = fetch(
        connection,
        "SELECT m.id, s.media_id, s.id FROM json_each(?) j CROSS JOIN media m ON m.id = j.value "
        "CROSS JOIN segment s ON s.media_id = m.shown_by AND s.space_id = ?",
        (json.dumps([neighbour.media_id for neighbour in neighbours]), space.id),
    )
    stills = {film_id: (media_id, segment_id) for film_id, media_id, segment_id in rows}
    shown: dict[int, Neighbour] = {}
    for neighbour in neighbours:
        media_id, segment_id = stills.get(neighbour.media_id, (neighbour.media_id, neighbour.segment_id))
        shown.setdefault(media_id, Neighbour(media_id, segment_id, neighbour.cosine))
    return list(shown.values())


# The name without its extension; a name that is no text is compared as none, and finds nothing.
_STEM = "substr(m.name, 1, length(rtrim(m.name, replace(m.name, '.', ''))) - 1)"


def _bounds(stem: str) -> tuple[str | bytes, str | bytes]:
    """From where, and up to where not, a name lies that is this stem with any extension."""
    # "." and "/" are neighbours, so that this range of the index on names holds all of them.
    return stored_name(stem + "."), stored_name(stem + "/")


def _split(name: str) -> tuple[str, str]:
    """A relative path without its extension, and the extension in lower case."""
    stem, extension = os.path.splitext(name)  # noqa: PTH122 - keeps surrogate escapes
    return stem, extension.lower()


def _base(stored: str | bytes) -> str:
    return os.path.basename(loaded_name(stored))  # noqa: PTH119
