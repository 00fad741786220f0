"""The vector spaces of a library: found or made by identity, one active, never mixed."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .connection import fetch, fetch_one
from .quantization import choose_scale, quantize
from .records import Space, SpaceIdentity

_COLUMNS = "id, bundle, revision, precision, dims, pixels, template, active"


def find_space(connection: apsw.Connection, identity: SpaceIdentity) -> Space | None:
    """The space of this identity; the bundle's label does not count."""
    row = fetch_one(
        connection,
        f"SELECT {_COLUMNS} FROM space "
        "WHERE revision = ? AND precision = ? AND dims = ? AND pixels = ? AND template = ?",
        astuple(identity)[1:],
    )
    return None if row is None else _space(row)


def add_space(connection: apsw.Connection, identity: SpaceIdentity) -> Space:
    """Make a space. A library's first one is active at once; later ones wait for `activate_space`."""
    if identity.dims < 8 or identity.dims % 8:
        raise InputError(f"a vector space needs a multiple of 8 dimensions, not {identity.dims}")
    active = active_space(connection) is None
    connection.execute(
        "INSERT INTO space (bundle, revision, precision, dims, pixels, template, active) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*astuple(identity), int(active)),
    )
    return Space(connection.last_insert_rowid(), identity, active)


def active_space(connection: apsw.Connection) -> Space | None:
    """The space that serves searches; None in a library that was never indexed."""
    row = fetch_one(connection, f"SELECT {_COLUMNS} FROM space WHERE active = 1")
    return None if row is None else _space(row)


def all_spaces(connection: apsw.Connection) -> tuple[Space, ...]:
    """Every space, oldest first."""
    return tuple(_space(row) for row in fetch(connection, f"SELECT {_COLUMNS} FROM space ORDER BY id"))


def activate_space(connection: apsw.Connection, space: Space) -> Space:
    """Let this space serve the searches from now on."""
    connection.execute("UPDATE space SET active = 0 WHERE active = 1")
    connection.execute("UPDATE space SET active = 1 WHERE id = ?", (space.id,))
    return Space(space.id, space.identity, True)


def remove_space(connection: apsw.Connection, space: Space) -> None:
    """Delete a space with its vectors. Raises InputError for the active one."""
    if active_space(connection) == find_space(connection, space.identity):
        raise InputError("the active vector space cannot be removed; activate another one first")
    for table in ("vector", "code", "dropped", "segment", "refusal"):
        connection.execute(f"DELETE FROM {table} WHERE space_id = ?", (space.id,))
    connection.execute("DELETE FROM space WHERE id = ?", (space.id,))


def scale_of(connection: apsw.Connection, space: Space) -> float | None:
    """The factor between floats and stored int8 components; None before the first batch."""
    row = fetch_one(connection, "SELECT i8_scale FROM space WHERE id = ?", (space.id,))
    return None if row is None else row[0]


def clipped_fraction(connection: apsw.Connection, space: Space) -> float:
    """The part of all components written so far that did not fit the int8 range, in [0, 1]."""
    row = fetch_one(connection, "SELECT clipped, components FROM space WHERE id = ?", (space.id,))
    return row[0] / row[1] if row is not None and row[1] else 0.0


def encode_batch(connection: apsw.Connection, space: Space, vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """float32 [n, dims] -> int8 [n, dims]; the first batch of a space settles its scale."""
    scale = scale_of(connection, space)
    if scale is None:
        scale = choose_scale(vectors)
        connection.execute("UPDATE space SET i8_scale = ? WHERE id = ?", (scale, space.id))
    stored, clipped = quantize(vectors, scale)
    connection.execute(
        "UPDATE space SET components = components + ?, clipped = clipped + ? WHERE id = ?",
        (stored.size, clipped, space.id),
    )
    return stored


def _space(row: tuple[Any, ...]) -> Space:
    space_id, bundle, revision, precision, dims, pixels, template, active = row
    return Space(space_id, SpaceIdentity(bundle, revision, precision, dims, pixels, template), bool(active))
