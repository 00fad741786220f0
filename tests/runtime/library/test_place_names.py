"""Names of places: real positions and the real list of towns, which the extra `[places]` brings."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.errors import MissingExtraError
from qvl_local.runtime.library import place_names
from qvl_local.runtime.library.browse import browse
from qvl_local.runtime.library.facets import facets
from qvl_local.runtime.library.filters import cell_key
from qvl_local.runtime.library.place_names import cell_name, has_place_names, place_name, place_name_soon
from qvl_local.runtime.library.records import Filters
from qvl_local.runtime.library.store import Store

LISBON, BELEM, SINTRA, GEYSIR, PACIFIC = (
    (38.711, -9.139),
    (38.6916, -9.216),
    (38.7979, -9.3908),
    (64.3104, -20.3024),
    (0.0, -150.0),
)


def forget() -> None:
    place_names._towns.cache_clear()
    place_names._background_reading.cache_clear()
    cell_name.cache_clear()


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Nothing is loaded, and what the test loads is not for others."""
    forget()
    yield
    forget()


@pytest.mark.parametrize(
    ("point", "name"),
    [
        (LISBON, "Lisbon, Portugal"),
        (BELEM, "Lisbon, Portugal"),  # a quarter, listed as a town, two others nearer than Lisbon's middle
        ((38.7536, -9.2302), "Amadora, Portugal"),  # a city of its own, nine kilometres off
        (SINTRA, "Sintra, Portugal"),
        ((47.5622, 13.6493), "Gosau, Austria"),  # Hallstatt is smaller than the list goes
        ((52.4986, 13.4034), "Berlin, Germany"),  # Kreuzberg
        ((52.4000, 13.0600), "Potsdam, Germany"),
        ((40.7440, -74.0300), "Hoboken, New Jersey, United States"),  # New York is across the river
        ((40.7580, -73.9855), "New York City, New York, United States"),
        ((45.5152, -122.6784), "Portland, Oregon, United States"),
        ((43.6591, -70.2568), "Portland, Maine, United States"),
        ((1.2900, 103.8500), "Singapore"),  # not Singapore, Singapore
        ((35.6595, 139.7005), "Tokyo, Japan"),
        ((-33.8568, 151.2153), "Sydney, Australia"),
        (GEYSIR, "Iceland, away from towns"),
        (PACIFIC, None),
        ((23.4, 12.0), None),  # the Sahara
        ((90.0, 0.0), None),
        ((-90.0, 0.0), None),
        ((0.0, 180.0), None),
    ],
)
def test_positions_have_the_names_that_people_give_them(point: tuple[float, float], name: str | None) -> None:
    assert place_name(*point) == name


def test_across_the_date_line_the_town_on_the_other_side_is_near() -> None:
    # Taveuni and its towns lie on both sides of 180 degrees.
    assert place_name(-16.80, 179.99) == place_name(-16.80, -179.99) is not None


@pytest.mark.usefixtures("forgotten")
def test_what_is_kept_is_read_again_and_made_anew_when_it_is_none(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path))
    assert place_name(*LISBON) == "Lisbon, Portugal"
    (kept,) = (tmp_path / "places").iterdir()

    def unread() -> list[Any]:
        raise AssertionError("the package's list was read, though all that is needed of it was kept")

    with monkeypatch.context() as patch:
        patch.setattr(place_names, "_listed", unread)
        forget()
        assert place_name(*SINTRA) == "Sintra, Portugal"

    for broken in (kept.read_bytes()[:5000], b"", b"no archive"):
        kept.write_bytes(broken)
        forget()
        few = [place_names._Town(38.72, -9.13, "Lisboa", "PT", "14", 500_000)]
        with monkeypatch.context() as patch:
            patch.setattr(place_names, "_listed", lambda few=few: few)
            assert place_name(*LISBON) == "Lisboa, Portugal"
        assert len(kept.read_bytes()) > 1000


