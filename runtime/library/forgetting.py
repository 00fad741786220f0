"""Forgetting what a survey found to be gone, and the pictures that nothing else needs."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from ..errors import LibraryError
from .previews import Previews
from .records import Space
from .store import Store
from .survey import Survey

_FEW_CONTENTS = 1000
_AT_ONCE = 1000


def forget_gone(
    store: Store, previews: Previews, space: Space, found: Survey, media_ids: Collection[int]
) -> int:
    """Forget `media_ids`, those of `found.gone` that were not moved; returns how many were items."""
    gone = list(media_ids)
    removed = sum(store.remove(gone[start : start + _AT_ONCE]) for start in range(0, len(gone), _AT_ONCE))
    # A cache that cannot be tidied is no reason to fail.
    with suppress(LibraryError):
        _tidy(
            store,
            previews,
            space,
            {file.content_hash for file in found.gone}
            | {todo.known.content_hash for todo in found.todo if todo.known is not None},
        )
    return removed


def _tidy(store: Store, previews: Previews, space: Space, stale: set[bytes]) -> None:
    """Drop the pictures of contents that may have been the last of their kind."""
    if not stale:
        return
    if len(stale) <= _FEW_CONTENTS:
        previews.drop([content for content in stale if not store.holds(content)])
        return
    previews.keep_only(
        known.content_hash for folder in store.folders() for known in store.known(folder.id, space)
    )
