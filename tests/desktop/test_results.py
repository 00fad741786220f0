"""What is said of a search that finds nothing: only what is so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qvl_local.desktop.results import why_nothing
from qvl_local.runtime import Library
from qvl_local.runtime.library.records import (
    EncodedSegment,
    FailedMedia,
    Filters,
    FoundFile,
    IndexedMedia,
    MediaInfo,
    SearchResult,
    SpaceIdentity,
)
from qvl_local.runtime.library.store import Store

NOTHING = SearchResult("two dogs", ())
PASSES = "Nothing in the library passes these filters."


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Photos of a folder that is gone from disk, a single file, a torn file; all without any model."""
    vector = np.eye(8, dtype=np.float32)[0]
    for name in ("gone", "singles/below", "whole/torn"):
        (tmp_path / name).mkdir(parents=True)
    with Store.open(tmp_path / "library", mode="write") as store:
        space = store.space(SpaceIdentity("tiny", "r1", "fp32", 8, "pixels", "template"))
        gone = store.add_folder(str(tmp_path / "gone"))
        singles = store.add_folder(str(tmp_path / "singles"), is_whole=False)
        whole = store.add_folder(str(tmp_path / "whole"))
        items: list[IndexedMedia | FailedMedia] = [
            IndexedMedia(
                FoundFile(folder.id, name, 1, 1),
                name.encode(),
                MediaInfo("photo", 4, 3),
                (EncodedSegment(0, 0, vector),),
            )
            for folder, name in ((gone, "a/1.jpg"), (gone, "2.jpg"), (singles, "below/3.jpg"))
        ]
        torn = FailedMedia(FoundFile(whole.id, "torn/4.jpg", 1, 1), b"4", "truncated")
        store.write([*items, torn], space)
    shutil.rmtree(tmp_path / "gone")
    with Library.open(tmp_path / "library", create=False) as library:
        yield library


@pytest.mark.parametrize(
    "under", ["gone", "gone/a", "gone/2.jpg", "singles", "singles/below", "whole/torn", ""]
)
def test_where_something_is_known_the_other_filters_are_to_blame(
    library: Library, tmp_path: Path, under: str
) -> None:
    assert library.knows(tmp_path / under)
    assert why_nothing(library, NOTHING, Filters(under=str(tmp_path / under), kind="video")) == PASSES


def test_a_place_that_nobody_indexed(library: Library, tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    for name in ("strange", "singles/other"):
        (tmp_path / name).mkdir(exist_ok=True)
        assert not library.knows(tmp_path / name)
        told = why_nothing(library, NOTHING, Filters(under=str(tmp_path / name)))
        assert told.startswith(f"--under {tmp_path / name}: lies in none of the indexed folders")


def test_a_place_that_is_not_there(library: Library, tmp_path: Path) -> None:
    for name in ("nowhere", "gone/b"):
        told = why_nothing(library, NOTHING, Filters(under=str(tmp_path / name), kind="video"))
        assert told == f"--under {tmp_path / name}: no such folder, and the library knows nothing there."


def test_an_indexed_folder_with_nothing_in_it(library: Library, tmp_path: Path) -> None:
    (tmp_path / "whole" / "bare").mkdir()
    assert why_nothing(library, NOTHING, Filters(under=str(tmp_path / "whole" / "bare"))) == PASSES
