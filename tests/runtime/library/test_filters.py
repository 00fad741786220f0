"""Filters choose the candidates before the search, and exactly the right ones."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.records import Filters, IndexedMedia, MediaItem
from qvl_local.runtime.library.store import Store

ROOTS = ("/pictures", "/pictures more", "/home/me/videos")
NAMES = (
    "a.jpg",
    "2024/a.jpg",
    "2024/b.jpg",
    "2024/trip/a.jpg",
    "2024 x/a.jpg",
    "2024.jpg",
    "x\udcff/a.jpg",
    "é/a.jpg",
)
CAMERAS = (None, "NIKON D750", "Nikon Z 6", "Canon EOS R", "ÉCLAIR Caméra", "100%_real")
DATES = (None, *(datetime(year, month, 1, 12) for year in (2022, 2023, 2024) for month in (1, 7)))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, maker: Any) -> Any:
    """A library in which every combination of attributes occurs, and its items."""
    rng = np.random.default_rng(5)
    make = maker()
    home = tmp_path_factory.mktemp("mixed") / "library"
    with Store.open(home, mode="write") as store:
        space = store.space(make.identity())
        batch: list[IndexedMedia] = []
        for root in ROOTS:
            folder = store.add_folder(root)
            for number, name in enumerate(NAMES * 6):
                path = f"{number}/{name}" if number >= len(NAMES) else name
                date, camera = DATES[rng.integers(len(DATES))], CAMERAS[rng.integers(len(CAMERAS))]
                if rng.random() < 0.3:
                    media = make.video(folder.id, path, make.vectors(3), taken_at=date)
                    media = replace(media, info=replace(media.info, camera=camera))
                else:
                    media = make.photo(folder.id, path, taken_at=date, camera=camera)
                batch.append(media)
        ids = store.write(batch, space)
        items = [store.media(media_id) for media_id in ids]
        vectors = [store.vectors(media_id) for media_id in ids]
    store = Store.open(home)
    yield store, items, vectors
    store.close()


def matches(item: MediaItem, filters: Filters) -> bool:
    """The definition, word by word, without SQL."""
    if filters.kind is not None and item.kind != filters.kind:
        return False
    if filters.after is not None and (item.taken_at is None or item.taken_at < filters.after):
        return False
    if filters.before is not None and (item.taken_at is None or item.taken_at >= filters.before):
        return False
    if filters.camera is not None and filters.camera.casefold() not in (item.camera or "").casefold():
        return False
    if filters.under is None:
        return True
    under = os.path.normpath(filters.under)
    return item.path == under or item.path.startswith(under.rstrip(os.sep) + os.sep)


FILTERS = st.builds(
    Filters,
    kind=st.sampled_from([None, "photo", "video"]),
    after=st.sampled_from([None, *DATES[1:]]),
    before=st.sampled_from([None, *DATES[1:]]),
    camera=st.sampled_from([None, "nikon", "NIKON D", "éclair", "%", "_", "100%_", "leica"]),
    under=st.sampled_from(
        [
            None,
            "/",
            "/pictures",
            "/pictures/",
            "/pictures more/2024",
            "/pictures/2024",
            "/pictures/2024/../2024/trip",
            "/pictures/x\udcff",
            "/pictures/é",
            "/pictures/2024.jpg",
            "/pict",
            "/home",
            "/home/me/videos/7",
            "/elsewhere",
        ]
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=FILTERS, seed=st.integers(0, 10), limit=st.sampled_from([1, 3, 1000]))
def test_a_filtered_search_is_the_brute_force_one(
    mixed: Any, filters: Filters, seed: int, limit: int
) -> None:
    store, items, vectors = mixed
    query = np.random.default_rng(seed).standard_normal(64).astype(np.float32)
    query /= np.linalg.norm(query)
    expected = sorted(
        (
            (-float(np.max(rows @ query / np.linalg.norm(rows, axis=1))), item.id)
            for item, rows in zip(items, vectors, strict=True)
            if matches(item, filters)
        )
    )[:limit]
    found = store.nearest(query, limit=limit, filters=filters)
    assert [candidate.item.id for candidate in found] == [media_id for _, media_id in expected]
    assert [candidate.cosine for candidate in found] == pytest.approx([-c for c, _ in expected], abs=1e-5)


def test_the_examples_are_not_all_empty(mixed: Any) -> None:
    _, items, _ = mixed
    for filters in (
        Filters(kind="video", camera="nikon"),
        Filters(under="/pictures/x\udcff"),
        Filters(after=datetime(2023, 7, 1, 12), before=datetime(2024, 1, 1, 12)),
        Filters(camera="100%_"),
        Filters(under="/pictures/2024.jpg"),
    ):
        matching = sum(matches(item, filters) for item in items)
        assert 0 < matching < len(items)


def test_an_item_without_a_date_never_matches_one(mixed: Any) -> None:
    store, _, _ = mixed
    found = store.nearest(np.ones(64, np.float32), limit=1000, filters=Filters(after=datetime(1, 1, 1)))
    assert found
    assert all(candidate.item.taken_at is not None for candidate in found)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(kind="poem"), "poem"),  # type: ignore[arg-type]
        (Filters(under="pictures"), "absolute path"),
        (Filters(after=datetime(2024, 1, 1, tzinfo=UTC)), "time zone"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(mixed: Any, filters: Filters, message: str) -> None:
    store, _, _ = mixed
    with pytest.raises(InputError, match=message):
        store.nearest(np.ones(64, np.float32), limit=1, filters=filters)
