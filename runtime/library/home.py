"""The folder of a library: made, recognised, opened at the newest schema.

library.db       everything that the library knows (with -wal and -shm beside it while it is open)
indexing.lock    held by the one process that indexes
serving.lock     held by a server, with its address
"""

from __future__ import annotations

from pathlib import Path

import apsw

from ..errors import LibraryStorageError
from .connection import connect, set_up_for_writing, storage_errors
from .migrations import migrate, pending

DATABASE = "library.db"
LOCK = "indexing.lock"
SERVING = "serving.lock"

# What may lie in a folder that is still to become a library: our own beginnings, and what desktops leave.
_HARMLESS = {
    DATABASE,
    f"{DATABASE}-wal",
    f"{DATABASE}-shm",
    LOCK,
    SERVING,
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
}


def open_for_reading(path: Path) -> apsw.Connection:
    """A reader of an existing library; one of an older schema is brought to the newest first."""
    connection = connect(path, mode="read")
    try:
        with storage_errors(path, mode="read"):
            outdated = pending(connection, path)
    except BaseException:
        connection.close()
        raise
    if not outdated:
        return connection
    connection.close()
    open_for_writing(path).close()
    return connect(path, mode="read")


def open_for_writing(path: Path) -> apsw.Connection:
    """A writer at the newest schema; the file is created when missing."""
    connection = connect(path, mode="write")
    try:
        with storage_errors(path):
            pending(connection, path)  # refuses a file of another program before anything in it is changed
            set_up_for_writing(connection)
            migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def claim_folder(home: Path) -> None:
    """Make the folder, or refuse one that holds something else than a library."""
    with storage_errors(home / DATABASE):
        try:
            home.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise LibraryStorageError(
                f"{home}: this is a file, not a folder. Choose another folder with --library."
            ) from error
    check_folder(home)


def check_folder(home: Path) -> None:
    """Refuse a folder that holds something else than a library."""
    with storage_errors(home / DATABASE, mode="read"):
        names = {entry.name for entry in home.iterdir()}
    if DATABASE not in names and names - _HARMLESS:
        raise LibraryStorageError(
            f"{home}: the folder holds other files and no library. "
            f"Choose an empty or a new folder with --library."
        )


def is_file(path: Path) -> bool:
    """Whether `path` exists; a folder that may not be looked into is an error, not a no."""
    with storage_errors(path, mode="read"):
        try:
            return path.stat().st_size >= 0
        except (FileNotFoundError, NotADirectoryError):
            return False
