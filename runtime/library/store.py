"""The library's memory: one SQLite file with the folders, the media, their vectors, and the search over them.

Knows rows and vectors. Does not know how files are found or decoded, or how a model embeds.

    with Store.open("~/library", mode="write") as store:       # holds the indexing lock
        folder = store.add_folder("/home/me/Pictures")
        space = store.space(identity)
        store.write([IndexedMedia(...), FailedMedia(...)], space)
    with Store.open("~/library") as store:                      # any number of readers
        candidates = store.nearest(query_vector, limit=20)
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self, TypeVar

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import LibraryError, LibraryStorageError
from . import batches, companions, counting, folders, known_files, media, mounts, spaces
from .answers import Answers
from .candidates import nearest
from .codes import upkeep
from .connection import Mode, count, merge_log, read_transaction, storage_errors, write_transaction
from .home import DATABASE, LOCK, claim_folder, is_file, open_for_reading, open_for_writing
from .lock import FileLock
from .records import (
    Candidate,
    Companion,
    Counts,
    FailedMedia,
    Failure,
    Filters,
    Folder,
    FoundFile,
    IndexedMedia,
    KnownFile,
    MediaItem,
    Mount,
    Segment,
    Space,
    SpaceIdentity,
)
from .roots import absolute, in_terms_of, is_inside
from .segments import segments_of, vectors_of
from .vector_search import VectorSearch

T = TypeVar("T")


class Store:
    """An open library. Safe to share between threads; each call is one transaction.

    What happens inside of one is said by the modules beside this one. Readers work while one writer indexes.
    Every method may raise LibraryStorageError (disk full, no permission, damaged file); writing with a reader
    raises LibraryError.
    """

    def __init__(self, folder: Path, connection: apsw.Connection, mode: Mode, lock: FileLock | None) -> None:
        """Use `Store.open`."""
        self.folder = folder
        self.mode: Mode = mode
        self._connection = connection
        self._lock = lock
        self._calls = threading.RLock()
        self._searches: dict[int, VectorSearch] = {}
        self._answers = Answers()

    @classmethod
    def open(cls, folder: str | Path, *, mode: Mode = "read") -> Self:
        """Open the library in `folder`; mode "write" creates it when missing and holds the indexing lock.

        Raises LibraryStorageError when the folder is something else, cannot be used, or (reading) holds no
        library; LibraryVersionError when it was made by a newer qvl-local; LibraryBusyError (writing) when
        another process is indexing into it.
        """
        home = Path(absolute(folder))
        path = home / DATABASE
        if mode == "read":
            if not is_file(path):
                raise LibraryStorageError(
                    f"{home}: there is no library here. "
                    f"Make one with `qvl-local index PATH --library {shlex.quote(str(home))}`."
                )
            connection = open_for_reading(path)
            return cls(home, connection, mode, None)
        claim_folder(home)
        lock = FileLock(
            home / LOCK,
            busy=f"{home}: {{owner}} is indexing into this library. "
            "Wait until it is done, or stop it; searching works meanwhile.",
        )
        try:
            return cls(home, open_for_writing(path), mode, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def create(cls, folder: str | Path) -> None:
        """Make an empty library in `folder` unless there is one, without the lock. Raises as `open`."""
        home = Path(absolute(folder))
        if not is_file(home / DATABASE):
            claim_folder(home)
            open_for_writing(home / DATABASE).close()

    def close(self) -> None:
        """Close the file and, for a writer, let the next indexer in."""
        with self._calls:
            self._searches.clear()
            try:
                with storage_errors(self.folder / DATABASE):
                    if self._lock is not None:
                        merge_log(self._connection)
                    self._connection.close()
            finally:
                if self._lock is not None:
                    self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Folders

    def folders(self) -> tuple[Folder, ...]:
        """The indexed roots, oldest first."""
        with self._reading() as connection:
            return folders.all_folders(connection)

    def add_folder(self, path: str, *, is_whole: bool = True) -> Folder:
        """Remember a root; the same one when it is known already. `path` is absolute.

        `is_whole`: the folder itself was named; a root of single files becomes one of these, never back.
        """
        with self._writing() as connection:
            return folders.add_folder(connection, path, is_whole=is_whole)

    def remove_folder(self, folder_id: int) -> int:
        """Forget a root with everything in it; the files stay. Returns how many items went."""
        with self._writing() as connection:
            return folders.remove_folder(connection, folder_id)

    def mounts(self) -> tuple[Mount, ...]:
        """The mount points at and below the roots, as they were last seen."""
        with self._reading() as connection:
            return mounts.all_mounts(connection)

    def note_mount(self, mount: Mount) -> None:
        """Remember a mount point, and whether its disk is away."""
        with self._writing() as connection:
            mounts.write_mount(connection, mount)

    def forget_mount(self, mount: Mount) -> None:
        """Remember no more that a disk was mounted there."""
        with self._writing() as connection:
            mounts.remove_mount(connection, mount)

    # Vector spaces

    def space(self, identity: SpaceIdentity) -> Space:
        """The space of this identity, made when missing. The library's first space is active at once."""
        with self._reading() as connection:
            found = spaces.find_space(connection, identity)
        if found is not None:
            return found
        with self._writing() as connection:
            return spaces.add_space(connection, identity)

    def find_space(self, identity: SpaceIdentity) -> Space | None:
        """The space of this identity, or None."""
        with self._reading() as connection:
            return spaces.find_space(connection, identity)

    def active_space(self) -> Space | None:
        """The space that serves searches; None in a library that was never indexed."""
        with self._reading() as connection:
            return spaces.active_space(connection)

    def spaces(self) -> tuple[Space, ...]:
        """Every space, oldest first."""
        with self._reading() as connection:
            return spaces.all_spaces(connection)

    def activate(self, space: Space) -> Space:
        """Let `space` serve the searches from now on; open readers follow with their next search."""
        with self._writing() as connection:
            return spaces.activate_space(connection, space)

    def remove_space(self, space: Space) -> None:
        """Delete a space with its vectors. Raises InputError for the active one."""
        with self._writing() as connection:
            spaces.remove_space(connection, space)

    def clipped_fraction(self, space: Space) -> float:
        """The part of all vector components that int8 had to clip, in [0, 1]; below 0.001 is healthy."""
        with self._reading() as connection:
            return spaces.clipped_fraction(connection, space)

    # Indexing

    def known(self, folder_id: int, space: Space) -> Iterator[KnownFile]:
        """Every remembered file of a folder; state "pending" when it lacks vectors in `space`.

        Read page by page, so writing between two steps is fine.
        """
        last = 0
        while True:
            with self._reading() as connection:
                page = known_files.known_page(connection, folder_id, space, after=last)
            yield from page
            if len(page) < known_files.PAGE:
                return
            last = page[-1].media_id

    def known_file(self, folder_id: int, name: str, space: Space) -> KnownFile | None:
        """The file `name` of a folder, as `known` gives it; None when it is not known."""
        with self._reading() as connection:
            return known_files.known_at(connection, folder_id, name, space)

    def known_below(self, folder_id: int, name: str, space: Space) -> tuple[KnownFile, ...]:
        """The file `name` of a folder and all files in the subfolder `name`, as `known` gives them."""
        with self._reading() as connection:
            return known_files.known_below(connection, folder_id, name, space)

    def holds(self, content_hash: bytes) -> bool:
        """Whether any file has this content."""
        with self._reading() as connection:
            return known_files.is_content_known(connection, content_hash)

    def note_raws(
        self,
        folder_id: int,
        *,
        found: Iterable[FoundFile],
        below: str = "",
        stem: str | None = None,
        is_covered: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Remember the raw files `found` in a root or `below` it instead of those that were known there.

        `stem`: only those of this name, without its extension. What is not `is_covered` stays.
        """
        names = {file.name for file in found}
        with self._reading() as connection:
            known = companions.known_raws(connection, folder_id, below=below, stem=stem)
        gone = {name for name in known - names if is_covered(name)}
        if gone or names - known:
            with self._writing() as connection:
                companions.note_raws(connection, folder_id, gone=gone, found=names - known)

    def find_content(self, content_hash: bytes, size: int, space: Space) -> tuple[KnownFile, ...]:
        """Files of the same content in any folder, whatever they are called; state as in `known`."""
        with self._reading() as connection:
            return known_files.known_content(connection, content_hash, size, space)

    def write(self, batch: Sequence[IndexedMedia | FailedMedia], space: Space) -> tuple[int, ...]:
        """Write up to about 1000 files in one transaction and return their media ids.

        A file that is known is replaced: with the content as before it keeps its vectors in other spaces,
        also when it fails now; a changed one loses them.
        Raises InputError for a vector that is not finite, of another width, or not of length 1.
        """
        batches.check_batch(batch, space)
        with self._writing() as connection:
            media_ids = batches.write_batch(connection, batch, space)
        with self._writing() as connection:
            upkeep(connection, space)
        return media_ids

    def rename(self, media_id: int, file: FoundFile) -> None:
        """The file of `media_id` was moved: it lies at `file` now, with the same content. Costs no embedding.

        A row that already has the new name (the file it replaced) is removed.
        """
        with self._writing() as connection:
            media.move_media(connection, media_id, file)

    def touch(self, media_id: int, file: FoundFile) -> None:
        """The file was written again with the same content: remember its new time stamp."""
        self.rename(media_id, file)

    def copy(self, media_id: int, file: FoundFile) -> int:
        """A second file with the content of `media_id`: gets rows and vectors of its own without embedding.

        Returns the new media id. Raises InputError when `media_id` is not known.
        """
        with self._writing() as connection:
            return media.copy_media(connection, media_id, file)

    def remove(self, media_ids: Iterable[int]) -> int:
        """Forget files, which stay where they are. Returns how many were items, and not in quarantine."""
        with self._writing() as connection:
            removed = media.remove_media(connection, list(media_ids))
            folders.remove_empty_folders(connection)
        return removed

    # Reading

    def counts(self, space: Space | None = None) -> Counts:
        """What the library holds in `space` (the active one when None).

        Items as people see them: a failed file is none, and a Live Photo is one.
        """
        with self._reading() as connection:
            return counting.count_all(connection, space or spaces.active_space(connection))

    def folder_counts(self, space: Space | None = None) -> dict[int, int]:
        """How many items each root holds in `space` (the active one when None), by the root's id."""
        with self._reading() as connection:
            return counting.count_by_folder(connection, space or spaces.active_space(connection))

    def generation(self) -> int:
        """A number that changes when others write to the library; for comparing on this open store only."""
        with self._reading() as connection:
            return count(connection, "PRAGMA data_version")

    def knows(self, path: str) -> bool:
        """Whether any file is remembered at this absolute path or below, also in quarantine."""
        with self._reading() as connection:
            return known_files.is_any_known(connection, path)

    def failures(self, space: Space | None = None) -> tuple[Failure, ...]:
        """The quarantined files with their reasons, in order of path.

        Among them those that got no vectors in `space` (the active one when None) by no fault of theirs.
        """
        return tuple(Failure(item.path, why) for item, why in self.failed_items(space))

    def failed_items(self, space: Space | None = None) -> list[tuple[MediaItem, str]]:
        """What `failures` tells, with everything known about each file."""
        with self._reading() as connection:
            failed = media.failed_media(connection, space or spaces.active_space(connection))
        return sorted(failed, key=lambda entry: entry[0].path)

    def media(self, media_id: int) -> MediaItem | None:
        """The item of this id, or None."""
        with self._reading() as connection:
            return media.media_of(connection, media_id)

    def media_by_path(self, path: str) -> MediaItem | None:
        """The item at this absolute path, or None. With nested roots, the one of the oldest."""
        roots = self.folders()
        wanted = in_terms_of(os.path.normpath(path), (root.path for root in roots))
        for root in roots:
            if is_inside(wanted, root.path):
                name = os.path.relpath(wanted, root.path)
                with self._reading() as connection:
                    item = media.media_at(connection, root.id, name)
                if item is not None:
                    return item
        return None

    def segments(self, media_id: int, space: Space | None = None) -> tuple[Segment, ...]:
        """The segments of an item in `space` (the active one when None), in order of time."""
        with self._reading() as connection:
            return segments_of(connection, media_id, space or spaces.active_space(connection))

    def vectors(self, media_id: int, space: Space | None = None) -> NDArray[np.float32]:
        """The vectors of an item, float32 [segments, dims], in the order of `segments`, as exact as int8."""
        with self._reading() as connection:
            return vectors_of(connection, media_id, space or spaces.active_space(connection))

    # Search

    def nearest(
        self,
        vector: NDArray[np.float32],
        *,
        limit: int,
        filters: Filters | None = None,
        space: Space | None = None,
    ) -> tuple[Candidate, ...]:
        """The `limit` items nearest to `vector`, best first, each with its best segment.

        `vector`: float32 [d], of the full width of `space` (the active one when None) or an MRL prefix of it;
        it need not be normalised. A photo stands for the film that belongs to it, at the better cosine of
        both. Raises InputError for a vector or a filter that makes no sense.
        """
        with self._reading() as connection:
            space = space or spaces.active_space(connection)
            if space is None:
                return ()
            search = self._searches.get(space.id)
            if search is None:
                search = self._searches[space.id] = VectorSearch(connection, space)
            return nearest(connection, search, space, vector, limit=limit, filters=filters)

    def shown_as(self, media_id: int) -> int:
        """The item that people see for this one: the photo for the film of a Live Photo, else itself."""
        with self._reading() as connection:
            return companions.shown_as(connection, media_id)

    def companions(self, media_ids: Iterable[int]) -> dict[int, tuple[Companion, ...]]:
        """The files that are shown with these items, of those that have some."""
        with self._reading() as connection:
            return companions.companions_of(connection, media_ids)

    # Plumbing

    def reading(self) -> AbstractContextManager[apsw.Connection]:
        """One consistent view of the file, for the modules beside this one that only read."""
        return self._reading()

    def remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, which holds until the library changes; the last few answers are kept.

        To be called inside `reading`, so that an answer belongs to the state that it was made of.
        """
        with self._calls:
            return self._answers.remembered(self._connection, key, make)

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        database = self.folder / DATABASE
        with self._calls, storage_errors(database, mode="read"), read_transaction(self._connection):
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[apsw.Connection]:
        if self.mode != "write":
            raise LibraryError(f"{self.folder}: the library was opened for reading only")
        with self._calls, storage_errors(self.folder / DATABASE), write_transaction(self._connection):
            yield self._connection
