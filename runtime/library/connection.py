"""SQLite connections of a library, with sqlite-vec loaded and storage failures put into words.

Knows how to open the file for writing, for reading, and for reading on a medium where nothing can be
written. Does not know any table: the schema lives in `migrations`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import apsw

from ..errors import LibraryBusyError, LibraryStorageError

Mode = Literal["read", "write"]

# Read back by `file library.db` and by us: tells a library from any other SQLite file. ASCII "qvlb".
APPLICATION_ID = 0x71766C62

# Seven vectors of 2048 int8 components fit a page, three of 4096: no overflow chains on the hot path.
PAGE_SIZE = 16384
BUSY_TIMEOUT_MS = 30_000
CACHE_KIB = 65_536


def connect(path: Path, *, mode: Mode) -> apsw.Connection:
    """Open the database file `path`; in mode "write" it is created when missing.

    A reader on a read-only medium cannot make the shared-memory file that WAL needs; it then opens the
    file as immutable, which is right as long as no write-ahead log with content lies beside it.

    Raises LibraryStorageError when the file cannot be opened or is not a database.
    """
    with storage_errors(path, mode=mode):
        if mode == "write":
            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
            connection = apsw.Connection(_uri(path, "mode=rwc"), flags)
            try:
                _prepare(connection)
            except BaseException:
                connection.close()
                raise
            return connection
        return _connect_for_reading(path)


def set_up_for_writing(connection: apsw.Connection) -> None:
    """The settings that a file keeps; only for a file that is known to be ours."""
    # Before the first table only: a no-op in a file that already has pages.
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    fetch(connection, "PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def merge_log(connection: apsw.Connection) -> None:
    """Move what the write-ahead log holds into the database file, so that a copy of that file is whole.

    A search that is just reading may hold it back, or a full disk; nothing is lost then, the log stays where
    it is and the next writer moves it.
    """
    connection.set_busy_timeout(0)
    with suppress(apsw.Error):
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def _connect_for_reading(path: Path) -> apsw.Connection:
    try:
        return _opened_for_reading(path, "mode=ro")
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        # Either there is nothing to open, or no place for the files of the write-ahead log.
        if not path.exists():
            raise
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > 0:
        raise LibraryStorageError(
            f"{path}: the library was not closed cleanly and its folder is read-only, so its last changes "
            f"cannot be read. Make {path.parent} writable and run `qvl-local status` once."
        )
    return _opened_for_reading(path, "mode=ro&immutable=1")


def _opened_for_reading(path: Path, options: str) -> apsw.Connection:
    connection = apsw.Connection(_uri(path, options), apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        _prepare(connection)
        fetch(connection, "SELECT count(*) FROM sqlite_schema")
    except BaseException:
        connection.close()
        raise
    return connection


def _uri(path: Path, options: str) -> str:
    # Percent-encoded byte for byte: SQLite then opens folders whose names are no text, too.
    posix = quote(os.fsencode(path.absolute().as_posix()))
    # On Windows a drive needs a leading slash: file:///C:/...
    return f"file://{'' if posix.startswith('/') else '/'}{posix}?{options}"


def _prepare(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.enable_load_extension(True)
    connection.load_extension(vector_extension())
    connection.enable_load_extension(False)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")


def vector_extension() -> str:
    """Where sqlite-vec lies. Importing its package would load Python's own SQLite beside that of apsw."""
    package = find_spec("sqlite_vec")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'sqlite_vec'", name="sqlite_vec")
    return str(Path(package.origin).with_name("vec0"))


def fetch(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    return connection.execute(sql, values).fetchall()


def fetch_one(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
    """The first row of a query, or None."""
    return connection.execute(sql, values).fetchone()


def count(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> int:
    """The one whole number that a query returns."""
    row = fetch_one(connection, sql, values)
    return 0 if row is None or row[0] is None else int(row[0])


@contextmanager
def write_transaction(connection: apsw.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at once, so that nothing read inside can become stale.

    Ctrl-C may arrive at any instruction, also between BEGIN and the block, or while an earlier transaction
    was just being entered. What it left open had written nothing and is ended first.
    """
    _roll_back(connection)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


@contextmanager
def read_transaction(connection: apsw.Connection) -> Iterator[None]:
    """One consistent view of the library for several queries, whatever an indexer writes meanwhile."""
    if connection.in_transaction:
        yield
        return
    try:
        connection.execute("BEGIN")
        yield
    finally:
        _roll_back(connection)


def _roll_back(connection: apsw.Connection) -> None:
    # SQLite has rolled back by itself after a full disk or an I/O error.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def storage_errors(path: Path, *, mode: Mode = "write") -> Iterator[None]:
    """Turn what SQLite or the operating system says about `path` into library errors with a remedy.

    `mode`: what was being done, since a permission that reading lacks is not the one to write.
    """
    try:
        yield
    except apsw.FullError as error:
        raise LibraryStorageError(
            f"{path}: the disk is full; nothing of the last batch was written and the library is intact. "
            f"Free some space in {path.parent} and run the command again."
        ) from error
    except (apsw.NotADBError, apsw.CorruptError, apsw.FormatError) as error:
        raise LibraryStorageError(
            f"{path}: this is not a readable qvl-local library ({error}). "
            f"Restore it from a backup, or delete {path.parent} and index again."
        ) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError, PermissionError) as error:
        can = "read" if mode == "read" else "written here"
        able = "readable" if mode == "read" else "writable"
        raise LibraryStorageError(
            f"{path}: the library cannot be {can} ({error}). "
            f"Make {path.parent} {able} for this user, or choose another folder with --library."
        ) from error
    except apsw.CantOpenError as error:
        raise LibraryStorageError(
            f"{path}: the library cannot be opened ({error}). "
            f"Check that {path.parent} exists and that this user may read and write it."
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise LibraryBusyError(
            f"{path}: another process has been writing to the library for {BUSY_TIMEOUT_MS // 1000} seconds. "
            f"Wait until it is done and try again."
        ) from error
    except (apsw.IOError, OSError) as error:
        raise LibraryStorageError(
            f"{path}: reading or writing failed ({error}). Check the disk that holds {path.parent}; "
            f"the library keeps everything that was written before."
        ) from error
