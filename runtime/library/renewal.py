"""A library gets vectors of another space: when the new one may serve, and what becomes of the old one."""

from __future__ import annotations

from .records import Space
from .store import Store


def is_filled(store: Store, space: Space) -> bool:
    """Whether nothing waits any more for vectors in `space`, and it can stand in for the active one."""
    if store.counts().items and not store.counts(space).items:
        return False  # a model that made nothing of anything
    return not any(
        known.state == "pending" for folder in store.folders() for known in store.known(folder.id, space)
    )


def switch(store: Store, space: Space) -> None:
    """Let a filled space serve, and drop the others."""
    store.activate(space)
    for other in store.spaces():
        if other.id != space.id:
            store.remove_space(other)
