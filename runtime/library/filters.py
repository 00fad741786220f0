"""Search filters as SQL conditions over `media AS m`.

The conditions choose the candidates before any vector is looked at, so a narrow filter never loses hits
to the items that it excludes.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass

import apsw

from ..errors import InputError
from .connection import fetch
from .folder_keys import parse_folder_key
from .records import Filters, Near
from .roots import in_terms_of, is_inside
from .rows import loaded_name, marks, stored_moment, stored_name

EARTH_RADIUS_KM = 6371.0088
"""The mean radius of the Earth (IUGG)."""

CELLS_PER_DEGREE = 100
"""Places are told apart by cells of a hundredth of a degree: 1.1 km from north to south."""

_ROW = 100_000
CELL = (
    f"CAST(round(m.latitude * {CELLS_PER_DEGREE}) AS INTEGER) * {_ROW} "
    f"+ CAST(round(m.longitude * {CELLS_PER_DEGREE}) AS INTEGER)"
)
"""The cell of an item as one number, in SQL; `cell_key` takes it apart."""


def cell_key(cell: int) -> tuple[int, int]:
    """Hundredths of a degree to the north and to the east."""
    north = (cell + _ROW // 2) // _ROW
    return north, cell - north * _ROW


SHOWN = "m.state = 'indexed' AND m.shown_by IS NULL"
"""What people see as an item, in SQL: it was read well, and no other item stands for it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """An SQL expression over `media AS m`, and its parameters."""

    sql: str
    values: tuple[str | bytes | int | float, ...]


def condition_of(connection: apsw.Connection, filters: Filters | None) -> Condition | None:
    """What `filters` asks of a media row; None when every item may be returned.

    Raises InputError for an unknown kind, a date with a time zone, a relative `under`, and a folder key or a
    place that makes no sense; MissingExtraError for a place by its name where places have none.
    """
    if filters is None:
        return None
    parts: list[Condition] = []
    if filters.kind is not None:
        if filters.kind not in ("photo", "video"):
            raise InputError(f"unknown kind {filters.kind!r}; it is photo or video")
        parts.append(Condition("m.kind = ?", (filters.kind,)))
    after, before = stored_moment(filters.after), stored_moment(filters.before)
    if after is not None:
        parts.append(Condition("m.taken_at >= ?", (after,)))
    if before is not None:
        parts.append(Condition("m.taken_at < ?", (before,)))
    if filters.camera is not None:
        parts.append(_joined(" OR ", [_camera(connection, name) for name in _each(filters.camera)]))
    if filters.under is not None:
        parts.append(_joined(" OR ", [_under(connection, folder) for folder in _each(filters.under)]))
    if filters.folders:
        parts.append(_joined(" OR ", [_folder(key) for key in filters.folders]))
    if filters.near is not None:
        parts.append(_near(filters.near))
    if filters.place is not None:
        parts.append(_place(connection, _each(filters.place)))
    return _joined(" AND ", parts) if parts else None


def shown_items(connection: apsw.Connection, filters: Filters | None) -> Condition:
    """The rows that people see as items, as far as `filters` lets them.

    Raises InputError as `condition_of`.
    """
    condition = condition_of(connection, filters)
    if condition is None:
        return Condition(SHOWN, ())
    return Condition(f"{SHOWN} AND ({condition.sql})", condition.values)


