"""Channel smoothing as arithmetic: nothing changes exactly, rounding gets better."""

from __future__ import annotations

import numpy as np
import pytest
from qvl_local.quant import int8, smoothing


def rounded(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    return int8.product(x, int8.quantize_weight(weight))


def with_outliers(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((64, 256), np.float32)
    weight = generator.standard_normal((48, 256), np.float32)
    x[:, [3, 77, 200]] *= 80
    weight[:, [3, 77, 200]] /= 40
    return weight, x


def candidates(weight: np.ndarray, x: np.ndarray) -> list[tuple[float, np.ndarray]]:
    absmax, largest = np.abs(x).max(axis=0), np.abs(weight).max(axis=0)
    return [
        (strength, smoothing.outlier_divisor(absmax, largest, strength))
        for strength in smoothing.OUTLIER_STRENGTHS
    ]


def test_dividing_and_multiplying_changes_nothing() -> None:
    weight, x = with_outliers()
    for _, divisor in candidates(weight, x):
        assert np.allclose((x / divisor) @ (weight * divisor).T, x @ weight.T, rtol=1e-3, atol=1e-3)


def test_outlier_channels_are_smoothed() -> None:
    weight, x = with_outliers()
    choice = smoothing.choose([weight], x, candidates(weight, x), rounded)
    assert choice.divisor is not None
    assert choice.error < choice.plain_error / 4
    assert set(np.argsort(choice.divisor)[-3:]) == {3, 77, 200}


def test_even_channels_are_left_alone() -> None:
    generator = np.random.default_rng(1)
    weight, x = (
        generator.standard_normal((48, 256), np.float32),
        generator.standard_normal((64, 256), np.float32),
    )
    choice = smoothing.choose([weight], x, candidates(weight, x), rounded)
    assert choice.divisor is None
    assert choice.error == choice.plain_error


def test_the_best_candidate_is_chosen() -> None:
    weight, x = with_outliers()
    given = candidates(weight, x)
    alone = [smoothing.choose([weight], x, [one], rounded).error for one in given]
    best = int(np.argmin(alone))
    for order in (given, given[::-1]):
        choice = smoothing.choose([weight], x, order, rounded)
        assert (choice.strength, choice.error) == (given[best][0], alone[best])


def test_a_divisor_weighs_inputs_against_weights() -> None:
    divisor = smoothing.outlier_divisor(np.array([1, 100], np.float32), np.array([1, 4], np.float32), 0.75)
    assert divisor[1] / divisor[0] == pytest.approx(100**0.75 / 4**0.25, rel=1e-5)


def test_divisors_lie_around_one_and_within_reach_of_float16() -> None:
    seen = np.geomspace(1, 1e3, 64).astype(np.float32)
    divisor = smoothing.outlier_divisor(seen, np.ones(64, np.float32), 0.8)
    assert np.exp(np.log(divisor).mean()) == pytest.approx(1, rel=1e-3)
    seen[:2] = 1e-30, 1e30
    extreme = smoothing.outlier_divisor(seen, np.ones(64, np.float32), 0.8)
    assert np.isfinite((1 / extreme).astype(np.float16)).all()
    assert (extreme.astype(np.float16) > 0).all()


def test_a_channel_that_was_never_seen_keeps_its_size() -> None:
    absmax = np.array([0, 1, 100, 1], np.float32)
    divisor = smoothing.outlier_divisor(absmax, np.ones(4, np.float32), 0.5)
    assert divisor[0] == 1
    assert np.isfinite(divisor).all()
