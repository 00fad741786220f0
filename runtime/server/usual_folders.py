"""Where people have their pictures: the folders to offer to somebody who has not named any.

    usual_folders()      pictures, videos, camera uploads, disks that are connected, and the home folder

Only what is there and not empty, each once. Where the system's own folders lie is the system's to say:
`user-dirs.dirs` on Linux, the known folders on Windows. How many pictures are in one is counted as far as
that costs nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..library.formats import kind_by_extension
from ..library.roots import is_inside
from ..library.scanner import SKIPPED_FOLDERS

FolderKind = Literal["home", "pictures", "videos", "disk", "folder"]

MOST_COUNTED = 5000
_PATIENCE_S = 0.3

# Beside the ones that the system names: a phone's, other systems', and those of programs that keep in step.
_PICTURES = ("Pictures", "Photos", "DCIM")
_VIDEOS = ("Videos", "Movies")
_UPLOADS = (
    "OneDrive/Pictures",
    "Dropbox/Camera Uploads",
    "Dropbox/Photos",
    "Nextcloud/Photos",
    "Nextcloud/InstantUpload",
)


@dataclass(frozen=True, slots=True)
class UsualFolder:
    """A folder to offer. `count`: photos and videos in it, at most `MOST_COUNTED`; None: nobody counted."""

    kind: FolderKind
    name: str
    path: str
    count: int | None


def usual_folders(
    *,
    known: Iterable[str] = (),
    mounts: Iterable[str] | None = None,
    is_disk: Callable[[str], bool] = os.path.ismount,
) -> list[UsualFolder]:
    """The folders to offer, the likeliest first.

    `known`: absolute paths of folders that are searched already, and are not offered again, nor what is in
    them. `mounts`: the folders in which disks appear, by default the platform's; `is_disk` says which of
    their entries are some.
    """
    searched = [os.path.realpath(path) for path in known]
    end = time.monotonic() + _PATIENCE_S
    met: set[str] = set()
    found = []
    for kind, name, path in _likely(_mounts() if mounts is None else mounts, is_disk):
        real = os.path.realpath(path)
        if real in met or not os.path.isdir(real):  # noqa: PTH112
            continue
        met.add(real)
        if any(is_inside(real, root) for root in searched):
            continue
        count = None if kind == "disk" else _count(path, end)  # a slow disk takes all of the time
        if count != 0 or kind == "home":  # one begins there to look around
            found.append(UsualFolder(kind, name, path, count))
    return found


def _likely(mounts: Iterable[str], is_disk: Callable[[str], bool]) -> Iterator[tuple[FolderKind, str, str]]:
    from platformdirs import user_pictures_dir, user_videos_dir

    home = Path.home()
    yield "pictures", *_named(user_pictures_dir())
    for name in _PICTURES:
        yield "pictures", *_named(home / name)
    yield "videos", *_named(user_videos_dir())
    for name in _VIDEOS:
        yield "videos", *_named(home / name)
    for upload in _UPLOADS:
        yield "pictures", upload.replace("/", " "), str(home / upload)
    for mount in mounts:
        with suppress(OSError), os.scandir(mount) as listing:
            for entry in sorted(listing, key=lambda entry: entry.name):
                if not entry.name.startswith(".") and is_disk(entry.path):
                    yield "disk", entry.name, entry.path
    if sys.platform == "win32":
        for letter in "CDEFGHIJKLMNOPQRSTUVWXYZ":
            yield "disk", f"{letter}:", f"{letter}:\\"
    yield "home", *_named(home)


def _named(path: Path | str) -> tuple[str, str]:
    return os.path.basename(str(path)) or str(path), str(path)  # noqa: PTH119


def _mounts() -> tuple[str, ...]:
    if sys.platform == "win32":
        return ()
    if sys.platform == "darwin":
        return ("/Volumes",)
    user = os.environ.get("USER") or Path.home().name
    return (f"/media/{user}", f"/run/media/{user}", "/mnt")


def _count(path: str, end: float) -> int | None:
    """Photos and videos in a folder and below, by their names; None where counting would take too long."""
    waiting, count = [path], 0
    while waiting:
        try:
            with os.scandir(waiting.pop()) as listing:
                for entry in listing:
                    if time.monotonic() > end:
                        return None
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name.lower() not in SKIPPED_FOLDERS:
                            waiting.append(entry.path)
                    elif kind_by_extension(entry.name) is not None:
                        count += 1
                        if count == MOST_COUNTED:
                            return count
        except OSError:  # one that may not be read holds nothing for us
            continue
    return count
