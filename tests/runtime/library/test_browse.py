"""Browsing and counting agree with each other and with the items themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.browse import browse, entries
from qvl_local.runtime.library.facets import facets
from qvl_local.runtime.library.folder_keys import folder_key, parse_folder_key
from qvl_local.runtime.library.moments import moments
from qvl_local.runtime.library.records import Filters, MediaItem
from qvl_local.runtime.library.store import Store

TOPS = ("", "2023", "2024 trip", "x\udcff", "é")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, maker: Any) -> Any:
    make, rng = maker(), np.random.default_rng(3)
    with Store.open(tmp_path_factory.mktemp("browse") / "library", mode="write") as store:
        space, batch = store.space(make.identity()), []
        for root in ("/pictures", "/more pictures"):
            folder = store.add_folder(root)
            for number in range(60):
                top = TOPS[int(rng.integers(len(TOPS)))]
                name = f"{top}/deep/{number}.jpg" if top else f"{number}.jpg"
                date = (
                    None
                    if rng.random() < 0.2
                    else datetime(2023, 1, 1) + timedelta(days=int(rng.integers(500)))
                )
                camera = (None, "Canon EOS R", "NIKON D750")[int(rng.integers(3))]
                item = (
                    make.video(folder.id, name, make.vectors(2))
                    if number % 5 == 0
                    else make.photo(folder.id, name)
                )
                batch.append(replace(item, info=replace(item.info, taken_at=date, camera=camera)))
            batch.append(make.failed(folder.id, "broken.jpg"))
        ids = store.write(batch, space)
        items = [item for item in map(store.media, ids) if item is not None and item.state == "indexed"]
        yield store, items


FILTERS = (
    None,
    Filters(kind="video"),
    Filters(after=datetime(2023, 6, 1)),
    Filters(camera=("canon", "nikon")),
    Filters(under="/pictures/2023"),
    Filters(folders=("1", folder_key(2, "2024 trip"), folder_key(2, "x\udcff"))),
    Filters(kind="photo", folders=("2",), before=datetime(2023, 6, 1)),
    Filters(folders=("99",)),
)


def passes(item: MediaItem, filters: Filters | None) -> bool:
    if filters is None:
        return True
    top = item.name.partition("/")[0] if "/" in item.name else ""
    cameras = (filters.camera,) if isinstance(filters.camera, str) else filters.camera
    wanted = [parse_folder_key(key) for key in filters.folders]
    return (
        filters.kind in (None, item.kind)
        and (filters.after is None or (item.taken_at is not None and item.taken_at >= filters.after))
        and (filters.before is None or (item.taken_at is not None and item.taken_at < filters.before))
        and (cameras is None or any(name in (item.camera or "").casefold() for name in cameras))
        and (filters.under is None or item.path.startswith(f"{filters.under}/"))
        and (not wanted or any(root == item.folder_id and name in ("", top) for root, name in wanted))
    )


@pytest.mark.parametrize("filters", FILTERS)
def test_pages_put_together_are_the_items_in_order(shelf: Any, filters: Filters | None) -> None:
    store, items = shelf
    expected = [item for item in items if passes(item, filters)]
    for order, sign in (("newest", -1), ("oldest", 1)):
        pages = [browse(store, order=order, offset=at, limit=7, filters=filters) for at in range(0, 140, 7)]
        assert {page.total for page in pages} == {len(expected)}
        listed = [item for page in pages for item in page.items]
        assert sorted(item.id for item in listed) == sorted(item.id for item in expected)
        keys = [
            (item.taken_at is None, sign * (item.taken_at or datetime.min).toordinal()) for item in listed
        ]
        assert keys == sorted(keys)


@pytest.mark.parametrize("filters", FILTERS)
def test_facets_count_the_same_items(shelf: Any, filters: Filters | None) -> None:
    store, items = shelf
    expected = [item for item in items if passes(item, filters)]
    found = facets(store, filters=filters)
    assert (found.total, found.photos + found.videos) == (len(expected), len(expected))
    assert found.videos == sum(item.kind == "video" for item in expected)
    assert dict(found.months) == Counter(f"{item.taken_at:%Y-%m}" for item in expected if item.taken_at)
    assert [month for month, _ in found.months] == sorted(month for month, _ in found.months)
    assert found.undated == sum(item.taken_at is None for item in expected)
    assert dict(found.cameras) == Counter(item.camera for item in expected if item.camera)
    for folder in found.folders:
        below = [item for item in expected if item.path.startswith(f"{folder.path}/")]
        assert folder.count == len(below)
        assert (
            browse(store, filters=replace(filters or Filters(), folders=(folder.key,))).total >= folder.count
        )
    assert sum(folder.count for folder in found.folders if folder.is_root) == len(expected)


def test_facets_follow_the_library(store: Store, make: Any) -> None:
    folder, space = store.add_folder("/p"), store.space(make.identity())
    assert facets(store).total == 0
    (first, _) = store.write([make.photo(folder.id, "a.jpg"), make.photo(folder.id, "b.jpg")], space)
    assert facets(store).total == 2
    with Store.open(store.folder) as reader:
        assert facets(reader) is facets(reader)
        store.remove([first])
        assert facets(reader).total == 1


def test_what_makes_no_sense_is_refused(store: Store) -> None:
    for asked in ({"order": "random"}, {"offset": -1}, {"limit": -1}):
        with pytest.raises(InputError):
            browse(store, **asked)  # type: ignore[arg-type]


def test_entries_come_in_the_order_that_was_asked_for(shelf: Any) -> None:
    store, items = shelf
    wanted = [items[at].id for at in (5, 2, 9)]
    assert [entry.id for entry in entries(store, [*wanted, 10_000])] == wanted


@pytest.mark.parametrize(
    "key", ["", "x", "1.", ".x", "1.=", "1.%", "-1", "1.AA.BB", "1." + "A" * 9000, "1.AA", "²"]
)
def test_a_key_that_was_made_up_is_refused_or_finds_nothing(store: Store, key: str) -> None:
    try:
        assert browse(store, filters=Filters(folders=(key,))).total == 0
    except InputError as error:
        assert "folder" in str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize("name", ["", "2024", "a b/c", "é\u2028", "x\udcff", "."])
def test_keys_keep_every_name(name: str) -> None:
    key = folder_key(7, name)
    assert parse_folder_key(key) == (7, name)
    assert key.isascii()


def test_moments_are_the_cosines_of_the_segments(store: Store, make: Any) -> None:
    folder, space = store.add_folder("/p"), store.space(make.identity())
    vectors = make.vectors(4)
    (media_id,) = store.write([make.video(folder.id, "a.mp4", vectors)], space)
    query = make.vectors(1)[0]
    for dims in (64, 16):
        found = moments(store, media_id, 3 * query[:dims])
        exact = vectors[:, :dims] @ query[:dims]
        exact /= np.linalg.norm(vectors[:, :dims], axis=1) * np.linalg.norm(query[:dims])
        assert [moment.score for moment in found] == pytest.approx(exact.tolist(), abs=0.02)
        assert [(moment.start_s, moment.end_s) for moment in found] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert moments(store, 10_000, query) == ()
    for wrong in (np.zeros(64, np.float32), np.full(64, np.nan, np.float32), np.ones(65, np.float32)):
        with pytest.raises(InputError):
            moments(store, media_id, wrong)
