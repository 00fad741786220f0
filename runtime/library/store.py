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

import json
import os
import shlex
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, LibraryError, LibraryStorageError
from . import spaces
from .codes import upkeep
from .companions import as_shown, companions_of, has_pairs, known_raws, note_raws
from .connection import (
    Mode,
    count,
    fetch,
    fetch_one,
    merge_log,
    read_transaction,
    storage_errors,
    write_transaction,
)
from .filters import SHOWN, Condition, condition_of, inside
from .home import DATABASE, LOCK, claim_folder, is_file, open_for_reading, open_for_writing
from .lock import FileLock
from .media import (
    KNOWN_COLUMNS,
    SELECT_MEDIA,
    copy_media,
    failed_media,
    move_media,
    remove_media,
    write_media,
    write_segments,
)
from .mounts import all_mounts, remove_mount, write_mount
from .quantization import dequantize
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
from .rows import MEDIA_COLUMNS, known_file, loaded_name, media_item, stored_name
from .vector_search import Neighbour, VectorSearch

_KNOWN_PAGE = 10_000
_REMEMBERED = 16

T = TypeVar("T")


class Store:
    """An open library. Safe to share between threads; each call is one transaction.

    Readers work while one writer indexes. Every method may raise LibraryStorageError (disk full, no
    permission, damaged file); writing with a reader raises LibraryError.
    """

    def __init__(self, folder: Path, connection: apsw.Connection, mode: Mode, lock: FileLock | None) -> None:
        """Use `Store.open`."""
        self.folder = folder
        self.mode: Mode = mode
        self._connection = connection
        self._lock = lock
        self._calls = threading.RLock()
        self._searches: dict[int, VectorSearch] = {}
        self._answers: dict[Hashable, Any] = {}
        self._answers_version: tuple[int, int] | None = None

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
            rows = fetch(connection, "SELECT id, path, whole FROM folder ORDER BY id")
        return tuple(Folder(folder_id, loaded_name(path), bool(whole)) for folder_id, path, whole in rows)

    def add_folder(self, path: str, *, is_whole: bool = True) -> Folder:
        """Remember a root; the same one when it is known already. `path` is absolute.

        `is_whole`: the folder itself was named; a root of single files becomes one of these, never back.
        """
        if not os.path.isabs(path):  # noqa: PTH117 - keeps surrogate escapes
            raise InputError(f"{path}: an indexed folder needs an absolute path")
        normal = os.path.normpath(path)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO folder (path, whole) VALUES (?, ?) "
                "ON CONFLICT (path) DO UPDATE SET whole = max(whole, excluded.whole)",
                (stored_name(normal), int(is_whole)),
            )
            (folder,) = fetch(
                connection, "SELECT id, whole FROM folder WHERE path = ?", (stored_name(normal),)
            )
        return Folder(folder[0], normal, bool(folder[1]))

    def remove_folder(self, folder_id: int) -> int:
        """Forget a root with everything in it; the files stay. Returns how many items went."""
        with self._writing() as connection:
            rows = fetch(connection, "SELECT id FROM media WHERE folder_id = ?", (folder_id,))
            removed = remove_media(connection, [media_id for (media_id,) in rows])
            connection.execute("DELETE FROM folder WHERE id = ?", (folder_id,))
        return removed

    def mounts(self) -> tuple[Mount, ...]:
        """The mount points at and below the roots, as they were last seen."""
        with self._reading() as connection:
            return all_mounts(connection)

    def note_mount(self, mount: Mount) -> None:
        """Remember a mount point, and whether its disk is away."""
        with self._writing() as connection:
            write_mount(connection, mount)

    def forget_mount(self, mount: Mount) -> None:
        """Remember no more that a disk was mounted there."""
        with self._writing() as connection:
            remove_mount(connection, mount)

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
            if spaces.active_space(connection) == spaces.find_space(connection, space.identity):
                raise InputError("the active vector space cannot be removed; activate another one first")
            for table in ("vector", "code", "dropped", "segment", "refusal"):
                connection.execute(f"DELETE FROM {table} WHERE space_id = ?", (space.id,))
            connection.execute("DELETE FROM space WHERE id = ?", (space.id,))

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
                rows = fetch(
                    connection,
                    f"SELECT {KNOWN_COLUMNS} FROM media m "
                    "WHERE m.folder_id = ? AND m.id > ? ORDER BY m.id LIMIT ?",
                    (space.id, folder_id, last, _KNOWN_PAGE),
                )
            yield from map(known_file, rows)
            if len(rows) < _KNOWN_PAGE:
                return
            last = rows[-1][0]

    def known_file(self, folder_id: int, name: str, space: Space) -> KnownFile | None:
        """The file `name` of a folder, as `known` gives it; None when it is not known."""
        with self._reading() as connection:
            row = fetch_one(
                connection,
                f"SELECT {KNOWN_COLUMNS} FROM media m WHERE m.folder_id = ? AND m.name = ?",
                (space.id, folder_id, stored_name(name)),
            )
        return None if row is None else known_file(row)

    def known_below(self, folder_id: int, name: str, space: Space) -> tuple[KnownFile, ...]:
        """The file `name` of a folder and all files in the subfolder `name`, as `known` gives them."""
        there = inside(folder_id, name)
        with self._reading() as connection:
            rows = fetch(
                connection,
                f"SELECT {KNOWN_COLUMNS} FROM media m WHERE {there.sql}",
                (space.id, *there.values),
            )
        return tuple(map(known_file, rows))

    def folder_counts(self, space: Space | None = None) -> dict[int, int]:
        """How many items each root holds in `space` (the active one when None), by the root's id."""
        with self._reading() as connection:
            space = space or spaces.active_space(connection)
            rows = fetch(
                connection,
                f"SELECT m.folder_id, count(*) FROM media m WHERE {SHOWN} AND EXISTS "
                "(SELECT 1 FROM segment s WHERE s.media_id = m.id AND s.space_id = ?) GROUP BY m.folder_id",
                (0 if space is None else space.id,),
            )
        return dict(rows)

    def generation(self) -> int:
        """A number that changes when others write to the library; for comparing on this open store only."""
        with self._reading() as connection:
            return count(connection, "PRAGMA data_version")

    def holds(self, content_hash: bytes) -> bool:
        """Whether any file has this content."""
        with self._reading() as connection:
            found = "SELECT 1 FROM media WHERE content_hash = ? LIMIT 1"
            return fetch_one(connection, found, (content_hash,)) is not None

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
        if stem is not None:
            there = Condition(
                "m.name >= ? AND m.name < ?", (stored_name(stem + "."), stored_name(stem + "/"))
            )
        else:
            there = inside(folder_id, below) if below else Condition("1", ())
        names = {file.name for file in found}
        with self._reading() as connection:
            known = known_raws(connection, folder_id, there)
        gone = {name for name in known - names if is_covered(name)}
        if gone or names - known:
            with self._writing() as connection:
                note_raws(connection, folder_id, gone=gone, found=names - known)

    def find_content(self, content_hash: bytes, size: int, space: Space) -> tuple[KnownFile, ...]:
        """Files of the same content in any folder, whatever they are called; state as in `known`."""
        with self._reading() as connection:
            rows = fetch(
                connection,
                f"SELECT {KNOWN_COLUMNS} FROM media m WHERE m.content_hash = ? AND m.size = ? ORDER BY m.id",
                (space.id, content_hash, size),
            )
        return tuple(map(known_file, rows))

    def write(self, batch: Sequence[IndexedMedia | FailedMedia], space: Space) -> tuple[int, ...]:
        """Write up to about 1000 files in one transaction and return their media ids.

        A file that is known is replaced: with the content as before it keeps its vectors in other spaces,
        also when it fails now; a changed one loses them.
        Raises InputError for a vector that is not finite, of another width, or not of length 1.
        """
        for item in batch:
            if isinstance(item, IndexedMedia):
                _check_vectors(item, space)
        vectors = [s.vector for item in batch if isinstance(item, IndexedMedia) for s in item.segments]
        media_ids = []
        with self._writing() as connection:
            stored = spaces.encode_batch(connection, space, np.stack(vectors)) if vectors else None
            taken = 0
            for item in batch:
                media_ids.append(write_media(connection, item, space))
                if isinstance(item, IndexedMedia) and stored is not None:
                    rows = stored[taken : taken + len(item.segments)]
                    write_segments(connection, media_ids[-1], space, item.segments, rows)
                    taken += len(rows)
        with self._writing() as connection:
            upkeep(connection, space)
        return tuple(media_ids)

    def rename(self, media_id: int, file: FoundFile) -> None:
        """The file of `media_id` was moved: it lies at `file` now, with the same content. Costs no embedding.

        A row that already has the new name (the file it replaced) is removed.
        """
        with self._writing() as connection:
            move_media(connection, media_id, file)

    def touch(self, media_id: int, file: FoundFile) -> None:
        """The file was written again with the same content: remember its new time stamp."""
        self.rename(media_id, file)

    def copy(self, media_id: int, file: FoundFile) -> int:
        """A second file with the content of `media_id`: gets rows and vectors of its own without embedding.

        Returns the new media id. Raises InputError when `media_id` is not known.
        """
        with self._writing() as connection:
            return copy_media(connection, media_id, file)

    def remove(self, media_ids: Iterable[int]) -> int:
        """Forget files, which stay where they are. Returns how many were items, and not in quarantine."""
        with self._writing() as connection:
            removed = remove_media(connection, list(media_ids))
            connection.execute(
                "DELETE FROM folder WHERE NOT whole "
                "AND NOT EXISTS (SELECT 1 FROM media WHERE folder_id = folder.id)"
            )
        return removed

    # Reading

    def counts(self, space: Space | None = None) -> Counts:
        """What the library holds in `space` (the active one when None).

        Items as people see them: a failed file is none, and a Live Photo is one.
        """
        with self._reading() as connection:
            space = space or spaces.active_space(connection)
            failed = len(failed_media(connection, space))
            if space is None:
                return Counts(0, 0, 0, 0, failed)
            kinds: dict[str, int] = dict(
                fetch(
                    connection,
                    f"SELECT m.kind, count(*) FROM media m WHERE {SHOWN} AND EXISTS "
                    "(SELECT 1 FROM segment s WHERE s.media_id = m.id AND s.space_id = ?) GROUP BY m.kind",
                    (space.id,),
                )
            )
            segments = count(connection, "SELECT count(*) FROM segment WHERE space_id = ?", (space.id,))
        photos, videos = kinds.get("photo", 0), kinds.get("video", 0)
        return Counts(photos + videos, photos, videos, segments, failed)

    def knows(self, path: str) -> bool:
        """Whether any file is remembered at this absolute path or below, also in quarantine."""
        with self._reading() as connection:
            there = condition_of(connection, Filters(under=path))
            if there is None:
                return False
            row = fetch_one(connection, f"SELECT 1 FROM media m WHERE {there.sql} LIMIT 1", there.values)
        return row is not None

    def failures(self, space: Space | None = None) -> tuple[Failure, ...]:
        """The quarantined files with their reasons, in order of path.

        Among them those that got no vectors in `space` (the active one when None) by no fault of theirs.
        """
        return tuple(Failure(item.path, why) for item, why in self.failed_items(space))

    def failed_items(self, space: Space | None = None) -> list[tuple[MediaItem, str]]:
        """What `failures` tells, with everything known about each file."""
        with self._reading() as connection:
            failed = failed_media(connection, space or spaces.active_space(connection))
        return sorted(failed, key=lambda entry: entry[0].path)

    def media(self, media_id: int) -> MediaItem | None:
        """The item of this id, or None."""
        with self._reading() as connection:
            row = fetch_one(connection, f"{SELECT_MEDIA} WHERE m.id = ?", (media_id,))
        return None if row is None else media_item(row)

    def media_by_path(self, path: str) -> MediaItem | None:
        """The item at this absolute path, or None. With nested roots, the one of the oldest."""
        folders = self.folders()
        wanted = in_terms_of(os.path.normpath(path), (folder.path for folder in folders))
        for folder in folders:
            if not is_inside(wanted, folder.path):
                continue
            name = os.path.relpath(wanted, folder.path)
            with self._reading() as connection:
                row = fetch_one(
                    connection,
                    f"{SELECT_MEDIA} WHERE m.folder_id = ? AND m.name = ?",
                    (folder.id, stored_name(name)),
                )
            if row is not None:
                return media_item(row)
        return None

    def segments(self, media_id: int, space: Space | None = None) -> tuple[Segment, ...]:
        """The segments of an item in `space` (the active one when None), in order of time."""
        with self._reading() as connection:
            space = space or spaces.active_space(connection)
            rows = fetch(
                connection,
                "SELECT id, media_id, t0_ms, t1_ms FROM segment WHERE media_id = ? AND space_id = ? "
                "ORDER BY t0_ms, id",
                (media_id, 0 if space is None else space.id),
            )
        return tuple(Segment(*row) for row in rows)

    def vectors(self, media_id: int, space: Space | None = None) -> NDArray[np.float32]:
        """The vectors of an item, float32 [segments, dims], in the order of `segments`, as exact as int8."""
        with self._reading() as connection:
            space = space or spaces.active_space(connection)
            if space is None:
                return np.empty((0, 0), np.float32)
            rows = fetch(
                connection,
                "SELECT v.embedding FROM segment s JOIN vector v ON v.segment_id = s.id "
                "WHERE s.media_id = ? AND s.space_id = ? ORDER BY s.t0_ms, s.id",
                (media_id, space.id),
            )
            scale = spaces.scale_of(connection, space)
        stored = np.frombuffer(b"".join(row for (row,) in rows), np.int8)
        return dequantize(stored.reshape(-1, space.identity.dims), scale or 1.0)

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
            condition = condition_of(connection, filters)
            if not has_pairs(connection):
                return _candidates(connection, search.nearest(vector, limit=limit, condition=condition))
            # Both parts of every Live Photo may be among them.
            neighbours = search.nearest(vector, limit=2 * limit, condition=condition)
            return _candidates(connection, as_shown(connection, space, neighbours)[:limit])

    def shown_as(self, media_id: int) -> int:
        """The item that people see for this one: the photo for the film of a Live Photo, else itself."""
        with self._reading() as connection:
            row = fetch_one(connection, "SELECT shown_by FROM media WHERE id = ?", (media_id,))
        return media_id if row is None or row[0] is None else int(row[0])

    def companions(self, media_ids: Iterable[int]) -> dict[int, tuple[Companion, ...]]:
        """The files that are shown with these items, of those that have some."""
        with self._reading() as connection:
            return companions_of(connection, media_ids)

    # Plumbing

    def reading(self) -> AbstractContextManager[apsw.Connection]:
        """One consistent view of the file, for the modules beside this one that only read."""
        return self._reading()

    def remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, which holds until the library changes; the last few answers are kept.

        To be called inside `reading`, so that an answer belongs to the state that it was made of.
        """
        with self._calls:
            version = count(self._connection, "PRAGMA data_version"), self._connection.total_changes()
            if version != self._answers_version:
                self._answers.clear()
                self._answers_version = version
            if key not in self._answers:
                made = make()
                if len(self._answers) >= _REMEMBERED:
                    self._answers.pop(next(iter(self._answers)))
                self._answers[key] = made
            answer: T = self._answers[key]
            return answer

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


def _candidates(connection: apsw.Connection, neighbours: Sequence[Neighbour]) -> tuple[Candidate, ...]:
    """Neighbours with what people want to see of them; their rows exist in the same transaction."""
    rows = fetch(
        connection,
        f"SELECT s.id, s.t0_ms, s.t1_ms, {MEDIA_COLUMNS} FROM json_each(?) j "
        "CROSS JOIN segment s ON s.id = j.value JOIN media m ON m.id = s.media_id "
        "JOIN folder f ON f.id = m.folder_id",
        (json.dumps([neighbour.segment_id for neighbour in neighbours]),),
    )
    by_segment = {row[0]: row for row in rows}
    companions = companions_of(connection, [neighbour.media_id for neighbour in neighbours])
    candidates = []
    for neighbour in neighbours:
        segment_id, t0_ms, t1_ms, *media = by_segment[neighbour.segment_id]
        segment = Segment(segment_id, neighbour.media_id, t0_ms, t1_ms)
        item = media_item(tuple(media))
        candidates.append(Candidate(item, segment, neighbour.cosine, companions.get(item.id, ())))
    return tuple(candidates)


def _check_vectors(item: IndexedMedia, space: Space) -> None:
    if not item.segments:
        raise InputError(f"{item.file.name}: a file without a single vector cannot be indexed")
    for segment in item.segments:
        if segment.vector.shape != (space.identity.dims,):
            raise InputError(
                f"{item.file.name}: a vector of shape {segment.vector.shape} does not fit a space "
                f"of {space.identity.dims} dimensions"
            )
        length = float(np.linalg.norm(segment.vector))
        if not abs(length - 1.0) <= 1e-2:
            raise InputError(f"{item.file.name}: a vector of length {length:g} instead of 1")
