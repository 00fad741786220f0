"""Pictures at the size that is asked for: of files, of kept frames, kept for the next time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime import Library
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.previews import PREVIEWS, Preview, Previews
from qvl_local.runtime.library.workers import WorkerSettings


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, media: Any, tiny_bundle: str) -> tuple[Path, Path]:
    """Where an album and its library lie, and a copy of both as they were when it was indexed."""
    root = tmp_path_factory.mktemp("renditions")
    here, album = root / "here", root / "here" / "album"
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    media.photo(album / "large.jpg", size=(1600, 1200), exif=exif)
    media.photo(album / "large.heic", size=(1024, 768))
    media.photo(album / "small.png", size=(200, 100))
    red_then_blue = (((220, 30, 30), 3.0), ((30, 30, 220), 3.0))
    media.video(album / "film.mp4", red_then_blue, size=(640, 360))
    settings = IndexSettings(workers=WorkerSettings(2))
    with Library.open(here / "library", model=tiny_bundle, settings=settings) as library:
        report = library.index([album])
        assert (report.items, report.failed) == (4, ())
    shutil.copytree(here, root / "kept")
    return here, root / "kept"


@pytest.fixture
def library(indexed: tuple[Path, Path]) -> Iterator[Library]:
    here, kept = indexed
    shutil.rmtree(here)
    shutil.copytree(kept, here)
    with Library.open(here / "library", create=False) as library:
        yield library


def ids(library: Library) -> dict[str, int]:
    return {item.name: item.id for item in library.browse().items}


def opened(jpeg: bytes | None) -> Image.Image:
    assert jpeg is not None
    return Image.open(BytesIO(jpeg)).convert("RGB")


def kept(library: Library) -> int:
    connection = apsw.Connection(str(library.path / PREVIEWS))
    (count,) = connection.execute("SELECT count(*) FROM rendition").fetchall()[0]
    connection.close()
    return int(count)


def test_large_pictures_are_made_of_the_file_once(library: Library) -> None:
    known = ids(library)
    assert opened(library.thumbnail(known["large.jpg"])).size == (240, 320)
    assert opened(library.thumbnail(known["large.jpg"], side=640)).size == (480, 640)
    assert opened(library.thumbnail(known["large.heic"], side=640)).size == (640, 480)
    # Nothing larger is to be had of it.
    assert library.thumbnail(known["small.png"], side=640) == library.thumbnail(known["small.png"])
    assert opened(library.thumbnail(known["small.png"], side=640)).size == (200, 100)
    # Of a slow format the larger one was made while indexing.
    assert opened(library.thumbnail(known["large.heic"])).size == (320, 240)
    assert kept(library) == 1
    before = library.thumbnail(known["large.jpg"], side=640)
    item = library.media(known["large.jpg"])
    assert item is not None
    Path(item.path).unlink()
    assert library.thumbnail(known["large.jpg"], side=640) == before
    assert library.thumbnail(10_000, side=640) is None


def test_a_file_that_changed_or_is_away_is_shown_by_its_thumbnail(library: Library) -> None:
    known = ids(library)
    item = library.media(known["large.jpg"])
    assert item is not None
    status = Path(item.path).stat()
    Image.new("RGB", (1600, 1200), (0, 255, 0)).save(item.path)
    shown = opened(library.thumbnail(known["large.jpg"], side=640))
    assert shown.size == (240, 320)
    assert np.asarray(shown)[..., 0].mean() > 100  # the red one that was indexed
    os.utime(item.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    Path(item.path).unlink()
    assert opened(library.thumbnail(known["large.jpg"], side=640)).size == (240, 320)
    assert kept(library) == 0


def test_a_moment_of_a_video_is_its_nearest_frame(library: Library) -> None:
    film = ids(library)["film.mp4"]
    early = np.asarray(opened(library.thumbnail(film, side=640, t0_ms=500)), float).mean(axis=(0, 1))
    late = np.asarray(opened(library.thumbnail(film, side=640, t0_ms=4000)), float).mean(axis=(0, 1))
    assert early[0] > 150 > late[0]
    assert late[2] > 150 > early[2]
    for t0_ms in (0, 10**12):
        assert opened(library.thumbnail(film, t0_ms=t0_ms)).width <= 320
    assert opened(library.thumbnail(film, side=640)).width >= 320


def test_previews_that_were_deleted_are_made_again_of_the_files(library: Library) -> None:
    known = ids(library)
    for file in library.path.glob(f"{PREVIEWS}*"):
        file.unlink()
    assert opened(library.thumbnail(known["large.jpg"])).size == (240, 320)
    assert kept(library) == 1
    assert opened(library.thumbnail(known["large.jpg"])).size == (240, 320)
    assert library.thumbnail(known["film.mp4"]) is None


def test_a_cache_of_an_older_version_goes_on(tmp_path: Path) -> None:
    with Previews.open(tmp_path, mode="write") as previews:
        previews.write([Preview(b"1", b"jpeg")])
    connection = apsw.Connection(str(tmp_path / PREVIEWS))
    connection.execute("DROP TABLE rendition; DROP TABLE fingerprint")
    connection.close()
    with Previews.open(tmp_path) as previews:
        assert (previews.rendition(b"1", None, 640), previews.fingerprints(1)) == (None, {})
    with Previews.open(tmp_path, mode="write") as previews:
        assert previews.thumbnail(b"1") == b"jpeg"
        previews.keep_rendition(b"1", None, 640, b"large")
        previews.keep_fingerprints(1, {b"1": b"print"})
        assert (previews.rendition(b"1", None, 640), previews.fingerprints(1)) == (b"large", {b"1": b"print"})
        assert previews.fingerprints(2) == {}
        previews.keep_only([])
        assert (previews.rendition(b"1", None, 640), previews.fingerprints(1)) == (None, {})


def test_only_so_many_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvl_local.runtime.library.previews.MOST_RENDITIONS", 3)
    with Previews.open(tmp_path, mode="write") as previews:
        for number in range(5):
            previews.keep_rendition(bytes([number]), None, 640, b"x")
        assert [previews.rendition(bytes([n]), None, 640) for n in range(5)] == [None, None, b"x", b"x", b"x"]
