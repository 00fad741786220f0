"""What the files of a library hold: each content once, however many files have it.

One file with several names (hard links, symbolic links, a folder that is mounted twice) is one file, by the
plainest of its names. Knows the store, and asks the system which names are of one file; opens no file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .connection import fetch
from .filters import shown_items
from .roots import path_in
from .rows import loaded_name

if TYPE_CHECKING:
    from .store import Store


@dataclass(frozen=True, slots=True)
class Content:
    """What several files may hold: its items, best first and each file once, and what was measured of it."""

    hash: bytes
    kind: str
    ids: tuple[int, ...]
    width: int
    height: int
    size: int
    duration_s: float
    taken_at: str | None


def held_contents(store: Store) -> list[Content]:
    """The contents of everything that people see, in the order in which their files came."""
    with store.reading() as connection:
        wanted = shown_items(connection, None)
        rows = fetch(
            connection,
            "SELECT m.content_hash, m.id, m.kind, m.width, m.height, m.size, m.duration_s, m.taken_at, "
            "m.mtime_ns, m.name, m.folder_id FROM media m "
            f"WHERE {wanted.sql} ORDER BY m.id",
            wanted.values,
        )
    roots = {folder.id: folder.path for folder in store.folders()}
    held: dict[bytes, list[tuple[Any, ...]]] = {}
    for content, *described in rows:
        held.setdefault(content, []).append(tuple(described))
    contents = []
    for content, items in held.items():
        _, kind, width, height, size, duration_s, taken_at, *_ = items[0]
        ids = tuple(_each_once(sorted(items, key=_plainness), roots))
        contents.append(
            Content(content, kind, ids, width or 0, height or 0, size, duration_s or 0.0, taken_at)
        )
    return contents


def _each_once(items: Iterable[tuple[Any, ...]], roots: Mapping[int, str]) -> Iterator[int]:
    """The ids of these files with the same bytes; of the names of one file only the first that is no link.

    Who deletes "the copy" of a file that has two names gains nothing, and may lose it.
    """
    paths = {item[0]: path_in(roots.get(item[-1], ""), loaded_name(item[-2])) for item in items}
    if len(paths) == 1:
        yield from paths
        return
    seen: set[tuple[int, int]] = set()
    first: dict[int, None] = {}
    for media_id, path in sorted(paths.items(), key=lambda item: os.path.islink(item[1])):  # noqa: PTH114
        with suppress(OSError, ValueError):
            status = os.stat(path)  # noqa: PTH116 - keeps surrogate escapes
            file = (status.st_dev, status.st_ino)
            if file in seen:
                continue
            seen.add(file)
        first[media_id] = None
    yield from (media_id for media_id in paths if media_id in first)


def _plainness(item: tuple[Any, ...]) -> tuple[int, int, int]:
    """Of files with the same bytes the plainest first: a copy is named after another file, and is younger."""
    media_id, *_, mtime_ns, name, _ = item
    return len(os.path.basename(loaded_name(name))), mtime_ns, media_id  # noqa: PTH119 - keeps escapes


def quality(content: Content) -> tuple[int, int, str, int]:
    """The best first: most pixels, most bytes, oldest."""
    return -content.width * content.height, -content.size, content.taken_at or "9", content.ids[0]
