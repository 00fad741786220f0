"""A library of a photographer who keeps raw files alone: indexed, searched, shown, and left alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from qvl_local.runtime import Library
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.previews import PREVIEWS
from qvl_local.runtime.library.records import Companion, FailedMedia, IndexedMedia, Space
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.model.raw_photo import NOT_INSTALLED

SETTINGS = IndexSettings(workers=WorkerSettings(1))
RED, BLUE = (200, 30, 30), (30, 30, 200)


def names(library: Library) -> list[str]:
    return sorted(item.name for item in library.browse().items)


def test_raw_files_are_photos_like_any_other(tmp_path: Path, media: Any, tiny_bundle: str) -> None:
    album = tmp_path / "album"
    media.raw(album / "a.DNG", RED, size=(1280, 960), place=(38.7167, -9.1333))
    media.raw(album / "b.dng", BLUE, preview=None)
    media.photo(album / "c.jpg")
    media.raw(album / "c.dng")
    media.raw(album / "broken.dng", preview=None)
    whole = (album / "broken.dng").read_bytes()
    (album / "broken.dng").write_bytes(whole[:2000])
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=SETTINGS) as library:
        report = library.index([album])
        assert [Path(failure.path).name for failure in report.failed] == ["broken.dng"]
        assert "damaged" in report.failed[0].error
        assert (report.items, report.photos) == (3, 3)
        assert names(library) == ["a.DNG", "b.dng", "c.jpg"]
        hit = library.similar(album / "a.DNG").hits[0]
        assert hit.kind == "photo"
        items = {item.name: item for item in library.browse().items}
        assert items["c.jpg"].companions == (Companion("raw", "c.dng"),)
        assert items["a.DNG"].companions == ()
        first = library.media(items["a.DNG"].id)
        assert first is not None
        assert (first.width, first.height, first.camera) == (1280, 960, "Maker D1")
        assert (first.latitude, first.longitude) == (pytest.approx(38.7167), pytest.approx(-9.1333))
        for side in (320, 640):
            thumbnail = library.thumbnail(first.id, side=side)
            assert thumbnail is not None
            with Image.open(BytesIO(thumbnail)) as shown:
                assert max(shown.size) == side
        # A closer look does not open the file in this process: what was kept of it must do.
        found = library.search("red", limit=5)
        assert all(hit.reranker_score is not None for hit in found.hits)
        again = library.index([album])
        assert (again.added, again.updated, again.unchanged) == (0, 0, 3)


def test_without_the_extra_they_are_left_alone_and_named(
    tmp_path: Path, media: Any, tiny_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    album = tmp_path / "album"
    media.photo(album / "c.jpg")
    for name in ("a.dng", "b.dng", "c.dng"):
        media.raw(album / name, preview=(640, 480))
    alone = [(str(album / name), NOT_INSTALLED) for name in ("a.dng", "b.dng")]
    noted: list[str] = []
    write = Store.write

    def written(self: Store, batch: Sequence[IndexedMedia | FailedMedia], space: Space) -> tuple[int, ...]:
        noted.extend(item.file.name for item in batch if isinstance(item, FailedMedia))
        return write(self, batch, space)

    monkeypatch.setattr(Store, "write", written)
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=SETTINGS) as library:
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, "rawpy", None)  # as if it was not installed
            for number in range(2):
                noted.clear()
                report = library.index([album])
                assert noted == ([] if number else ["a.dng", "b.dng"])  # once is enough
                assert [(failure.path, failure.error) for failure in report.failed] == alone
                assert [(failure.path, failure.error) for failure in library.failures()] == alone
                assert names(library) == ["c.jpg"]
            (album / "b.dng").unlink()
            assert [failure.path for failure in library.index([album]).failed] == [str(album / "a.dng")]
        # With the extra, the next run reads them.
        assert library.index([album]).failed == ()
        assert names(library) == ["a.dng", "c.jpg"]
        assert library.failures() == ()
        monkeypatch.setitem(sys.modules, "rawpy", None)
        report = library.index([album])
        assert (report.failed, report.unchanged) == ((), 2)  # what was read is kept


def test_the_process_that_serves_opens_no_raw_file(
    tmp_path: Path, media: Any, tiny_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.raw(tmp_path / "album" / "a.dng", size=(1280, 960))
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=SETTINGS) as library:
        library.index([tmp_path / "album"])
        (item,) = library.browse().items
        # Even without what was kept of it while indexing.
        (tmp_path / "library" / PREVIEWS).unlink()
    opened: list[object] = []
    for place in ("model.raw_photo", "model.image"):
        monkeypatch.setattr(f"qvl_local.runtime.{place}.read_raw", lambda *_, **__: opened.append(path))
    with Library.open(tmp_path / "library", model=tiny_bundle, create=False) as library:
        assert library.thumbnail(item.id, side=640) is None
        (hit,) = library.search("red").hits
        assert hit.reranker_score is None
        assert library.similar(path).hits == ()
    assert opened == []