@pytest.mark.usefixtures("forgotten")
def test_nobody_waits_for_the_first_reading_who_cannot(monkeypatch: Any) -> None:
    may_go_on, towns = threading.Event(), place_names._towns()

    def slowly() -> Any:
        may_go_on.wait()
        return towns

    monkeypatch.setattr(place_names, "_loaded", slowly)
    assert place_name_soon(*LISBON, wait_s=0.01) is None
    assert place_name_soon(None, None) is None
    may_go_on.set()
    assert place_name_soon(*LISBON, wait_s=60) == "Lisbon, Portugal"


def test_asking_for_one_cell_twice_looks_it_up_once(monkeypatch: Any) -> None:
    assert place_name(*LISBON) == "Lisbon, Portugal"
    before = cell_name.cache_info().misses
    assert place_name(LISBON[0] + 0.001, LISBON[1]) == "Lisbon, Portugal"
    assert cell_name.cache_info().misses == before


def test_without_the_extra_places_have_no_names(store: Store, make: Any, monkeypatch: Any) -> None:
    fill(store, make, [LISBON])
    assert place_name(*LISBON) is not None  # which is remembered, and must not be shown any more
    monkeypatch.setattr(place_names, "find_spec", lambda name: None)
    assert not has_place_names()
    assert place_name(*LISBON) is None
    with pytest.raises(MissingExtraError, match=r"qvl-local\[places\]"):
        browse(store, filters=Filters(place="Lisbon"))


def test_nothing_is_loaded_before_there_is_a_position(store: Store, make: Any, monkeypatch: Any) -> None:
    fill(store, make, [None, None])

    def loaded() -> None:
        raise AssertionError("the list of towns was read for a library without positions")

    monkeypatch.setattr(place_names, "_loaded", loaded)
    assert facets(store, name_of=cell_name).places == ()
    assert place_name(None, None) is None


def test_places_of_one_name_are_one_and_the_filter_finds_as_many(store: Store, make: Any) -> None:
    points = [LISBON, BELEM, SINTRA, (38.7203, -9.1601), GEYSIR, PACIFIC, (0.001, -150.001), None]
    ids = fill(store, make, points)
    places = facets(store, name_of=cell_name).places
    assert [(place.name, place.count) for place in places] == [
        ("Lisbon, Portugal", 3),
        (None, 2),  # one cluster, though far from everything
        ("Sintra, Portugal", 1),
        ("Iceland, away from towns", 1),
    ]
    lisbon = places[0]
    assert lisbon.id in (ids[0], ids[1], ids[3])
    assert lisbon.km > 3
    for place in places:
        if place.name is not None:
            assert browse(store, filters=Filters(place=place.name)).total == place.count
    assert browse(store, filters=Filters(place="portugal")).total == 4
    assert browse(store, filters=Filters(place=("LISB", "iceland"))).total == 4
    assert browse(store, filters=Filters(place="Atlantis")).total == 0
    narrowed = facets(store, filters=Filters(place="sintra"), name_of=cell_name)
    assert [place.name for place in narrowed.places] == ["Sintra, Portugal"]


@pytest.mark.parametrize("point", [LISBON, GEYSIR, (-33.85, 151.21), (0.0, 0.0), (-90.0, 180.0), (90, -180)])
def test_a_cell_as_one_number_is_taken_apart_again(
    store: Store, make: Any, point: tuple[float, float]
) -> None:
    from qvl_local.runtime.library.filters import CELL, CELLS_PER_DEGREE

    fill(store, make, [point])
    with store.reading() as connection:
        ((cell,),) = list(connection.execute(f"SELECT {CELL} FROM media m"))
    assert cell_key(cell) == (round(point[0] * CELLS_PER_DEGREE), round(point[1] * CELLS_PER_DEGREE))


def fill(store: Store, make: Any, points: Iterable[tuple[float, float] | None]) -> list[int]:
    folder, space = store.add_folder("/p"), store.space(make.identity())
    photos = []
    for number, point in enumerate(points):
        photo = make.photo(folder.id, f"{number}.jpg")
        latitude, longitude = point or (None, None)
        photos.append(replace(photo, info=replace(photo.info, latitude=latitude, longitude=longitude)))
    return list(store.write(photos, space))
