"""Forgetting files and folders that a person names. Touches the library only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from .roots import absolute, in_terms_of, is_inside, known_inside
from .store import Store


def remove_paths(store: Store, paths: Iterable[str | Path]) -> int:
    """Forget what lies at `paths` or below and return how many items that were.

    Roots go with all they hold. Files in quarantine are forgotten, too, and do not count.

    Raises:
        InputError: the library knows nothing at one of the paths; nothing was forgotten then.
    """
    roots: set[int] = set()
    files: set[int] = set()
    for given in paths:
        path = absolute(given)
        inner, known = _at(store, path)
        if not inner and not known:
            raise InputError(f"{given}: the library knows nothing here. Nothing was forgotten.")
        roots |= inner
        files |= known
    removed = sum(store.remove_folder(folder_id) for folder_id in sorted(roots))
    # What lay in one of the roots went with it and does not count twice.
    return removed + store.remove(sorted(files))


def _at(store: Store, path: str) -> tuple[set[int], set[int]]:
    """The roots at or below a path, and the media there that belong to a root above it."""
    space = store.active_space()
    folders = store.folders()
    path = in_terms_of(path, (folder.path for folder in folders))
    roots = {folder.id for folder in folders if is_inside(folder.path, path)}
    if space is None:
        return roots, set()
    around = [folder for folder in folders if folder.id not in roots]
    return roots, {file.media_id for _, file in known_inside(store, space, path, around)}
