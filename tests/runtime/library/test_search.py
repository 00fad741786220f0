"""The two steps of a search, on a real library."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.records import Candidate, Filters
from qvl_local.runtime.library.search import find, rerank
from qvl_local.runtime.library.store import Store


@pytest.fixture
def pictures(store: Store, make: Any) -> tuple[Store, NDArray[np.float32]]:
    """Nine photos 0.jpg to 8.jpg at falling cosines to the query, and a video between 2 and 3."""
    folder, space = store.add_folder("/pictures"), store.space(make.identity())
    query, other = np.eye(64, dtype=np.float32)[:2]
    rows = [
        (cosine * query + np.sqrt(1 - cosine**2) * other).astype(np.float32)
        for cosine in np.linspace(0.8, 0.0, 9)
    ]
    between = (0.55 * query + np.sqrt(1 - 0.55**2) * other).astype(np.float32)
    store.write(
        [
            *(
                make.photo(folder.id, f"{n}.jpg", row, taken_at=datetime(2020 + n, 1, 1))
                for n, row in enumerate(rows)
            ),
            make.video(folder.id, "v.mp4", [other, between, -query]),
        ],
        space,
    )
    return store, query


def names(result: Any) -> list[str]:
    return [hit.path.rsplit("/", 1)[1] for hit in result.hits]


def test_the_fast_step_is_the_order_of_cosines(pictures: Any) -> None:
    store, query = pictures
    result = find(store, query, limit=4, query="dogs", timings_ms={"embed": 1.5}).result()
    assert names(result) == ["0.jpg", "1.jpg", "2.jpg", "v.mp4"]
    assert [hit.rank for hit in result.hits] == [1, 2, 3, 4]
    assert result.query == "dogs"
    assert result.timings_ms["embed"] == 1.5
    assert result.timings_ms["search"] > 0
    photo, video = result.hits[0], result.hits[3]
    assert photo.embedding_score == pytest.approx(0.8, abs=0.01)
    assert photo.score == pytest.approx(0.9, abs=0.01)
    assert (photo.kind, photo.start_s, photo.end_s, photo.reranker_score) == ("photo", None, None, None)
    assert (photo.taken_at, photo.width, photo.height) == (datetime(2020, 1, 1), 4000, 3000)
    assert (video.kind, video.start_s, video.end_s) == ("video", 2.0, 4.0)


def test_the_second_step_reorders_the_top_and_keeps_the_rest(pictures: Any) -> None:
    store, query = pictures
    asked: list[list[str]] = []

    def judge(candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        asked.append([candidate.item.name for candidate in candidates])
        return np.array([-3.0, np.nan, 2.0], np.float32)

    found = find(store, query, limit=5, top=3)
    result = rerank(found, judge, weight=1.0)
    assert asked == [["0.jpg", "1.jpg", "2.jpg"]]
    assert names(result) == ["2.jpg", "0.jpg", "1.jpg", "v.mp4", "3.jpg"]
    assert [hit.rank for hit in result.hits] == [1, 2, 3, 4, 5]
    assert [hit.reranker_score is None for hit in result.hits] == [False, False, True, True, True]
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert set(result.timings_ms) == {"search", "rerank"}
    assert names(found.result()) == ["0.jpg", "1.jpg", "2.jpg", "v.mp4", "3.jpg"]


def test_more_are_judged_than_shown(pictures: Any) -> None:
    store, query = pictures
    result = rerank(
        find(store, query, limit=1, top=8), lambda c: np.arange(len(c), dtype=np.float32), weight=0.0
    )
    assert names(result) == ["6.jpg"]


def test_filters_and_exclusion_reach_the_search(pictures: Any) -> None:
    store, query = pictures
    first = store.nearest(query, limit=1)[0].item.id
    assert names(find(store, query, limit=2, exclude=first).result()) == ["1.jpg", "2.jpg"]
    assert names(find(store, query, filters=Filters(kind="video")).result()) == ["v.mp4"]
    assert names(find(store, query, limit=1, filters=Filters(after=datetime(2024, 1, 1))).result()) == [
        "4.jpg"
    ]


def test_nothing_found_is_an_empty_result(pictures: Any) -> None:
    store, query = pictures
    found = find(store, query, filters=Filters(camera="leica"))
    assert found.result().hits == ()
    assert rerank(found, lambda c: np.empty(0, np.float32), weight=1.0).hits == ()


def test_wrong_numbers_are_refused(pictures: Any) -> None:
    store, query = pictures
    with pytest.raises(InputError, match="at least 1"):
        find(store, query, limit=0)
    with pytest.raises(InputError, match="2"):
        rerank(find(store, query, top=3), lambda c: np.zeros(2, np.float32), weight=1.0)
