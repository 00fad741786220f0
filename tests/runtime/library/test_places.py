"""Places: distances on a sphere, filters around a point, and clusters, also where a flat map would tear."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.browse import browse
from qvl_local.runtime.library.facets import facets
from qvl_local.runtime.library.filters import EARTH_RADIUS_KM
from qvl_local.runtime.library.places import MOST
from qvl_local.runtime.library.records import Filters, Near
from qvl_local.runtime.library.store import Store

Point = tuple[float, float]


def fill(store: Store, make: Any, points: Iterable[Point | None], **info: Any) -> list[int]:
    folder, space = store.add_folder("/p"), store.space(make.identity())
    photos = []
    for number, point in enumerate(points):
        photo = make.photo(folder.id, f"{number}.jpg")
        latitude, longitude = point or (None, None)
        photos.append(
            replace(photo, info=replace(photo.info, latitude=latitude, longitude=longitude, **info))
        )
    return list(store.write(photos, space))


def km_apart(one: Point, other: Point) -> float:
    """By the angle between two unit vectors, as atan2 of cross and dot: exact for any angle."""
    a, b = (unit(point) for point in (one, other))
    cross = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return EARTH_RADIUS_KM * math.atan2(math.hypot(*cross), sum(x * y for x, y in zip(a, b)))


def unit(point: Point) -> tuple[float, float, float]:
    north, east = math.radians(point[0]), math.radians(point[1])
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)


GRID = [
    (float(latitude), float(longitude))
    for latitude in (-90, -89.9, -60, -0.5, 0, 45, 80, 89.99, 90)
    for longitude in (-180, -179.9, -90, -0.1, 0, 90, 179.95, 180)
]


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory, maker: Any) -> Any:
    with Store.open(tmp_path_factory.mktemp("globe") / "library", mode="write") as store:
        ids = fill(store, maker(), [*GRID, None, None])
        yield store, dict(zip(ids, GRID))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
    km=st.floats(0.001, 21_000) | st.sampled_from([1.0, 12.0, 6000.0, 10_007.6, 20_015.2]),
)
def test_near_is_what_lies_within_the_circle(
    globe: Any, latitude: float, longitude: float, km: float
) -> None:
    store, points = globe
    found = {item.id for item in browse(store, filters=Filters(near=Near(latitude, longitude, km))).items}
    for media_id, point in points.items():
        apart = km_apart((latitude, longitude), point)
        if abs(apart - km) > 1e-5:
            assert (media_id in found) == (apart < km), (point, apart)


@pytest.mark.parametrize(
    "near", [(91, 0, 1), (0, 181, 1), (0, 0, 0), (0, 0, -1), (math.nan, 0, 1), (0, 0, math.inf)]
)
def test_a_circle_that_makes_no_sense_is_refused(store: Store, near: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="near"):
        browse(store, filters=Filters(near=Near(*near)))


def test_one_city_shows_its_quarters_and_a_life_its_countries(store: Store, make: Any) -> None:
    quarters = [(48.20, 16.37), (48.25, 16.45), (48.17, 16.30)]
    fill(store, make, [(lat + n / 3000, lon) for lat, lon in quarters for n in range(5)])
    assert [place.count for place in facets(store).places] == [5, 5, 5]
    travelled = [(float(lat), float(lon)) for lat in range(36, 58, 4) for lon in range(-8, 30, 4)]
    fill(store, make, travelled)  # the first ones are written over
    places = facets(store).places
    assert 1 < len(places) <= MOST < len(travelled)
    assert sum(place.count for place in places) == len(travelled)


def test_two_spots_of_one_walk_are_one_place(store: Store, make: Any) -> None:
    fill(store, make, [(38.72, -9.14), (38.71, -9.13), (38.70, -9.15), (38.80, -9.39)])
    assert [place.count for place in facets(store).places] == [3, 1]


def test_a_place_at_the_date_line_or_a_pole_is_one(store: Store, make: Any) -> None:
    fiji = [(-17.0, 179.999), (-17.0, -179.999), (-17.001, 180.0)]
    pole = [(89.999, 0.0), (89.999, 120.0), (89.999, -120.0)]
    fill(store, make, [*fiji, *pole], taken_at=datetime(2024, 5, 6))
    places = facets(store).places
    assert [place.count for place in places] == [3, 3]
    south, north = sorted(places, key=lambda place: place.latitude)
    assert (south.latitude, abs(south.longitude)) == (
        pytest.approx(-17, abs=0.01),
        pytest.approx(180, abs=0.01),
    )
    assert north.latitude == pytest.approx(90, abs=0.01)
    assert south.first == south.last == datetime(2024, 5, 6)
    assert south.km < 2


def test_the_circle_of_a_place_finds_all_its_items(store: Store, make: Any) -> None:
    rng = make.rng
    centres = rng.uniform([-80, -180], [80, 180], (10, 2))
    points = [
        tuple(map(float, centre + rng.normal(0, 0.02, 2).clip(-0.1, 0.1)))
        for centre in centres
        for _ in range(20)
    ]
    points = [(latitude, (longitude + 180) % 360 - 180) for latitude, longitude in points]
    ids = fill(store, make, points)
    places = facets(store).places
    found: set[int] = set()
    for place in places:
        items = browse(
            store, limit=1000, filters=Filters(near=Near(place.latitude, place.longitude, place.km))
        ).items
        assert len(items) >= place.count
        assert place.id in {item.id for item in items}
        found |= {item.id for item in items}
    assert found == set(ids)
    assert sum(place.count for place in places) == len(ids)


def test_a_library_without_positions_has_no_places(store: Store, make: Any) -> None:
    assert facets(store).places == ()
    fill(store, make, [None, None])
    assert facets(store).places == ()
