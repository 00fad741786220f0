"""Where pictures were taken, as a few circles: no map, nothing that has to be downloaded.

Positions fall into cells of a hundredth of a degree (1.1 km from north to south). Cells of one name are one
place, where names are known (see `place_names`). Of the others, the fullest cell becomes the seed of a
cluster with all cells within a radius, then the fullest of those left, and so on. The radius is the smallest
of a ladder with which no more than `MOST` clusters come out, so that a library of one city shows its parts,
and one of a life of travel shows countries. The least is 5 km: without a name nobody tells two coordinates of
one walk apart.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from .connection import fetch
from .filters import CELL, CELLS_PER_DEGREE, EARTH_RADIUS_KM, Condition, cell_key

NameOf = Callable[[int, int], str | None]
"""The name of a cell by its hundredths of a degree to the north and to the east."""

MOST = 24
"""Clusters without a name shown at most, unless not even the widest radius brings the positions together."""

_BLOCKS_PER_RADIUS = 5
_RADII_KM = (5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)
# A cell's centre can be half its diagonal away from what lies in it.
_CELL_KM = math.radians(1 / CELLS_PER_DEGREE) * EARTH_RADIUS_KM / math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Place:
    """A circle with the items taken in it. `id`: one of its fullest spot, for a picture of it; `name` may be
    unknown.

    `km` reaches from the centre to the outermost of its items, rounded up, so that `Near` of these three
    finds them all; where circles overlap, it finds some of the neighbour's, too.
    """

    latitude: float
    longitude: float
    km: float
    count: int
    id: int
    first: datetime | None
    last: datetime | None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells, fullest first. `units`: float64 [n, 3], their mean positions on the unit sphere; `keys` are
    hundredths of a degree."""

    units: NDArray[np.float64]
    counts: NDArray[np.int64]
    ids: list[int]
    first: list[str | None]
    last: list[str | None]
    keys: list[tuple[int, int]]

    def some(self, at: NDArray[np.int64]) -> _Cells:
        """Some of the cells, in their order."""
        rows = [(self.ids[i], self.first[i], self.last[i], self.keys[i]) for i in at]
        ids, first, last, keys = (list(column) for column in zip(*rows)) if rows else ([], [], [], [])
        return _Cells(self.units[at], self.counts[at], ids, first, last, keys)


def places(
    connection: apsw.Connection, wanted: Condition, *, name_of: NameOf | None = None
) -> tuple[Place, ...]:
    """Where the items that meet `wanted` were taken, fullest first: by name, else as clusters."""
    cells = _cells(connection, wanted)
    if cells is None:
        return ()
    named: dict[str | None, list[int]] = {None: []}
    for at, key in enumerate(cells.keys):
        named.setdefault(name_of(*key) if name_of else None, []).append(at)
    nameless = cells.some(np.array(named.pop(None), np.int64))
    found = [_place(cells, np.array(at), name) for name, at in named.items()]
    if nameless.ids:
        wide_enough = bisect_left(
            _RADII_KM[:-1], True, key=lambda radius: bool(_clusters(nameless, radius, most=MOST))
        )
        clusters = _clusters(nameless, _RADII_KM[wide_enough], most=len(nameless.ids))
        found += [_place(nameless, cluster) for cluster in clusters]
    return tuple(sorted(found, key=lambda place: (-place.count, place.id)))


def known_cells(connection: apsw.Connection) -> list[tuple[int, int]]:
    """The cells in which any item was taken."""
    rows = fetch(connection, f"SELECT DISTINCT {CELL} FROM media m WHERE m.latitude IS NOT NULL")
    return [cell_key(cell) for (cell,) in rows]


def _cells(connection: apsw.Connection, wanted: Condition) -> _Cells | None:
    # Beside min and max, SQLite takes m.id from the row that has one of both.
    rows = fetch(
        connection,
        "SELECT count(*) AS held, avg(m.latitude), avg(m.longitude), m.id, min(m.taken_at), max(m.taken_at), "
        f"{CELL} AS cell FROM media m "
        f"WHERE m.latitude IS NOT NULL AND m.longitude IS NOT NULL AND {wanted.sql} "
        "GROUP BY cell ORDER BY held DESC, m.id",
        wanted.values,
    )
    if not rows:
        return None
    counts, latitudes, longitudes, ids, first, last, cells = zip(*rows)
    north, east = np.radians(np.array(latitudes)), np.radians(np.array(longitudes))
    units = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)
    keys = [cell_key(cell) for cell in cells]
    return _Cells(units, np.array(counts), list(ids), list(first), list(last), keys)


def _clusters(cells: _Cells, radius_km: float, *, most: int) -> list[NDArray[np.int64]]:
    """The cells of each cluster, by position in `cells`; nothing when there would be more than `most`."""
    block_of, units, counts = _blocks(cells, radius_km / _BLOCKS_PER_RADIUS)
    left = np.argsort(-counts, kind="stable")
    cluster_of = np.full(len(counts), -1)
    made = 0
    while len(left):
        if made == most:
            return []
        near = _km(units[left], units[left[0]]) <= radius_km
        # Once around the seed and once around the middle of what that found: seeds lie at edges, too.
        near |= _km(units[left], _middle(units[left[near]], counts[left[near]])) <= radius_km
        cluster_of[left[near]] = made
        left = left[~near]
        made += 1
    labels = cluster_of[block_of]
    return [np.flatnonzero(labels == cluster) for cluster in range(made)]


def _blocks(
    cells: _Cells, side_km: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Cells put together into blocks, as fine as a radius asks for: fewer positions to compare.

    The block of each cell, int64 [n]; positions on the unit sphere, [blocks, 3]; counts, [blocks].
    """
    steps = np.rint(cells.units * (EARTH_RADIUS_KM / side_km)).astype(np.int64) + 2**19
    keys = (steps[:, 0] << 40) | (steps[:, 1] << 20) | steps[:, 2]
    _, block_of = np.unique(keys, return_inverse=True)
    counts: NDArray[np.float64] = np.bincount(block_of, cells.counts).astype(np.float64)
    sums = np.stack([np.bincount(block_of, cells.units[:, i] * cells.counts) for i in range(3)], axis=1)
    return block_of.astype(np.int64), sums / np.linalg.norm(sums, axis=1, keepdims=True), counts


def _place(cells: _Cells, cluster: NDArray[np.int64], name: str | None = None) -> Place:
    middle = _middle(cells.units[cluster], cells.counts[cluster])
    reach = float(_km(cells.units[cluster], middle).max()) + _CELL_KM
    dates = [text for at in cluster for text in (cells.first[at], cells.last[at]) if text is not None]
    return Place(
        latitude=round(math.degrees(math.asin(max(-1.0, min(1.0, middle[2])))), 5),
        longitude=round(math.degrees(math.atan2(middle[1], middle[0])), 5),
        km=math.ceil(reach * 10) / 10,
        count=int(cells.counts[cluster].sum()),
        id=cells.ids[int(cluster[0])],
        first=datetime.fromisoformat(min(dates)) if dates else None,
        last=datetime.fromisoformat(max(dates)) if dates else None,
        name=name,
    )


def _middle(units: NDArray[np.float64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """The mean position on the sphere, float64 [3]: right across the date line and at the poles."""
    total = counts @ units
    length = float(np.linalg.norm(total))
    middle: NDArray[np.float64] = total / length if length > 1e-9 else units[0]
    return middle


def _km(units: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle distances by the chord, which is exact for small ones: [n, 3] and [3] -> [n]."""
    chords = np.linalg.norm(units - point, axis=1)
    distances: NDArray[np.float64] = 2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chords / 2, 1.0))
    return distances
