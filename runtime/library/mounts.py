"""The mount points at and below the roots, as a library remembers them.

Every function runs inside the transaction of its caller.
"""

from __future__ import annotations

import os

import apsw

from .connection import fetch
from .records import Mount
from .roots import path_in
from .rows import loaded_name, stored_name


def all_mounts(connection: apsw.Connection) -> tuple[Mount, ...]:
    """Every mount point, by root and name."""
    rows = fetch(
        connection,
        "SELECT m.folder_id, f.path, m.name, m.away FROM mount m JOIN folder f ON f.id = m.folder_id "
        "ORDER BY m.folder_id, m.name",
    )
    return tuple(
        Mount(folder_id, _path(loaded_name(root), loaded_name(name)), bool(away))
        for folder_id, root, name, away in rows
    )


def write_mount(connection: apsw.Connection, mount: Mount) -> None:
    """Remember a mount point, and whether its disk is away."""
    connection.execute(
        "INSERT INTO mount (folder_id, name, away) VALUES (?, ?, ?) "
        "ON CONFLICT (folder_id, name) DO UPDATE SET away = excluded.away",
        (*_key(connection, mount), int(mount.is_away)),
    )


def remove_mount(connection: apsw.Connection, mount: Mount) -> None:
    """Forget a mount point."""
    connection.execute("DELETE FROM mount WHERE folder_id = ? AND name = ?", _key(connection, mount))


def _key(connection: apsw.Connection, mount: Mount) -> tuple[int, str | bytes]:
    (root,) = fetch(connection, "SELECT path FROM folder WHERE id = ?", (mount.folder_id,))
    name = os.path.relpath(mount.path, loaded_name(root[0]))
    return mount.folder_id, stored_name("" if name == os.curdir else name)


def _path(root: str, name: str) -> str:
    return path_in(root, name) if name else root
