"""Searching with fewer dimensions than the library keeps: no index run, the cosines of the prefixes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qvl_local.runtime import Embedder, Library
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.searcher import QUERY_INSTRUCTION
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.model.bundle import MANIFEST
from qvl_local.runtime.world.demo import make_sample_library

QUERY = "two dogs on a beach"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str) -> Path:
    root = tmp_path_factory.mktemp("narrow")
    make_sample_library(root / "media", photos=10, clips=0, seed=11)
    with Library.open(
        root / "library", model=tiny_bundle, settings=IndexSettings(WorkerSettings(1))
    ) as library:
        library.index([root / "media"])
    return root


@pytest.fixture
def library(place: Path) -> Iterator[Library]:
    with Library.open(place / "library", create=False) as opened:
        yield opened


@pytest.mark.parametrize("dims", [64, 32])
def test_the_cosines_are_those_of_the_prefixes(library: Library, tiny_bundle: str, dims: int) -> None:
    found = library.search(QUERY, limit=10, rerank=False, dims=dims)
    embedder = Embedder.open(tiny_bundle)
    (asked,) = embedder.embed([{"text": QUERY, "instruction": QUERY_INSTRUCTION}], dims=dims)
    photos = embedder.embed([{"image": hit.path} for hit in found.hits], dims=dims)
    # Stored vectors are int8, and the library shrinks large photos in a cheaper way.
    np.testing.assert_allclose([hit.embedding_score for hit in found.hits], photos @ asked, atol=0.02)


def test_fewer_dimensions_change_the_cosines_and_can_be_undone(library: Library) -> None:
    def scores(dims: int | None) -> list[float]:
        return [hit.embedding_score for hit in library.search(QUERY, rerank=False, dims=dims).hits]

    wide = scores(None)
    assert scores(16) != pytest.approx(wide, abs=1e-4)
    assert scores(256) == wide


def test_reranking_works_on_the_narrow_order(library: Library) -> None:
    found = library.search(QUERY, limit=5, rerank_top=3, dims=32)
    assert [hit.reranker_score is not None for hit in found.hits] == [True] * 3 + [False] * 2


def test_similar_compares_prefixes_too(library: Library, place: Path) -> None:
    photo = library.search(QUERY, limit=1).hits[0].path
    wide = library.similar(photo).hits
    narrow = library.similar(photo, dims=32).hits
    assert {hit.path for hit in wide} == {hit.path for hit in narrow}
    assert [hit.score for hit in wide] != [hit.score for hit in narrow]
    assert photo not in {hit.path for hit in narrow}


@pytest.mark.parametrize("dims", [0, 257, -8])
def test_widths_that_the_model_does_not_have(library: Library, dims: int) -> None:
    photo = library.search(QUERY, limit=1, rerank=False).hits[0].path
    for ask in (lambda: library.search(QUERY, dims=dims), lambda: library.similar(photo, dims=dims)):
        with pytest.raises(InputError, match="256"):
            ask()


def test_a_bundle_that_serves_fewer_dimensions_is_searched_at_full_width_unless_told(
    place: Path, tiny_bundle: str, tmp_path: Path
) -> None:
    narrow = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, narrow)
    manifest = json.loads((narrow / MANIFEST).read_text(encoding="utf-8"))
    manifest["parts"]["embedder"]["dims"] = 64
    (narrow / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with (
        Library.open(place / "library", model=narrow, create=False) as cut,
        Library.open(place / "library", create=False) as whole,
    ):
        for dims in (None, 64):
            expected = whole.search(QUERY, rerank=False, dims=dims)
            assert cut.search(QUERY, rerank=False, dims=dims).hits == expected.hits
