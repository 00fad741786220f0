"""Paths and the roots of a library: what lies where, and what a place is called there.

A folder can have two names, one of them through a symbolic link: `cd ~/Pictures` and `.` give the real
path, the library may know the other. Names are compared as they are first, and by what they lead to when
that finds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def is_inside(path: str, folder: str) -> bool:
    """Whether an absolute path is the folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


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
