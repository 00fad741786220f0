"""What a library holds, in one record, and the report of a run that did nothing to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .records import Counts, Failure, IndexReport
from .store import Store


@dataclass(frozen=True, slots=True)
class LibraryStatus:
    """What a library holds.

    `folders`: those that were indexed as a whole; files that were named one by one are only counted. `model`
    is None, and `dims` 0, as long as nothing was indexed. `size`: bytes on disk. `changed_at`: when
    the library was last written, seconds since 1970. `away`: where disks below the folders were not
    connected when they were last looked at; what they hold is kept.
    """

    counts: Counts
    folders: tuple[str, ...]
    failures: tuple[Failure, ...]
    model: str | None
    dims: int
    size: int
    changed_at: float
    away: tuple[str, ...] = ()


def library_status(store: Store) -> LibraryStatus:
    """The status of an open library."""
    space = store.active_space()
    files = list(_file_status(store.folder))
    return LibraryStatus(
        counts=store.counts(),
        folders=tuple(folder.path for folder in store.folders() if folder.is_whole),
        failures=store.failures(),
        model=None if space is None else space.identity.bundle,
        dims=0 if space is None else space.identity.dims,
        size=sum(file.st_size for file in files),
        changed_at=max(file.st_mtime for file in files),
        away=tuple(mount.path for mount in store.mounts() if mount.is_away),
    )


def nothing_done(store: Store) -> IndexReport:
    """The report of a run that was stopped before it began."""
    held = store.counts()
    return IndexReport(held.items, held.photos, held.videos, held.segments, 0, 0, 0, 0, (), 0.0)


def _file_status(folder: Path) -> Iterator[os.stat_result]:
    for file in folder.glob("*.db*"):
        # A journal goes away when an indexer is done with it.
        with suppress(FileNotFoundError):
            yield file.stat()
