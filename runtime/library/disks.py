"""Disks at and below the roots that can be unplugged: nothing on one that is away counts as gone.

An unplugged disk leaves an empty folder behind, or none: it looks as if everything on it had been deleted.
What tells the two apart is that the folder was a mount point when it was looked at before, and is none now.
Then, as long as none of the items that are known there is to be seen, the disk is away: what is known of it
is kept, and nothing is read there, because whatever lies in the mount point is hidden when the disk is
back. When some of them are to be seen, the folder holds them itself by now, and is one like any other. A
folder that never was a mount point is what it seems, too: when its files are not there, they were deleted.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence

from .devices import is_mount_point
from .records import Failure, Folder, KnownFile, Mount
from .roots import innermost, is_inside, path_in
from .store import Store


class Disks:
    """The mount points that a library knows, for the time of one survey."""

    def __init__(
        self, store: Store, folders: Sequence[Folder], known_in: Callable[[str], Iterable[KnownFile]]
    ) -> None:
        """`known_in`: what the library knows below an absolute path, under every root."""
        self._store = store
        self._folders = folders
        self._known_in = known_in
        self._mounts = {mount.path: mount for mount in store.mounts()}
        self._seen: set[str] = set()
        self._kept: dict[str, str] = {}
        self._looked_at: set[str] = set()

    def look_ahead(self, root: str, place: str) -> None:
        """To be called before `place`, an absolute path at or below a root, is walked.

        Takes note of which disks are there, and of mount points on the way from the root that are new.
        """
        # Those that have nothing to do with the place are left alone: a server that hangs would hold it up.
        places = {path for path in self._mounts if _is_related(path, place)}
        folder = place
        while folder != root:
            folder = os.path.dirname(folder)  # noqa: PTH120 - keeps surrogate escapes
            places.add(folder)
        for path in places - self._looked_at:
            self._looked_at.add(path)
            if is_mount_point(path):
                self.note(path)

    def note(self, path: str) -> None:
        """Remember a mount point, at or below a root, that was just seen."""
        self._seen.add(path)
        known = self._mounts.get(path)
        if known is None or known.is_away:
            self._write(path, is_away=False)

    def away(self, place: str) -> list[str]:
        """The mount points at, below or above a path whose disks are not there, after that was walked."""
        return [path for path in tuple(self._mounts) if _is_related(path, place) and self._is_away(path)]

    def failures(self) -> list[Failure]:
        """What is to be said of the disks that are away."""
        return [Failure(path, why) for path, why in self._kept.items()]

    def _is_away(self, path: str) -> bool:
        if path in self._kept:
            return True
        if is_mount_point(path):
            if path in self._seen:
                return False
            # The walk may have come by before the disk did.
            self._kept[path] = "a disk was connected here while its folder was looked at; index it once more"
            return True
        items = [file for file in self._known_in(path) if file.state != "failed"]
        if not items or any(map(self._is_there, items)):
            self._store.forget_mount(self._mounts.pop(path))
            return False
        self._write(path, is_away=True)
        command = shlex.join(("qvl-local", "remove", path, "--library", str(self._store.folder)))
        self._kept[path] = (
            f"the disk that was mounted here is not connected; its {len(items)} known files are kept, and "
            f"nothing is read here until it is back. If they are gone for good: {command}"
        )
        return True

    def _is_there(self, file: KnownFile) -> bool:
        root = next(folder.path for folder in self._folders if folder.id == file.folder_id)
        return os.path.lexists(path_in(root, file.name))

    def _write(self, path: str, *, is_away: bool) -> None:
        root = innermost(self._folders, path)
        if root is not None:
            mount = self._mounts[path] = Mount(root.id, path, is_away)
            self._store.note_mount(mount)


def _is_related(path: str, place: str) -> bool:
    """Whether one of two absolute paths lies in the other."""
    return is_inside(path, place) or is_inside(place, path)
