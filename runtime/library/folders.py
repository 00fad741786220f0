"""The roots of a library: folders that were named, and folders of files that were named one by one.

Every function runs inside the transaction of its caller.
"""

from __future__ import annotations

import os

import apsw

from ..errors import InputError
from .connection import fetch
from .media import remove_media
from .records import Folder
from .rows import loaded_name, stored_name


def all_folders(connection: apsw.Connection) -> tuple[Folder, ...]:
    """Every root, oldest first."""
    rows = fetch(connection, "SELECT id, path, whole FROM folder ORDER BY id")
    return tuple(Folder(folder_id, loaded_name(path), bool(whole)) for folder_id, path, whole in rows)


def add_folder(connection: apsw.Connection, path: str, *, is_whole: bool) -> Folder:
    """Remember a root, or that one of single files is one as a whole by now.

    Raises:
        InputError: `path` is not absolute.
    """
    if not os.path.isabs(path):  # noqa: PTH117 - keeps surrogate escapes
        raise InputError(f"{path}: an indexed folder needs an absolute path")
    normal = os.path.normpath(path)
    connection.execute(
        "INSERT INTO folder (path, whole) VALUES (?, ?) "
        "ON CONFLICT (path) DO UPDATE SET whole = max(whole, excluded.whole)",
        (stored_name(normal), int(is_whole)),
    )
    (row,) = fetch(connection, "SELECT id, whole FROM folder WHERE path = ?", (stored_name(normal),))
    return Folder(row[0], normal, bool(row[1]))


def remove_folder(connection: apsw.Connection, folder_id: int) -> int:
    """Forget a root with everything in it; returns how many items went."""
    rows = fetch(connection, "SELECT id FROM media WHERE folder_id = ?", (folder_id,))
    removed = remove_media(connection, [media_id for (media_id,) in rows])
    connection.execute("DELETE FROM folder WHERE id = ?", (folder_id,))
    return removed


def remove_empty_folders(connection: apsw.Connection) -> None:
    """Forget the roots of single files in which none is left."""
    connection.execute(
        "DELETE FROM folder WHERE NOT whole AND NOT EXISTS (SELECT 1 FROM media WHERE folder_id = folder.id)"
    )