def _each(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def _folder(key: str) -> Condition:
    folder_id, name = parse_folder_key(key)
    return inside(folder_id, name) if name else Condition("m.folder_id = ?", (folder_id,))


def _near(near: Near) -> Condition:
    """Within `near.km` of a point, along a great circle.

    First a box that an index can serve, then the haversine formula, which is exact for small distances where
    the cosine formula is not (R. W. Sinnott, Virtues of the Haversine, Sky and Telescope 68, 1984). The box's
    half width in longitude is asin(sin(d) / cos(latitude)): meridians come together towards the poles.
    """
    latitude, longitude, km = near.latitude, near.longitude, near.km
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 < km < math.inf):
        raise InputError(
            f"near {latitude}, {longitude}, {km} km: latitudes go from -90 to 90, longitudes from -180 to "
            "180, and the distance is above 0"
        )
    angle = min(km / EARTH_RADIUS_KM, math.pi)
    # A hair wider than the circle, so that rounding never takes something away from it.
    reach = math.degrees(angle) + 1e-9
    south, north = latitude - reach, latitude + reach
    box, bounds = "m.latitude BETWEEN ? AND ?", [south, north]
    if south > -90 and north < 90:
        width = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(latitude))))) + 1e-9
        west, east = longitude - width, longitude + width
        # Beyond the date line, the box goes on at the other side.
        around = " OR m.longitude >= ?" if west < -180 else " OR m.longitude <= ?" if east > 180 else ""
        box += f" AND (m.longitude BETWEEN ? AND ?{around})"
        bounds += [west, east]
        bounds += [west + 360] if west < -180 else [east - 360] if east > 180 else []
    haversine = (
        "pow(sin(radians(m.latitude - ?) / 2), 2) + "
        "? * cos(radians(m.latitude)) * pow(sin(radians(m.longitude - ?) / 2), 2) <= ?"
    )
    limit = math.sin(angle / 2) ** 2 + 1e-15
    values = (*bounds, latitude, math.cos(math.radians(latitude)), longitude, limit)
    return Condition(f"m.latitude IS NOT NULL AND {box} AND {haversine}", values)


def _place(connection: apsw.Connection, wanted: tuple[str, ...]) -> Condition:
    from .place_names import cell_name, load_place_names

    load_place_names()
    looked_for = [text.casefold() for text in wanted]
    cells = fetch(connection, f"SELECT DISTINCT {CELL} FROM media m WHERE m.latitude IS NOT NULL")
    matching = []
    for (cell,) in cells:
        name = cell_name(*cell_key(cell))
        if name is not None and any(text in name.casefold() for text in looked_for):
            matching.append(cell)
    there = f"{CELL} IN (SELECT value FROM json_each(?))"
    return Condition(f"m.latitude IS NOT NULL AND {there}", (json.dumps(matching),))


def _camera(connection: apsw.Connection, wanted: str) -> Condition:
    # A library knows few cameras; comparing them here makes "any case" hold beyond ASCII.
    names = fetch(connection, "SELECT DISTINCT camera FROM media WHERE camera IS NOT NULL")
    matching = [name for (name,) in names if wanted.casefold() in name.casefold()]
    return Condition(f"m.camera IN ({marks(matching)})", tuple(matching))


def _under(connection: apsw.Connection, under: str) -> Condition:
    if not os.path.isabs(under):  # noqa: PTH117 - a Path would lose nothing but says less
        raise InputError(f"{under}: a search below a folder needs an absolute path")
    rows = fetch(connection, "SELECT id, path FROM folder")
    folders = {folder_id: loaded_name(stored_path) for folder_id, stored_path in rows}
    wanted = in_terms_of(os.path.normpath(under), folders.values())
    parts = []
    for folder_id, folder in folders.items():
        if is_inside(folder, wanted):
            parts.append(Condition("m.folder_id = ?", (folder_id,)))
        elif is_inside(wanted, folder):
            parts.append(inside(folder_id, os.path.relpath(wanted, folder)))
    return _joined(" OR ", parts)


def inside(folder_id: int, name: str) -> Condition:
    """The file `name` of a folder, or everything below the subfolder `name`; served by the index on names."""
    bounds: list[str | bytes] = []
    first, last = name + os.sep, name + chr(ord(os.sep) + 1)
    # Names are compared by code point or byte; SQLite sorts every BLOB behind every TEXT, so a range of texts
    # holds no undecodable name and needs the range of bytes beside it.
    if isinstance(stored_name(name), str):
        bounds += [first, last]
    bounds += [os.fsencode(first), os.fsencode(last)]
    ranges = " OR ".join(["(m.name >= ? AND m.name < ?)"] * (len(bounds) // 2))
    return Condition(f"m.folder_id = ? AND (m.name = ? OR {ranges})", (folder_id, stored_name(name), *bounds))


def _joined(word: str, parts: list[Condition]) -> Condition:
    if not parts:
        return Condition("0", ())
    return Condition(
        word.join(f"({part.sql})" for part in parts), tuple(value for part in parts for value in part.values)
    )
