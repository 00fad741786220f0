"""How records become table rows and back: names, moments in time, media rows.

Does not run any SQL.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ..errors import InputError
from .records import FoundFile, KnownFile, MediaInfo, MediaItem
from .roots import path_in

MEDIA_COLUMNS = (
    "m.id, f.path, m.folder_id, m.name, m.size, m.mtime_ns, m.content_hash, m.state, m.error, m.kind, "
    "m.width, m.height, m.duration_s, m.taken_at, m.latitude, m.longitude, m.camera"
)


def stored_name(name: str) -> str | bytes:
    """A path as SQLite keeps it: text, or the system's bytes when it is not valid Unicode (PEP 383)."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def loaded_name(stored: str | bytes) -> str:
    """The inverse of `stored_name`."""
    return stored if isinstance(stored, str) else os.fsdecode(stored)


def stored_moment(moment: datetime | None) -> str | None:
    """A naive local date and time as text that sorts in order of time. Raises InputError for an aware one."""
    if moment is None:
        return None
    if moment.tzinfo is not None:
        raise InputError(
            f"{moment.isoformat()} has a time zone; dates here are local wall-clock time without one"
        )
    return moment.isoformat(timespec="microseconds")


def stored_text(text: str) -> str:
    """Text that came from a file or an error message, with what UTF-8 cannot hold written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def marks(values: Iterable[object]) -> str:
    """A question mark for each value of a query."""
    return ", ".join("?" for _ in values)


def info_values(info: MediaInfo) -> dict[str, Any]:
    """The columns of `media` that a probe fills."""
    return {
        "kind": info.kind,
        "width": info.width,
        "height": info.height,
        "duration_s": info.duration_s,
        "taken_at": stored_moment(info.taken_at),
        "latitude": info.latitude,
        "longitude": info.longitude,
        "camera": None if info.camera is None else stored_text(info.camera),
    }


def file_values(file: FoundFile) -> dict[str, Any]:
    """The columns of `media` that the scanner fills."""
    return {
        "folder_id": file.folder_id,
        "name": stored_name(file.name),
        "size": file.size,
        "mtime_ns": file.mtime_ns,
    }


def media_item(row: tuple[Any, ...]) -> MediaItem:
    """A row of MEDIA_COLUMNS as a record."""
    (media_id, folder, folder_id, name, size, mtime_ns, content_hash, state, error, kind, *described) = row
    width, height, duration_s, taken_at, latitude, longitude, camera = described
    return MediaItem(
        id=media_id,
        path=path_in(loaded_name(folder), loaded_name(name)),
        folder_id=folder_id,
        name=loaded_name(name),
        size=size,
        mtime_ns=mtime_ns,
        content_hash=content_hash,
        state=state,
        error=error,
        kind=kind,
        width=width or 0,
        height=height or 0,
        duration_s=duration_s,
        taken_at=None if taken_at is None else datetime.fromisoformat(taken_at),
        latitude=latitude,
        longitude=longitude,
        camera=camera,
    )


def known_file(row: tuple[Any, ...]) -> KnownFile:
    """A row (id, folder_id, name, size, mtime_ns, content_hash, state) as a record."""
    media_id, folder_id, name, size, mtime_ns, content_hash, state = row
    return KnownFile(media_id, folder_id, loaded_name(name), size, mtime_ns, content_hash, state)
