"""Choosing folders to search: what may be added, and where a person may look for one.

The one place where a path comes from a request. What is wrong with it is said in words for everybody.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..library.roots import absolute, in_terms_of, is_inside
from ..library.scanner import SKIPPED_FOLDERS
from .problems import NotFoundError
from .usual_folders import FolderKind, usual_folders

_LONGEST = 4096
_SYSTEM = ("/proc", "/sys", "/dev", "/run/user", "/etc", "/boot")
_REMEMBERED = 20_000
_MOST_LISTED = 2000


def checked_folder(text: str, *, library: Path, known: Sequence[str]) -> str:
    """The absolute path of a folder that may be added to the library at `library` with the roots `known`.

    Raises:
        InputError: it is none, cannot be read, or makes no sense as one; the message is for everybody.
    """
    if not text.strip():
        raise InputError("Give the path of a folder, such as ~/Pictures.")
    if len(text) > _LONGEST or "\0" in text:
        raise InputError("This is not the path of a folder.")
    if not os.path.isabs(os.path.expanduser(text)):  # noqa: PTH111, PTH117
        raise InputError(f"{text}: give the whole path, from the beginning, such as {_example()}.")
    path = absolute(text)
    folder = Path(path)
    try:
        is_there = folder.exists()
    except OSError:
        is_there = True  # and may not be looked at, which is said below
    if not is_there:
        raise InputError(
            f"{path}: there is no such folder. Check its spelling, and that its disk is connected."
        )
    if folder.is_file():
        raise InputError(f"{path}: this is a file. Choose the folder that it lies in.")
    try:
        with os.scandir(path) as listing:
            next(listing, None)
    except NotADirectoryError:
        raise InputError(f"{path}: this is not a folder.") from None
    except OSError as error:
        raise InputError(
            f"{path}: this folder may not be read ({error.strerror}). Choose another one, or change its "
            "permissions in the file manager."
        ) from error
    _check_sense(path, library, known)
    return path


def _check_sense(path: str, library: Path, known: Sequence[str]) -> None:
    real = os.path.realpath(path)
    if os.path.dirname(real) == real and sys.platform != "win32":  # noqa: PTH120
        raise InputError("This is the whole computer. Choose a folder with pictures in it, such as Pictures.")
    if sys.platform != "win32" and any(is_inside(real, system) for system in _SYSTEM):
        raise InputError(f"{path}: this folder belongs to the system and holds no pictures.")
    if is_inside(real, os.path.realpath(library)):
        raise InputError(f"{path}: here qvl-local keeps what it knows. Choose a folder with pictures in it.")
    named = in_terms_of(path, known)
    around = next((folder for folder in known if is_inside(named, folder)), None)
    if around is not None and named != around:
        raise InputError(f"{path}: this folder is searched already, since it lies in {around}.")


def _example() -> str:
    return str(Path.home() / "Pictures")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that a person may look into, and choose. `id` stands for its path in requests; `count` as in
    `UsualFolder`.
    """

    id: str
    name: str
    path: str
    kind: FolderKind
    count: int | None = None


class Places:
    """Folders to choose from, so that nobody need type a path: ids go out, and only those come back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: OrderedDict[str, str] = OrderedDict()
        self._ids: dict[str, str] = {}

    def first(self, known: Sequence[str] = ()) -> list[Place]:
        """Where pictures usually are, without the folders that are `known`, and what is in them."""
        return [
            Place(self._id(one.path), one.name, one.path, one.kind, one.count)
            for one in usual_folders(known=known)
        ]

    def below(self, place_id: str) -> list[Place]:
        """The folders in a place, by name, without hidden ones.

        Raises:
            NotFoundError: no place has this id, or it is gone.
            InputError: it may not be read.
        """
        path = self.path(place_id)
        try:
            with os.scandir(path) as listing:
                names = [entry.name for entry in listing if _is_choosable(entry)]
        except FileNotFoundError:
            raise NotFoundError("This folder is not there any more.") from None
        except OSError as error:
            raise InputError(f"{path}: this folder may not be read ({error.strerror}).") from error
        names.sort(key=str.casefold)
        paths = {name: os.path.join(path, name) for name in names[:_MOST_LISTED]}  # noqa: PTH118
        return [Place(self._id(below), name, below, "folder") for name, below in paths.items()]

    def path(self, place_id: str) -> str:
        """The path that an id stands for. Raises NotFoundError."""
        with self._lock:
            path = self._paths.get(place_id)
        if path is None:
            raise NotFoundError("This folder is not known any more. Open the list of folders again.")
        return path

    def _id(self, path: str) -> str:
        with self._lock:
            place_id = self._ids.get(path)
            if place_id is None:
                place_id = self._ids[path] = secrets.token_urlsafe(9)
                self._paths[place_id] = path
                while len(self._paths) > _REMEMBERED:
                    _, oldest = self._paths.popitem(last=False)
                    del self._ids[oldest]
        return place_id


def _is_choosable(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name.lower() in SKIPPED_FOLDERS:
        return False
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
