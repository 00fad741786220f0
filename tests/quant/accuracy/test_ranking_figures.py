"""Ranking figures, correlations and intervals against worked examples and plain, slow definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from qvl_local.quant.accuracy.bootstrap import Bootstrap, Estimate
from qvl_local.quant.accuracy.correlation import kendall, spearman
from qvl_local.quant.accuracy.metrics import METRICS, answers_of, first, overlap, per_question

Rows = NDArray[np.float64]


def figures(scores: list[float], grades: list[float]) -> dict[str, float]:
    order = first(np.array([scores]))
    return {name: float(values[0]) for name, values in per_question(order, np.array([grades])).items()}


def test_a_worked_example() -> None:
    # Ranked: grade 0, grade 2, grade 0, grade 1.
    found = figures([0.9, 0.8, 0.7, 0.6], [0, 2, 0, 1])
    gained = 2 / math.log2(3) + 1 / math.log2(5)
    best = 2 / math.log2(2) + 1 / math.log2(3)
    assert found == pytest.approx(
        {"recall@1": 0, "recall@5": 1, "recall@10": 1, "ndcg@10": gained / best, "mrr@10": 0.5}
    )


def test_the_best_order_scores_one_and_the_worst_nothing() -> None:
    scores = [float(-i) for i in range(20)]
    assert set(figures(scores, [3, 2, 1] + [0] * 17).values()) == {1.0}
    assert set(figures(scores, [0] * 19 + [1]).values()) == {0.0}


def test_more_answers_than_ten_can_still_be_perfect() -> None:
    assert figures([float(-i) for i in range(30)], [1] * 15 + [0] * 15)["ndcg@10"] == pytest.approx(1)


def test_figures_keep_the_questions_apart() -> None:
    scores = np.array([[0.9, 0.1], [0.9, 0.1]])
    grades = np.array([[1.0, 0.0], [0.0, 1.0]])
    values = per_question(first(scores), grades)
    assert tuple(values) == METRICS
    assert values["recall@1"].tolist() == [1, 0]
    assert values["mrr@10"].tolist() == [1, 0.5]


def test_ties_keep_the_order_of_the_documents() -> None:
    scores = np.tile([0.0, 1.0], 40)[None]
    assert first(scores, 80)[0].tolist() == [*range(1, 80, 2), *range(0, 80, 2)]


def test_overlap_and_answers_of_an_order() -> None:
    a, b = np.array([[0, 1, 2, 3]]), np.array([[3, 2, 7, 8]])
    assert overlap(a, b).tolist() == [0.5]
    assert answers_of(b, 9)[0].tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1]


def slow_kendall(a: Rows, b: Rows) -> float:
    i, j = np.triu_indices(len(a), 1)
    da, db = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    scale = math.sqrt(np.count_nonzero(da) * np.count_nonzero(db))
    return float((da * db).sum() / scale) if scale else math.nan


def slow_spearman(a: Rows, b: Rows) -> float:
    def ranks(values: Rows) -> Rows:
        return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    x, y = ranks(a), ranks(b)
    if x.std() == 0 or y.std() == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


TIED = arrays(np.float64, st.tuples(st.just(3), st.integers(2, 24)), elements=st.integers(-4, 4).map(float))


@given(TIED, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_correlations_agree_with_their_definitions_under_ties(a: Rows, seed: int) -> None:
    b = np.random.default_rng(seed).integers(-4, 5, a.shape).astype(np.float64)
    np.testing.assert_allclose(kendall(a, b), [slow_kendall(*rows) for rows in zip(a, b)], atol=1e-12)
    np.testing.assert_allclose(spearman(a, b), [slow_spearman(*rows) for rows in zip(a, b)], atol=1e-12)


def test_correlations_at_their_ends() -> None:
    rising = np.arange(100.0)[None]
    for measure in (kendall, spearman):
        assert measure(rising, 3 * rising + 1)[0] == pytest.approx(1)
        assert measure(rising, -rising)[0] == pytest.approx(-1)
        assert math.isnan(measure(rising, np.zeros_like(rising))[0])


def test_intervals_hold_what_they_should() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        values = generator.normal(0.3, 1.0, 80)
        estimate = Bootstrap([80], resamples=400).mean(values)
        assert estimate.low < estimate.value < estimate.high
        held += estimate.low <= 0.3 <= estimate.high
    # 95 % of 60 is 57; below 50 the interval would be wrong, not unlucky.
    assert held >= 50


def test_an_interval_is_as_wide_as_95_percent_are() -> None:
    values = np.random.default_rng(6).normal(0, 1, 400)
    estimate = Bootstrap([400]).mean(values)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    generator = np.random.default_rng(4)
    baseline = generator.random(100)
    values = baseline - 0.02 + generator.normal(0, 0.005, 100)
    draws = Bootstrap([60, 40])
    change = draws.difference(values, baseline)
    alone = draws.mean(values)
    assert change.value == pytest.approx(-0.02, abs=0.002)
    assert change.excludes_zero
    assert change.high - change.low < (alone.high - alone.low) / 10
    assert Bootstrap([60, 40]).difference(values, baseline) == change


def test_no_change_is_no_change() -> None:
    values = np.random.default_rng(5).random(30)
    change = Bootstrap([30]).difference(values, values)
    assert change == Estimate(0, 0, 0)
    assert not change.excludes_zero
