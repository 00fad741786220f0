"""What is there against what is known: which files are to be read, and which are gone.

Walks the places that a person named and compares names, sizes and times with the library. Opens no file. A
path below a root that the library already has belongs to that root, so that no file is ever known twice; of
nested roots the inner one owns what lies in it.

Nothing is called gone unless its place was looked at: a folder that cannot be listed, a root that has
vanished, and a root that is suddenly empty (an unplugged disk leaves its mount point behind) keep what the
library knows of them.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .formats import kind_by_extension
from .reasons import unread_file
from .records import Failure, Folder, FoundFile, KnownFile, Space
from .roots import absolute, in_terms_of, is_inside, known_inside, path_in
from .scanner import Walk, find, walk
from .store import Store


@dataclass(frozen=True, slots=True)
class Todo:
    """A file to be read: new (`known` is None), changed, or without vectors in the space."""

    file: FoundFile
    path: str
    known: KnownFile | None


@dataclass(frozen=True, slots=True)
class Survey:
    """The outcome.

    `gone` are known files that lie no longer where they were; `failures` are places, not files.
    """

    places: tuple[str, ...]
    todo: tuple[Todo, ...]
    unchanged: int
    gone: tuple[KnownFile, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder or file that was named; `name` is relative to the root that owns it, "" for that root."""

    folder: Folder
    name: str
    path: str


def check_paths(paths: Iterable[str | Path]) -> tuple[str, ...]:
    """Absolute paths of what shall be indexed.

    Raises:
        InputError: something is not there, or is a file that is neither photo nor video.
    """
    checked = []
    for given in paths:
        path = absolute(given)
        if not Path(path).exists():
            raise InputError(
                f"{given}: no such file or folder. Nothing was indexed, and the library keeps what it knows."
            )
        if not Path(path).is_dir() and kind_by_extension(path) is None:
            raise InputError(f"{given}: not a folder, a photo or a video. Nothing was indexed.")
        checked.append(path)
    return tuple(checked)


def survey(
    store: Store,
    space: Space,
    paths: Sequence[str],
    *,
    on_found: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Survey:
    """Walk `paths` (absolute; folders that were never indexed become roots) and compare with the library.

    Once `stop` is set, the rest counts as not looked at.
    """
    places = [_place(store, path) for path in paths]
    folders = store.folders()
    found: dict[tuple[int, str], FoundFile] = {}
    failures: list[Failure] = []
    gone: list[KnownFile] = []
    known: dict[tuple[int, str], KnownFile] = {}
    for place in places:
        seen = _walk(place, on_found, stop)
        failures.extend(seen.failures)
        here = {(file.folder_id, file.name): file for file in _owned(seen, folders)}
        found |= here
        inside = [file for _, file in known_inside(store, space, place.path, folders)]
        known |= {(file.folder_id, file.name): file for file in inside}
        missing = [file for file in inside if (file.folder_id, file.name) not in here]
        items = sum(file.state != "failed" for file in missing)
        if items and not here and not place.name and not seen.unread:
            command = shlex.join(("qvl-local", "remove", place.path, "--library", str(store.folder)))
            failures.append(
                Failure(
                    place.path,
                    f"the folder is empty now; its {items} known files are kept, in case a disk is "
                    f"not connected. If they are gone for good: {command}",
                )
            )
            continue
        gone.extend(file for file in missing if seen.covers(_name_in(place, folders, file)))
    todo = [
        Todo(file, _path(folders, file), known.get(key))
        for key, file in found.items()
        if not _is_settled(file, known.get(key))
    ]
    unchanged = sum(1 for key, file in found.items() if key in known and _is_unchanged_item(file, known[key]))
    distinct = {file.media_id: file for file in gone if (file.folder_id, file.name) not in found}
    named = tuple(place.path for place in places)
    return Survey(named, tuple(todo), unchanged, tuple(distinct.values()), tuple(failures))


def known_places(store: Store, space: Space) -> tuple[str, ...]:
    """What was ever named: the roots, and the single files outside of them. Walking these finds all again."""
    folders = store.folders()
    roots = [folder.path for folder in folders if folder.is_whole]
    files = [
        path_in(folder.path, file.name)
        for folder in folders
        if not folder.is_whole and not any(is_inside(folder.path, root) for root in roots)
        for file in store.known(folder.id, space)
    ]
    return (*roots, *files)


def _place(store: Store, path: str) -> _Place:
    folders = store.folders()
    path = in_terms_of(path, (folder.path for folder in folders))
    is_folder = Path(path).is_dir()
    # A root of single files is no place for a whole folder.
    owner = _owner([folder for folder in folders if folder.is_whole or not is_folder], path)
    if owner is None:
        owner = store.add_folder(path if is_folder else str(Path(path).parent), is_whole=is_folder)
    name = "" if path == owner.path else os.path.relpath(path, owner.path)
    return _Place(owner, name, path)


def _owner(folders: Iterable[Folder], path: str) -> Folder | None:
    """The innermost root that a path lies in."""
    around = [folder for folder in folders if is_inside(path, folder.path)]
    return max(around, key=lambda folder: len(folder.path), default=None)


def _walk(place: _Place, on_found: Callable[[int], None] | None, stop: threading.Event | None) -> Walk:
    if place.name and not Path(place.path).is_dir():
        try:
            return Walk(place.folder, (find(place.folder, place.name),), (), ())
        except OSError as error:
            if isinstance(error, FileNotFoundError) and Path(place.path).parent.is_dir():
                return Walk(place.folder, (), (), ())  # a single file of old that is gone
            return Walk(place.folder, (), (Failure(place.path, unread_file(error)),), (place.name,))
    return walk(place.folder, start=place.name, on_found=on_found, stop=stop)


def _owned(seen: Walk, folders: Sequence[Folder]) -> Iterable[FoundFile]:
    """The files of a walk, each under the innermost root that it lies in."""
    inner = [f for f in folders if f.path != seen.folder.path and is_inside(f.path, seen.folder.path)]
    if not inner:
        return seen.files
    moved = []
    for file in seen.files:
        path = path_in(seen.folder.path, file.name)
        owner = _owner(inner, path) or seen.folder
        name = os.path.relpath(path, owner.path) if owner.id != file.folder_id else file.name
        moved.append(FoundFile(owner.id, name, file.size, file.mtime_ns))
    return moved


def _name_in(place: _Place, folders: Sequence[Folder], file: KnownFile) -> str:
    """The name of a known file relative to the root of `place`, which `Walk.covers` speaks of."""
    if file.folder_id == place.folder.id:
        return file.name
    path = next(folder.path for folder in folders if folder.id == file.folder_id)
    return os.path.relpath(path_in(path, file.name), place.folder.path)


def _path(folders: Sequence[Folder], file: FoundFile) -> str:
    folder = next(folder for folder in folders if folder.id == file.folder_id)
    return path_in(folder.path, file.name)


def _is_same(file: FoundFile, known: KnownFile) -> bool:
    return (file.size, file.mtime_ns) == (known.size, known.mtime_ns)


def _is_unchanged_item(file: FoundFile, known: KnownFile) -> bool:
    return known.state == "indexed" and _is_same(file, known)


def _is_settled(file: FoundFile, known: KnownFile | None) -> bool:
    """Whether there is nothing to do: indexed as it is, or quarantined as it is.

    A failed file without a content hash was never read at all: that may be different now.
    """
    if known is None or not _is_same(file, known):
        return False
    return known.state == "indexed" or (known.state == "failed" and bool(known.content_hash))
