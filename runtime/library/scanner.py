"""Walking the folders of a library: which media files are there, and which places could not be read.

Knows names, sizes and times, never contents. Skipped: hidden files and folders, the caches of
`SKIPPED_FOLDERS`, and whatever a `.qvlignore` (the patterns of `.gitignore`, for its folder and below)
names. Symbolic links to folders are not followed, so that loops cannot happen. A link to a file counts when
its target lies under the same root and is none of the files that the walk finds anyway: git-annex keeps what
its links lead to in a hidden folder. A link to a file that is found is that file, and no second one.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.raw_photo import RAW_EXTENSIONS, is_raw
from ..reasons import refusal, unread_file
from .devices import device_of
from .formats import PHOTO_EXTENSIONS, is_media, is_raw_photo, kind_by_extension
from .records import Failure, Folder, FoundFile

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".qvlignore"

SKIPPED_FOLDERS = frozenset(
    {"@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
    | {"node_modules", "__pycache__", "thumbnails", "iphoto previews"}
)
"""Lower-case names of folders that hold copies and waste, not a person's pictures. Hidden ones go anyway."""

_HIDDEN_ON_WINDOWS = 0x2  # FILE_ATTRIBUTE_HIDDEN
_MOST_RULES_BYTES = 2**20
_LATEST_NS = 2**63 - 1  # in the year 2262; SQLite holds no larger numbers


