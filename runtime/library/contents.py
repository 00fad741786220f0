"""What the files of a library hold: each content once, however many files have it.

Knows the store; opens no file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .connection import fetch
from .filters import shown_items
from .rows import loaded_name

if TYPE_CHECKING:
    from .store import Store


@dataclass(frozen=True, slots=True)
class Content:
    """What several files may hold: its items, best first, and what was measured of it."""

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
            f"m.mtime_ns, m.name FROM media m WHERE {wanted.sql} ORDER BY m.id",
            wanted.values,
        )
    held: dict[bytes, list[tuple[Any, ...]]] = {}
    for content, *described in rows:
        held.setdefault(content, []).append(tuple(described))
    contents = []
    for content, items in held.items():
        _, kind, width, height, size, duration_s, taken_at, *_ = items[0]
        ids = tuple(media_id for media_id, *_, mtime_ns, name in sorted(items, key=_plainness))
        contents.append(
            Content(content, kind, ids, width or 0, height or 0, size, duration_s or 0.0, taken_at)
        )
    return contents


def _plainness(item: tuple[Any, ...]) -> tuple[int, int, int]:
    """Of files with the same bytes the plainest first: a copy is named after another file, and is younger."""
    media_id, *_, mtime_ns, name = item
    return len(os.path.basename(loaded_name(name))), mtime_ns, media_id  # noqa: PTH119 - keeps escapes


def quality(content: Content) -> tuple[int, int, str, int]:
    """The best first: most pixels, most bytes, oldest."""
    return -content.width * content.height, -content.size, content.taken_at or "9", content.ids[0]
