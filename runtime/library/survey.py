"""What is there against what is known: which files are to be read, and which are gone.

Walks the places that a person named and compares names, sizes and times with the library. Opens no file. A
path below a root that the library already has belongs to that root, so that no file is ever known twice; of
nested roots the inner one owns what lies in it.

Nothing is called gone unless its place was looked at: a folder that cannot be listed, a root that has
vanished, a root, or a folder of single files, that is suddenly empty (an unplugged disk leaves its mount
point behind), and a disk below a root that is away (see `disks`) keep what the library knows of them.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..model.raw_photo import can_read_raw, is_raw
from ..reasons import unread_file
from .disks import Disks
from .formats import is_media, kind_by_extension
from .known_tree import KnownTree
from .records import Failure, Folder, FoundFile, KnownFile, Space
from .roots import absolute, in_terms_of, innermost, is_inside, path_in
from .scanner import Walk, find, find_raws, find_visible, has_photo_beside, is_followed, walk, way_to
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

    `left_alone` are raw files that would have to be read, and that nothing installed can read. `gone` are
    known files that lie no longer where they were; `failures` are places, not files.
    """

    places: tuple[str, ...]
    todo: tuple[Todo, ...]
    left_alone: tuple[Todo, ...]
    unchanged: int
    gone: tuple[KnownFile, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder or file that was named; `name` is relative to the root that owns it, "" for that root.

    `is_change`: nobody named it, something happened there. It may be gone, and counts only as far as a walk
    of its root would come by. `is_link`: it leads to a file that is looked at in its own place.
    """

    folder: Folder
    name: str
    path: str
    is_file: bool
    is_change: bool = False
    is_link: bool = False


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
        if not Path(path).is_dir() and not is_media(path):
            raise InputError(f"{given}: not a folder, a photo or a video. Nothing was indexed.")
        checked.append(path)
    return tuple(checked)


def survey(
    store: Store,
    space: Space,
    paths: Sequence[str],
    *,
    changes: bool = False,
    on_found: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Survey:
    """Walk `paths` (absolute; folders that were never indexed become roots) and compare with the library.

    Once `stop` is set, the rest counts as not looked at.

    `changes`: the paths are places below the roots where something happened, and not what somebody named:
    what is not there any more is gone, and what lies outside of the roots is nobody's business.
    """
    places = _changed_places(store, paths, space) if changes else _places(store, paths)
    folders = store.folders()
    roots = {folder.id: folder for folder in folders}
    memory = KnownTree(store, space, folders)
    disks = Disks(store, folders, memory.inside)
    found: dict[tuple[int, str], FoundFile] = {}
    failures: list[Failure] = []
    gone: list[KnownFile] = []
    known: dict[tuple[int, str], KnownFile] = {}
    emptied: dict[str, int] = {}
    for place in places:  # which may get longer meanwhile
        disks.look_ahead(place.folder.path, place.path)
        seen = _walk(place, on_found, stop)
        for name in seen.mounts:
            disks.note(path_in(place.folder.path, name) if name else place.folder.path)
        seen = seen.without([_name_at(place.folder, path) for path in disks.away(place.path)])
        failures.extend(seen.failures)
        here = {(file.folder_id, file.name): file for file in _owned(seen, folders)}
        found |= here
        if place.is_change and place.name:
            inside = memory.inside(place.path)
        else:
            inside = memory.at(place.path) if place.is_file else memory.below(place.path)
        known |= {(file.folder_id, file.name): file for file in inside}
        missing = [file for file in inside if (file.folder_id, file.name) not in here]
        if missing and place.is_change and _is_bare(place.folder.path):
            # It went away after `_changed_places` had looked.
            root = _whole(place.folder)
            places += [] if root in places else [root]
            continue
        items = sum(file.state != "failed" for file in missing)
        if items and not here and not seen.unread and (bare := _bare_folder(place)) is not None:
            emptied[bare] = emptied.get(bare, 0) + items
            continue
        _note_raws(store, place, seen, folders)
        gone.extend(file for file in missing if seen.covers(_name_in(place, roots, file)))
    failures.extend(disks.failures())
    failures.extend(_emptied(store, path, items) for path, items in emptied.items())
    todo = [
        Todo(file, path_in(roots[file.folder_id].path, file.name), known.get(key))
        for key, file in found.items()
        if not _is_settled(file, known.get(key))
    ]
    unchanged = sum(1 for key, file in found.items() if key in known and _is_unchanged_item(file, known[key]))
    is_readable = can_read_raw()
    left_alone = tuple(one for one in todo if not is_readable and is_raw(one.file.name))
    todo = [one for one in todo if is_readable or not is_raw(one.file.name)]
    distinct = {file.media_id: file for file in gone if (file.folder_id, file.name) not in found}
    named = tuple(place.path for place in places)
    return Survey(named, tuple(todo), left_alone, unchanged, tuple(distinct.values()), tuple(failures))


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


def _places(store: Store, paths: Sequence[str]) -> list[_Place]:
    folders = list(store.folders())
    places = []
    for given in paths:
        path = in_terms_of(given, (folder.path for folder in folders))
        is_folder = Path(path).is_dir()
        if (target := _target(folders, path)) is not None:
            if (owner := innermost(folders, path)) is not None:
                # Under this name it may be known from before, which is gone.
                name = os.path.relpath(path, owner.path)
                places.append(_Place(owner, name, path, is_file=True, is_link=True))
            path = in_terms_of(target, (folder.path for folder in folders))
        # A root of single files is no place for a whole folder.
        owner = innermost([folder for folder in folders if folder.is_whole or not is_folder], path)
        if owner is None:
            owner = store.add_folder(path if is_folder else str(Path(path).parent), is_whole=is_folder)
            folders = [folder for folder in folders if folder.id != owner.id] + [owner]
        name = "" if path == owner.path else os.path.relpath(path, owner.path)
        places.append(_Place(owner, name, path, is_file=bool(name) and not is_folder))
    return places


def _target(folders: Sequence[Folder], path: str) -> str | None:
    """The photo or video that a link to a file stands for; None for anything else.

    A link that the walk of its root counts as an item, or to a hidden file, is what it is called.
    """
    target = os.path.realpath(path)
    if not os.path.islink(path) or not os.path.isfile(target) or not is_media(target):  # noqa: PTH113, PTH114
        return None
    owner = innermost([folder for folder in folders if folder.is_whole], path)
    if owner is not None:
        return None if is_followed(owner, path) else target
    return None if any(part.startswith(".") for part in Path(target).parts) else target


def _changed_places(store: Store, paths: Sequence[str], space: Space) -> list[_Place]:
    """Where something happened. A root that is away, or bare as a mount point, is looked at as a whole."""
    folders = store.folders()
    places: dict[str, _Place] = {}
    for given in paths:
        path = in_terms_of(given, (folder.path for folder in folders))
        owner = innermost(folders, path)
        if owner is None:
            continue
        name = "" if path == owner.path else os.path.relpath(path, owner.path)
        if not owner.is_whole:
            # Only the files that were named are ours.
            for file in store.known_below(owner.id, name, space) if name else store.known(owner.id, space):
                at = path_in(owner.path, file.name)
                places[at] = _Place(owner, file.name, at, is_file=True)
        elif not name or _is_bare(owner.path):
            places[owner.path] = _whole(owner)
        else:
            is_file = not os.path.isdir(path)  # noqa: PTH112 - keeps surrogate escapes
            places[path] = _Place(owner, name, path, is_file=is_file, is_change=True)
            if is_file and kind_by_extension(path) == "photo":
                # Whether a raw file is a photo of its own hangs on those beside it.
                for raw in find_raws(owner, name):
                    beside = path_in(owner.path, raw.name)
                    places.setdefault(beside, replace(places[path], name=raw.name, path=beside))
    return list(places.values())


def _is_bare(folder: str) -> bool:
    """Whether nothing is to be seen of a folder: it is away, or empty as an unplugged disk leaves it."""
    try:
        with os.scandir(folder) as listing:
            return all(entry.name.startswith(".") for entry in listing)
    except OSError:
        return True


def _whole(root: Folder) -> _Place:
    return _Place(root, "", root.path, is_file=False)


def _walk(place: _Place, on_found: Callable[[int], None] | None, stop: threading.Event | None) -> Walk:
    if place.is_change:
        return _walk_change(place, on_found, stop)
    if place.is_link:
        return Walk(place.folder, (), (), ())
    if place.is_file:
        try:
            found = find(place.folder, place.name)
            if place.folder.is_whole and is_raw(place.name) and has_photo_beside(place.folder, place.name):
                return Walk(place.folder, (), (), (), (found,))
            return Walk(place.folder, (found,), (), ())
        except OSError as error:
            if isinstance(error, FileNotFoundError) and Path(place.path).parent.is_dir():
                return Walk(place.folder, (), (), ())  # a single file of old that is gone
            return Walk(place.folder, (), (Failure(place.path, unread_file(error)),), (place.name,))
    return walk(place.folder, start=place.name, on_found=on_found, stop=stop)


def _walk_change(place: _Place, on_found: Callable[[int], None] | None, stop: threading.Event | None) -> Walk:
    nothing = Walk(place.folder, (), (), ())
    try:
        if place.is_file:
            return find_visible(place.folder, place.name)
        rules = way_to(place.folder, place.name, is_folder=True)
    except FileNotFoundError:
        return nothing
    except (OSError, ValueError) as error:
        if isinstance(error, NotADirectoryError):
            return nothing
        reason = unread_file(error) if isinstance(error, OSError) else str(error)
        return Walk(place.folder, (), (Failure(place.path, reason),), (place.name,))
    if rules is None:
        return nothing
    return walk(place.folder, start=place.name, rules=rules, on_found=on_found, stop=stop)


def _bare_folder(place: _Place) -> str | None:
    """The folder that is empty now, so that nobody can tell files that are gone from a disk that is away."""
    if not place.name:
        return place.path
    if not place.is_file or place.folder.is_whole:
        return None
    parent = str(Path(place.path).parent)
    with suppress(OSError), os.scandir(parent) as listing:
        return None if any(not entry.name.startswith(".") for entry in listing) else parent
    return parent


def _emptied(store: Store, path: str, items: int) -> Failure:
    command = shlex.join(("qvl-local", "remove", path, "--library", str(store.folder)))
    return Failure(
        path,
        f"the folder is empty now; its {items} known files are kept, in case a disk is "
        f"not connected. If they are gone for good: {command}",
    )


def _owned(seen: Walk, folders: Sequence[Folder]) -> Iterable[FoundFile]:
    """The files of a walk, each under the innermost root that it lies in."""
    inner = [f for f in folders if f.path != seen.folder.path and is_inside(f.path, seen.folder.path)]
    if not inner:
        return seen.files
    moved = []
    for file in seen.files:
        path = path_in(seen.folder.path, file.name)
        owner = innermost(inner, path) or seen.folder
        name = os.path.relpath(path, owner.path) if owner.id != file.folder_id else file.name
        moved.append(FoundFile(owner.id, name, file.size, file.mtime_ns))
    return moved


def _note_raws(store: Store, place: _Place, seen: Walk, folders: Sequence[Folder]) -> None:
    """Remember the raw files of a place instead of those that were there before."""
    if place.is_file:
        if not seen.covers(place.name):
            return
        shown = {file.name for file in seen.files}
        is_photo_there = any(kind_by_extension(name) == "photo" for name in shown) or has_photo_beside(
            place.folder, place.name
        )
        beside = find_raws(place.folder, place.name) if is_photo_there else ()
        found = [raw for raw in beside if raw.name not in shown]
        store.note_raws(place.folder.id, stem=os.path.splitext(place.name)[0], found=found)  # noqa: PTH122
        return
    owned = _owned(replace(seen, files=seen.raws), folders)
    roots = {folder.id: folder for folder in folders}
    inner = [
        folder.id for folder in folders if folder.path != place.path and is_inside(folder.path, place.path)
    ]
    for folder_id in (place.folder.id, *inner):
        own = tuple(file for file in owned if file.folder_id == folder_id)
        below = place.name if folder_id == place.folder.id else ""

        def is_covered(name: str, root: str = roots[folder_id].path) -> bool:
            return seen.covers(os.path.relpath(path_in(root, name), place.folder.path))

        store.note_raws(folder_id, below=below, found=own, is_covered=is_covered)


def _name_at(root: Folder, path: str) -> str:
    """An absolute path relative to a root, "" where it is the root or lies above it."""
    return "" if is_inside(root.path, path) else os.path.relpath(path, root.path)


def _name_in(place: _Place, roots: Mapping[int, Folder], file: KnownFile) -> str:
    """The name of a known file relative to the root of `place`, which `Walk.covers` speaks of."""
    if file.folder_id == place.folder.id:
        return file.name
    return os.path.relpath(path_in(roots[file.folder_id].path, file.name), place.folder.path)


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
