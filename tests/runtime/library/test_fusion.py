"""One order from two scores."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qvl_local.runtime.library.fusion import by_cosine, fuse, sigmoid, soft
from qvl_local.runtime.library.records import Candidate, MediaItem, Segment


def candidate(media_id: int, cosine: float) -> Candidate:
    item = MediaItem(
        media_id, f"/p/{media_id}.jpg", 1, f"{media_id}.jpg", 1, 1, b"", "indexed", None, "photo",
        1, 1, None, None, None, None, None,
    )  # fmt: skip
    return Candidate(item, Segment(media_id, media_id, 0, 0), cosine)


def ids(ranked: Any) -> list[int]:
    return [entry.candidate.item.id for entry in ranked]


def test_the_sum_decides() -> None:
    candidates = [candidate(1, 0.50), candidate(2, 0.45), candidate(3, 0.40), candidate(4, 0.30)]
    # 10 * cosine + logit: 4.0, 5.5, 3.0; the fourth was not judged.
    ranked = fuse(candidates, [-1.0, 1.0, -1.0], weight=10)
    assert ids(ranked) == [2, 1, 3, 4]
    assert [entry.probability for entry in ranked] == [sigmoid(1), sigmoid(-1), sigmoid(-1), None]
    assert ids(fuse(candidates, [-1.0, 1.0, -1.0], weight=0)) == [2, 1, 3, 4]
    assert ids(fuse(candidates, [-1.0, 1.0, -1.0], weight=1000)) == [1, 2, 3, 4]


def test_a_score_is_the_log_odds_shifted_by_the_cosine() -> None:
    lone = fuse([candidate(1, 0.5)], [0.7], weight=15)
    assert lone[0].score == pytest.approx(soft(0.7))
    above, below = fuse([candidate(1, 0.5), candidate(2, 0.3)], [0.0, 0.0], weight=10)
    assert (above.score, below.score) == (pytest.approx(soft(1)), pytest.approx(soft(-1)))


def test_the_scale_of_scores_never_fills_up() -> None:
    assert [soft(x) for x in (-4, 0, 4)] == [0.25, 0.5, 0.75]
    # What a weight of 40 brings for good hits: told apart by the two digits that people see.
    candidates = [candidate(number, 0.5 + number / 100) for number in range(5)]
    shown = [f"{entry.score:.2f}" for entry in fuse(candidates, [6.0, 7.0, 8.0, 9.0, 10.0], weight=40)]
    assert len(set(shown)) == 5


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_the_scale_of_scores_keeps_the_order(one: float, other: float) -> None:
    assert 0 < soft(one) < 1
    if one + 1e-6 < other:
        assert soft(one) < soft(other)


def test_an_item_that_could_not_be_judged_follows_the_judged() -> None:
    candidates = [candidate(1, 0.9), candidate(2, 0.8), candidate(3, 0.7)]
    ranked = fuse(candidates, [math.nan, -5.0, 3.0], weight=10)
    assert ids(ranked) == [3, 2, 1]
    assert ranked[2].probability is None
    assert ids(fuse(candidates, [math.nan] * 3, weight=10)) == [1, 2, 3]
    assert ids(fuse(candidates, [], weight=10)) == [1, 2, 3]


def test_without_a_reranker_the_cosine_is_the_score() -> None:
    ranked = by_cosine([candidate(1, 1.0), candidate(2, 0.0), candidate(3, -1.0)])
    assert [entry.score for entry in ranked] == [1.0, 0.5, 0.0]


cosines = st.floats(-1, 1)
logits = st.floats(-50, 50) | st.just(math.nan)


@given(
    pairs=st.lists(st.tuples(cosines, logits), max_size=12),
    rest=st.lists(cosines, max_size=6),
    weight=st.floats(0, 50),
)
def test_scores_fall_along_the_order(
    pairs: list[tuple[float, float]], rest: list[float], weight: float
) -> None:
    values = [cosine for cosine, _ in pairs] + sorted(rest, reverse=True)
    candidates = [candidate(number, cosine) for number, cosine in enumerate(values)]
    ranked = fuse(candidates, [logit for _, logit in pairs], weight=weight)
    assert sorted(ids(ranked)) == list(range(len(candidates)))
    judged = [entry for entry in ranked if entry.probability is not None]
    assert len(judged) == sum(not math.isnan(logit) for _, logit in pairs)
    assert ranked[: len(judged)] == tuple(judged)
    scores = [entry.score for entry in judged]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= entry.score <= 1 for entry in ranked)
    floor = scores[-1] if scores else 1.0
    assert all(entry.score <= floor for entry in ranked[len(judged) :])


def test_sigmoid_does_not_overflow() -> None:
    assert (sigmoid(-1000), sigmoid(0), sigmoid(1000)) == (0.0, 0.5, 1.0)
