"""`previews.db`: small pictures of what the library holds, by content hash.

A cache: deleting it loses nothing for good.

A thumbnail for every item, and for every scene of a video the frames that its vector was made of, so that
reranking a video never decodes it again. What is made on request is kept here, too: larger pictures, up to a
number of them, and the fingerprints that duplicates are found by. Keyed by content, so that moved and copied
files keep theirs. A damaged or foreign file is set aside and begun anew by the next indexing run; readers
then simply find nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import apsw

from ..errors import LibraryBusyError, LibraryError
from .connection import Mode, connect, storage_errors, write_transaction

PREVIEWS = "previews.db"

_VERSION = 1  # `PRAGMA user_version`; another number means a cache to begin anew
_SCHEMA = f"""
CREATE TABLE thumbnail (content_hash BLOB PRIMARY KEY, jpeg BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE strip (
    content_hash BLOB NOT NULL,
    t0_ms INTEGER NOT NULL,
    times_s TEXT NOT NULL,      -- seconds since t0 of each frame, separated by spaces
    jpeg BLOB NOT NULL,         -- the frames, one below the other
    PRIMARY KEY (content_hash, t0_ms)
) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""
# Later additions, made where they are missing: what older versions kept stays good, and they pass these by.
_ADDED = """
CREATE TABLE IF NOT EXISTS rendition (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    content_hash BLOB NOT NULL,
    t0_ms INTEGER NOT NULL,     -- of a video's moment; -1 for the whole item
    side INTEGER NOT NULL,      -- the longer one, at most
    jpeg BLOB NOT NULL,
    UNIQUE (content_hash, t0_ms, side)
);
CREATE TABLE IF NOT EXISTS fingerprint (
    content_hash BLOB PRIMARY KEY,
    version INTEGER NOT NULL,   -- of the way in which it was made
    prints BLOB NOT NULL
) WITHOUT ROWID;
"""
_KEYED = ("thumbnail", "strip", "rendition", "fingerprint")
_MADE_ANEW = ("strip", "rendition", "fingerprint")

MOST_RENDITIONS = 20_000
"""About a gigabyte; the oldest go."""


@dataclass(frozen=True, slots=True)
class Strip:
    """The frames of the scene that begins at `t0_ms`, one below the other in a JPEG, and their times."""

    t0_ms: int
    times_s: tuple[float, ...]
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Preview:
    """All small pictures of one content. `is_continued`: its first strips were written by `write_strips`."""

    content_hash: bytes
    thumbnail: bytes
    strips: tuple[Strip, ...] = ()
    is_continued: bool = False


class Previews:
    """The open cache. Safe to share between threads."""

    def __init__(self, connection: apsw.Connection | None, path: Path) -> None:
        """Use `Previews.open`. Without a connection everything is absent."""
        self._connection = connection
        self._path = path
        self._calls = threading.RLock()

    @classmethod
    def open(cls, folder: Path, *, mode: Mode = "read") -> Self:
        """Open the cache of the library in `folder`; mode "write" makes it when missing or unusable.

        Raises:
            LibraryStorageError: (writing) the disk is full, or nothing can be written there.
        """
        path = folder / PREVIEWS
        try:
            return cls(_open(path, mode), path)
        except LibraryError as error:
            if mode == "read":
                return cls(None, path)
            if isinstance(error, LibraryBusyError):
                raise  # somebody writes to it: it is in order
        with storage_errors(path):
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                (folder / name).unlink(missing_ok=True)
        return cls(_open(path, mode), path)

    def write(self, previews: Sequence[Preview]) -> None:
        """Keep the pictures of some contents, in one transaction, instead of what was known of them.

        Raises:
            LibraryStorageError: the disk is full, for example; nothing was written then.
        """
        with self._writing() as connection:
            for preview in previews:
                key = preview.content_hash
                stale = ("rendition", "fingerprint") if preview.is_continued else _MADE_ANEW
                for table in stale:
                    connection.execute(f"DELETE FROM {table} WHERE content_hash = ?", (key,))
                connection.execute("INSERT OR REPLACE INTO thumbnail VALUES (?, ?)", (key, preview.thumbnail))
                _insert_strips(connection, key, preview.strips)

    def write_strips(self, content_hash: bytes, strips: Sequence[Strip], *, is_first: bool) -> None:
        """Keep strips of a film that is still being read, so that they need not wait in memory for its end.

        `is_first`: instead of those that were known of it. Raises as `write`.
        """
        with self._writing() as connection:
            if is_first:
                connection.execute("DELETE FROM strip WHERE content_hash = ?", (content_hash,))
            _insert_strips(connection, content_hash, strips)

    def drop(self, content_hashes: Iterable[bytes]) -> None:
        """Drop the pictures of these contents, in one transaction."""
        with self._writing() as connection:
            for key in content_hashes:
                for table in _KEYED:
                    connection.execute(f"DELETE FROM {table} WHERE content_hash = ?", (key,))

    def keep_only(self, content_hashes: Iterable[bytes]) -> int:
        """Drop the pictures of all other contents; returns how many contents went."""
        with self._writing() as connection:
            connection.execute("CREATE TEMP TABLE IF NOT EXISTS kept (content_hash BLOB PRIMARY KEY)")
            connection.execute("DELETE FROM kept")
            connection.executemany(
                "INSERT OR IGNORE INTO kept VALUES (?)", ((content,) for content in content_hashes)
            )
            before = connection.total_changes()
            connection.execute("DELETE FROM thumbnail WHERE content_hash NOT IN (SELECT * FROM kept)")
            dropped = connection.total_changes() - before
            for table in _KEYED[1:]:
                connection.execute(f"DELETE FROM {table} WHERE content_hash NOT IN (SELECT * FROM kept)")
            connection.execute("DELETE FROM kept")
        return dropped

    def thumbnail(self, content_hash: bytes) -> bytes | None:
        """The JPEG of an item, None when there is none."""
        row = self._row("SELECT jpeg FROM thumbnail WHERE content_hash = ?", (content_hash,))
        return None if row is None else bytes(row[0])

    def strip(self, content_hash: bytes, t0_ms: int) -> Strip | None:
        """The frames of the scene that begins at `t0_ms`, None when there are none."""
        row = self._row(
            "SELECT times_s, jpeg FROM strip WHERE content_hash = ? AND t0_ms = ?", (content_hash, t0_ms)
        )
        if row is None:
            return None
        return Strip(t0_ms, tuple(float(time) for time in row[0].split()), bytes(row[1]))

    def strip_around(self, content_hash: bytes, t_ms: int) -> Strip | None:
        """The frames of the scene that holds this time, of those that there are."""
        row = self._row(
            "SELECT t0_ms FROM strip WHERE content_hash = ? ORDER BY t0_ms > ?, abs(t0_ms - ?) LIMIT 1",
            (content_hash, t_ms, t_ms),
        )
        return None if row is None else self.strip(content_hash, row[0])

    def scene_times(self, content_hash: bytes) -> tuple[int, ...]:
        """Where the scenes begin whose frames there are, in milliseconds, rising."""
        rows = self._rows("SELECT t0_ms FROM strip WHERE content_hash = ? ORDER BY t0_ms", (content_hash,))
        return tuple(t0_ms for (t0_ms,) in rows)

    def rendition(self, content_hash: bytes, t0_ms: int | None, side: int) -> bytes | None:
        """A picture of up to `side` pixels that was made on request, None when there is none."""
        row = self._row(
            "SELECT jpeg FROM rendition WHERE content_hash = ? AND t0_ms = ? AND side = ?",
            (content_hash, -1 if t0_ms is None else t0_ms, side),
        )
        return None if row is None else bytes(row[0])

    def keep_rendition(self, content_hash: bytes, t0_ms: int | None, side: int, jpeg: bytes) -> None:
        """Keep such a picture; raises as `write`."""
        key = (content_hash, -1 if t0_ms is None else t0_ms, side)
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO rendition VALUES (NULL, ?, ?, ?, ?)", (*key, jpeg))
            oldest = connection.last_insert_rowid() - MOST_RENDITIONS
            connection.execute("DELETE FROM rendition WHERE id <= ?", (oldest,))

    def fingerprints(self, version: int) -> dict[bytes, bytes]:
        """Every fingerprint that was made in this way, by content."""
        return dict(self._rows("SELECT content_hash, prints FROM fingerprint WHERE version = ?", (version,)))

    def keep_fingerprints(self, version: int, prints: Mapping[bytes, bytes]) -> None:
        """Keep fingerprints, in one transaction; raises as `write`."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO fingerprint VALUES (?, ?, ?)",
                [(content, version, value) for content, value in prints.items()],
            )

    def be_quick(self, busy_ms: int) -> None:
        """Wait no longer than this for another writer: what is kept here is not worth it."""
        with self._calls:
            if self._connection is not None:
                self._connection.set_busy_timeout(busy_ms)

    def close(self) -> None:
        """Close the file."""
        with self._calls:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[apsw.Connection]:
        """The connection in a transaction. Taken under the lock: another thread may close it until then."""
        with self._calls:
            if self._connection is None:
                raise LibraryError(f"{self._path}: the previews are not open for writing.")
            with storage_errors(self._path), write_transaction(self._connection):
                yield self._connection

    def _row(self, query: str, values: tuple[bytes | int, ...]) -> tuple[Any, ...] | None:
        with self._calls:
            if self._connection is None:
                return None
            # A missing picture is no error, and neither is a damaged page of a cache.
            with suppress(apsw.Error):
                row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
                return row
        return None

    def _rows(self, query: str, values: tuple[bytes | int, ...]) -> list[tuple[Any, ...]]:
        with self._calls, suppress(apsw.Error):
            if self._connection is not None:
                return self._connection.execute(query, values).fetchall()
        return []


def _insert_strips(connection: apsw.Connection, content_hash: bytes, strips: Iterable[Strip]) -> None:
    # OR REPLACE: a decoder that a file has taken over may tell of one moment twice.
    connection.executemany(
        "INSERT OR REPLACE INTO strip VALUES (?, ?, ?, ?)",
        ((content_hash, s.t0_ms, " ".join(f"{t:.3f}" for t in s.times_s), s.jpeg) for s in strips),
    )


def _open(path: Path, mode: Mode) -> apsw.Connection:
    connection = connect(path, mode=mode)
    try:
        with storage_errors(path):
            (version,) = connection.execute("PRAGMA user_version").fetchone() or (0,)
            if version == 0 and mode == "write":
                with write_transaction(connection):
                    connection.execute(_SCHEMA)
            elif version != _VERSION:
                raise LibraryError(f"{path}: made by another version of qvl-local.")
            if mode == "write" and not _has_added(connection):
                with write_transaction(connection):
                    connection.execute(_ADDED)
    except BaseException:
        connection.close()
        raise
    return connection


def _has_added(connection: apsw.Connection) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('rendition', 'fingerprint')"
    )
    return found.fetchall() == [(2,)]
