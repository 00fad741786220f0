"""The items of a library by date, a page at a time: looking through it without a query.

Undated items come last in both orders. What another item stands for does not appear.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ..errors import InputError
from .companions import companions_of
from .connection import count, fetch
from .filters import shown_items
from .records import Companion, Filters, Kind
from .rows import loaded_name

if TYPE_CHECKING:
    from .store import Store

Order = Literal["newest", "oldest"]

_ORDERS = {"newest": "m.taken_at DESC, m.id DESC", "oldest": "m.taken_at ASC NULLS LAST, m.id"}


@dataclass(frozen=True, slots=True)
class Entry:
    """An item in a list. `name`: of the file, without its folders; `size` in bytes."""

    id: int
    kind: Kind
    name: str
    taken_at: datetime | None
    width: int
    height: int
    duration_s: float | None
    size: int
    companions: tuple[Companion, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a list that has `total` items in all."""

    total: int
    items: tuple[Entry, ...]


def browse(
    store: Store,
    *,
    order: Order = "newest",
    offset: int = 0,
    limit: int = 100,
    filters: Filters | None = None,
) -> Page:
    """Items in order of date, those without one last.

    50,000 items, one thread: 3 ms for the first hundred and 16 ms for the last; 5 to 60 ms with a filter.

    Raises:
        InputError: an unknown order, a negative offset or limit, or a filter that makes no sense.
    """
    if order not in _ORDERS:
        raise InputError(f"unknown order {order!r}; it is newest or oldest")
    if offset < 0 or limit < 0:
        raise InputError(f"a list has no place {offset}, and no {limit} items: neither may be negative")
    with store.reading() as connection:
        wanted = shown_items(connection, filters)
        total = count(connection, f"SELECT count(*) FROM media m WHERE {wanted.sql}", wanted.values)
        # The page's ids come from an index alone; only then are wide rows read.
        ids = fetch(
            connection,
            f"SELECT m.id FROM media m WHERE {wanted.sql} ORDER BY {_ORDERS[order]} LIMIT ? OFFSET ?",
            (*wanted.values, limit, offset),
        )
        return Page(total, _entries(store, [media_id for (media_id,) in ids]))


def entries(store: Store, media_ids: list[int]) -> tuple[Entry, ...]:
    """These items in this order; those that are gone are left out."""
    with store.reading():
        return _entries(store, media_ids)


def _entries(store: Store, media_ids: list[int]) -> tuple[Entry, ...]:
    with store.reading() as connection:
        rows = fetch(
            connection,
            "SELECT m.id, m.kind, m.name, m.taken_at, m.width, m.height, m.duration_s, m.size "
            "FROM json_each(?) j CROSS JOIN media m ON m.id = j.value ORDER BY j.key",
            (json.dumps(media_ids),),
        )
        companions = companions_of(connection, media_ids)
    return tuple(
        Entry(
            id=media_id,
            kind=kind,
            name=os.path.basename(loaded_name(name)),  # noqa: PTH119 - keeps surrogate escapes
            taken_at=None if taken_at is None else datetime.fromisoformat(taken_at),
            width=width or 0,
            height=height or 0,
            duration_s=duration_s,
            size=size,
            companions=companions.get(media_id, ()),
        )
        for media_id, kind, name, taken_at, width, height, duration_s, size in rows
    )