@dataclass(frozen=True, slots=True)
class Walk:
    """What one walk of a root met.

    `unread` holds the names, relative to the root, of folders and files that could not be looked at ("" is
    the root itself): nobody may conclude that what lies there or below is gone. `raws` are cameras' raw
    files, which are not read, but belong to the photo of their name. `mounts` are the folders on another
    device than the folder that they lie in.
    """

    folder: Folder
    files: tuple[FoundFile, ...]
    failures: tuple[Failure, ...]
    unread: tuple[str, ...]
    raws: tuple[FoundFile, ...] = ()
    mounts: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """Whether the walk saw the place where `name` would be, so that its absence means that it is gone."""
        return not any(_is_in(name, part) for part in self.unread)

    def without(self, places: Sequence[str]) -> Walk:
        """The same walk as if these folders could not have been looked at."""
        if not places:
            return self

        def is_left(name: str) -> bool:
            return not any(_is_in(name, place) for place in places)

        return replace(
            self,
            files=tuple(file for file in self.files if is_left(file.name)),
            raws=tuple(raw for raw in self.raws if is_left(raw.name)),
            failures=tuple(
                failure
                for failure in self.failures
                if is_left(os.path.relpath(failure.path, self.folder.path))
            ),
            unread=(*self.unread, *places),
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """The patterns of one `.qvlignore`; `base` is its folder, "" or ending in "/", relative to the root."""

    base: str
    spec: GitIgnoreSpec

    def verdict(self, name: str) -> bool | None:
        """True: ignore, False: keep, None: no pattern speaks of it. `name` uses "/", folders end in it."""
        return self.spec.check_file(name[len(self.base) :]).include


def walk(
    folder: Folder,
    *,
    start: str = "",
    rules: tuple[Rules, ...] = (),
    on_found: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Walk:
    """List every media file under `folder` in the order of its names.

    `start` is a folder below it, then the only one that is looked at; `rules` are those that hold for it from
    above, see `way_to`. `on_found` is told the number of files
    met so far after each folder. A folder that cannot be listed becomes a failure by its name and the walk
    goes on; so does a root that is not there. Once `stop` is set, what is left counts as unread.
    """
    files: list[FoundFile] = []
    raws: list[FoundFile] = []
    failures: list[Failure] = []
    unread: list[str] = []
    mounts: list[str] = []
    stack: list[tuple[str, tuple[Rules, ...], int | None]] = [(start, rules, None)]
    while stack:
        where, rules, device_above = stack.pop()
        if stop is not None and stop.is_set():
            unread.append(where)
            continue
        path = str(Path(folder.path, where))
        here: list[FoundFile] = []
        try:
            if device_above is None:
                device_above = device_of(os.path.dirname(path))  # noqa: PTH120 - keeps surrogate escapes
            device = device_of(path)
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            if device_of(path) != device:
                raise OSError("its disk was connected or taken away just now")
            if any(entry.name == IGNORE_FILE for entry in entries):
                rules = (*rules, _rules_in(path, where))
        except (OSError, ValueError) as error:
            failures.append(Failure(path, f"the folder cannot be read: {refusal(error)}"))
            unread.append(where)
            continue
        if device != device_above:
            mounts.append(where)
        below: list[tuple[str, tuple[Rules, ...], int | None]] = []
        for entry in entries:
            name = f"{where}{os.sep}{entry.name}" if where else entry.name
            try:
                if _is_skipped(entry):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if not _is_ignored(name, True, rules):
                        below.append((name, rules, device))
                elif is_raw(entry.name):
                    if (
                        not _is_ignored(name, False, rules)
                        and (raw := _file(folder, name, entry)) is not None
                    ):
                        here.append(raw)
                elif kind_by_extension(entry.name) is not None and not _is_ignored(name, False, rules):
                    found = _file(folder, name, entry)
                    if found is not None:
                        here.append(found)
            except OSError as error:
                failures.append(Failure(entry.path, unread_file(error)))
                unread.append(name)
        photos = {_stem(file.name) for file in here if kind_by_extension(file.name) == "photo"}
        for file in here:
            is_companion = is_raw(file.name) and _is_companion(file.name, _stem(file.name) in photos)
            (raws if is_companion else files).append(file)
        stack.extend(reversed(below))
        if on_found is not None:
            on_found(len(files))
    return Walk(folder, tuple(files), tuple(failures), tuple(unread), tuple(raws), tuple(mounts))


def find(folder: Folder, name: str) -> FoundFile:
    """One file that the user named: hidden or ignored makes no difference then.

    Raises:
        OSError: it is not there or cannot be looked at.
    """
    status = Path(folder.path, name).stat()
    return FoundFile(folder.id, name, *stamp(status))


def find_raws(folder: Folder, name: str) -> tuple[FoundFile, ...]:
    """The raw files that lie beside a file and have its name, with the extensions that cameras write."""
    return _beside(folder, name, RAW_EXTENSIONS)


def has_photo_beside(folder: Folder, name: str) -> bool:
    """Whether a photo with the name of a raw file lies beside it, which then belongs to that."""
    return bool(_beside(folder, name, PHOTO_EXTENSIONS))


def find_visible(folder: Folder, name: str) -> Walk:
    """What a walk of the whole root would say of the file `name`, at the cost of one look.

    Raises:
        OSError: it is not there or cannot be looked at.
    """
    path = Path(folder.path, name)
    status = path.lstat()
    if (
        not is_media(path.name)
        or way_to(folder, name, is_folder=False) is None
        or (stat.S_ISLNK(status.st_mode) and not is_followed(folder, str(path)))
    ):
        return Walk(folder, (), (), ())
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return Walk(folder, (), (), ())
    file = FoundFile(folder.id, name, *stamp(status))
    if is_raw(name) and _is_companion(name, has_photo_beside(folder, name)):
        return Walk(folder, (), (), (), (file,))
    return Walk(folder, (file,), (), ())


def is_visible(folder: Folder, name: str) -> bool:
    """Whether a walk of the whole root finds a file of this name; where its rules cannot be read, it may."""
    if not is_media(name):
        return False
    try:
        return way_to(folder, name, is_folder=False) is not None
    except (OSError, ValueError):
        return True


def way_to(folder: Folder, name: str, *, is_folder: bool) -> tuple[Rules, ...] | None:
    """The rules that a walk of the whole root carries to `name`; None where it does not get there.

    Raises:
        OSError, ValueError: a folder on the way, or its rules, cannot be read.
    """
    rules: tuple[Rules, ...] = ()
    where = ""
    parts = Path(name).parts
    for depth, part in enumerate(parts, start=1):
        at = Path(folder.path, where)
        if os.path.lexists(at / IGNORE_FILE):
            rules = (*rules, _rules_in(str(at), where))
        where = f"{where}{os.sep}{part}" if where else part
        is_last = depth == len(parts)
        is_folder_here = is_folder or not is_last
        if (
            part.startswith(".")
            or (is_folder_here and part.lower() in SKIPPED_FOLDERS)
            or (is_folder_here and (at / part).is_symlink())
            or _is_hidden_on_windows(at / part)
            or _is_ignored(where, is_folder_here, rules)
        ):
            return None
    return rules


def stamp(status: os.stat_result) -> tuple[int, int]:
    """A file's size and time (ns) as the library keeps them: a clock that ran wild must not end a run."""
    return status.st_size, max(-_LATEST_NS, min(status.st_mtime_ns, _LATEST_NS))


def _rules_in(path: str, where: str) -> Rules:
    from pathspec import GitIgnoreSpec

    lines = _rules_text(Path(path, IGNORE_FILE)).splitlines()
    try:
        spec = GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        # Going on without the rules would index what somebody wanted left out.
        raise ValueError(f"{IGNORE_FILE} holds a pattern that cannot be used: {error}") from error
    return Rules(_slashed(where) + "/" if where else "", spec)


def _rules_text(file: Path) -> str:
    # Folders come from archives and from other people: a pipe never ends, nor does a link to /dev/zero.
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError(f"{IGNORE_FILE} is no plain file")
    with file.open("rb") as opened:
        content = opened.read(_MOST_RULES_BYTES + 1)
    if len(content) > _MOST_RULES_BYTES:
        raise ValueError(f"{IGNORE_FILE} has more than {_MOST_RULES_BYTES >> 20} MiB")
    return content.decode("utf-8-sig", "surrogateescape")


def _is_skipped(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return True
    if entry.name.lower() in SKIPPED_FOLDERS and entry.is_dir(follow_symlinks=False):
        return True
    return _is_hidden_on_windows(entry)


def _is_hidden_on_windows(entry: os.DirEntry[str] | Path) -> bool:
    if os.name != "nt":
        return False
    return bool(getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0) & _HIDDEN_ON_WINDOWS)


def _is_ignored(name: str, is_folder: bool, rules: tuple[Rules, ...]) -> bool:
    # As in git: the file nearest to the name has the last word.
    slashed = _slashed(name) + ("/" if is_folder else "")
    for rule in reversed(rules):
        verdict = rule.verdict(slashed)
        if verdict is not None:
            return verdict
    return False


def _file(folder: Folder, name: str, entry: os.DirEntry[str]) -> FoundFile | None:
    if entry.is_symlink() and not is_followed(folder, entry.path):
        return None
    # On Windows, DirEntry.stat() may be stale for links and lacks nothing else we need.
    status = entry.stat(follow_symlinks=True)
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a device, a pipe or a socket, not a file")
    return FoundFile(folder.id, name, *stamp(status))


def _is_companion(name: str, has_photo: bool) -> bool:
    """Whether a raw file is no photo of its own: because of its extension, or of a photo beside it."""
    return has_photo or not is_raw_photo(name)


def _beside(folder: Folder, name: str, extensions: Iterable[str]) -> tuple[FoundFile, ...]:
    """The files that a walk would find beside a file with its name and one of these extensions."""
    found = []
    for extension in sorted(extensions):
        for written in (extension, extension.upper()):
            path = Path(folder.path, _stem(name) + written)
            with suppress(OSError, ValueError):  # ValueError: rules on the way that cannot be used
                if path.is_symlink() and not is_followed(folder, str(path)):
                    continue
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                if way_to(folder, _stem(name) + written, is_folder=False) is not None:
                    found.append(FoundFile(folder.id, _stem(name) + written, *stamp(status)))
    # A file system that knows no case tells of each file twice.
    return tuple({file.name.lower(): file for file in found}.values())


def _stem(name: str) -> str:
    """A name without its extension."""
    return os.path.splitext(name)[0]  # noqa: PTH122 - keeps surrogate escapes, and is quick


def is_followed(folder: Folder, path: str) -> bool:
    """Whether a link to a file counts: it stays in the root, and its target is not found by itself."""
    root = os.path.realpath(folder.path).rstrip(os.sep) + os.sep
    target = os.path.realpath(path)
    return target.startswith(root) and not is_visible(folder, target[len(root) :])


def _is_in(name: str, place: str) -> bool:
    """Whether a name is a place's or lies below it; both are relative to one root, "" is that itself."""
    return place in ("", name) or name.startswith(place + os.sep)


def _slashed(name: str) -> str:
    return name.replace(os.sep, "/")
