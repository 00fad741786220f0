"""Paths and the roots of a library: what lies where, and what a place is called there.

A folder can have two names, one of them through a symbolic link: `cd ~/Pictures` and `.` give the real
path, the library may know the other. Names are compared as they are first, and by what they lead to when
that finds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import Folder, KnownFile, Space
    from .store import Store


def is_inside(path: str, folder: str) -> bool:
    """Whether an absolute path is the folder or lies below it."""
    return path == folder or path.startswith(path_in(folder, ""))


def innermost(folders: Iterable[Folder], path: str) -> Folder | None:
    """The innermost of these roots that an absolute path lies in, or is; None where it lies in none."""
    around = [folder for folder in folders if is_inside(path, folder.path)]
    return max(around, key=lambda folder: len(folder.path), default=None)


def path_in(folder: str, name: str) -> str:
    """The path of `name`, which is relative to the absolute path `folder`; undecodable bytes stay."""
    return f"{folder.rstrip(os.sep)}{os.sep}{name}"


def absolute(path: str | os.PathLike[str]) -> str:
    """The absolute path of what a person named. Links keep the name that their owner knows them by."""
    # Neither resolve(), which follows links, nor Path.expanduser(), which refuses a file called "~x".
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111


def known_inside(
    store: Store, space: Space, path: str, folders: Iterable[Folder]
) -> Iterator[tuple[Folder, KnownFile]]:
    """Every file at `path` or below that the library knows, with the one of `folders` that it belongs to."""
    for folder in folders:
        if is_inside(folder.path, path) or is_inside(path, folder.path):
            for file in store.known(folder.id, space):
                if is_inside(path_in(folder.path, file.name), path):
                    yield folder, file


def in_terms_of(path: str, roots: Iterable[str]) -> str:
    """An absolute path by the name that the library has for it: below one of its roots where that is true."""
    roots = tuple(roots)
    if any(is_inside(path, root) or is_inside(root, path) for root in roots):
        return path
    real = os.path.realpath(path)
    # The innermost root that leads there, as among names.
    for root in sorted(roots, key=len, reverse=True):
        real_root = os.path.realpath(root)
        if is_inside(real, real_root):
            return os.path.normpath(f"{root}{os.sep}{os.path.relpath(real, real_root)}")
    return path
