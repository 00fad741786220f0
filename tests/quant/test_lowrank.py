"""Differences of two matrices: the rank that is found, what it leaves, and when there is none."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.quant.lowrank import (
    FRACTION_BITS,
    LowRank,
    NotLowRank,
    Rounding,
    factorise,
    rounding_noise,
)

Floats = NDArray[np.float32]
STORAGE = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def normal(*shape: int, seed: int, scale: float = 1.0) -> Floats:
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return values * np.float32(scale)


def rounded(matrix: Floats, dtype: str) -> Floats:
    return matrix.astype(STORAGE[dtype]).astype(np.float32)


def reader(matrix: Floats) -> Callable[[slice], Floats]:
    return lambda rows: matrix[rows]


def found(base: Floats, target: Floats, *, dtype: str, limit: int = 64) -> LowRank | NotLowRank:
    bits = FRACTION_BITS[dtype]
    return factorise(
        reader(base),
        reader(target),
        (base.shape[0], base.shape[1]),
        rounding=Rounding(bits, bits),
        limit=limit,
    )


def fine_tunes(rows: int, columns: int, rank: int, dtype: str, *, size: float) -> tuple[Floats, Floats]:
    """Two merged LoRA fine-tunes of one random matrix, rounded to `dtype`."""
    origin = normal(rows, columns, seed=0, scale=columns**-0.5)
    pair = []
    for seed in (1, 2):
        update = normal(rows, rank, seed=seed) @ normal(rank, columns, seed=seed + 10)
        update *= size * np.linalg.norm(origin) / np.linalg.norm(update)
        pair.append(rounded(origin + update, dtype))
    return pair[0], pair[1]


@pytest.mark.parametrize(("rows", "columns"), [(256, 640), (640, 256), (128, 256)])
@pytest.mark.parametrize("dtype", list(STORAGE))
def test_two_lora_updates_are_found_whole(rows: int, columns: int, dtype: str) -> None:
    one, other = fine_tunes(rows, columns, 8, dtype, size=0.2)
    result = found(one, other, dtype=dtype)
    assert isinstance(result, LowRank)
    assert result.rank == 16
    assert result.down.shape == (columns, 16)
    assert result.up.shape == (16, rows)
    assert result.down.dtype == result.up.dtype == np.float16
    # What is left is about the rounding of the two sides and of the factors themselves.
    assert result.error < 1.1 * result.noise + 2e-3 * result.difference
    product = (result.down.astype(np.float32) @ result.up.astype(np.float32)).T
    left = np.linalg.norm(other - one - product) / np.linalg.norm(other)
    assert result.error == pytest.approx(left, rel=1e-3)


def test_a_wide_difference_is_found_in_a_wider_sketch() -> None:
    one, other = fine_tunes(300, 280, 32, "bfloat16", size=0.1)
    result = found(one, other, dtype="bfloat16", limit=100)
    assert isinstance(result, LowRank)
    # Directions as faint as the noise may stay out.
    assert 56 <= result.rank <= 64


def test_a_difference_of_full_rank_is_refused_with_figures() -> None:
    one = normal(200, 160, seed=0)
    other = one + normal(200, 160, seed=1, scale=0.1)
    result = found(one, other, dtype="float16", limit=32)
    assert isinstance(result, NotLowRank)
    assert result.limit == 32
    assert result.difference == pytest.approx(0.0995, abs=0.003)
    assert 0.5 * result.difference < result.error < result.difference


def test_the_rank_is_never_above_the_limit() -> None:
    one, other = fine_tunes(256, 256, 8, "float16", size=0.2)
    assert isinstance(found(one, other, dtype="float16", limit=15), NotLowRank)
    result = found(one, other, dtype="float16", limit=16)
    assert isinstance(result, LowRank)
    assert result.rank == 16


def test_equal_matrices_differ_by_rank_nought() -> None:
    one = normal(64, 48, seed=0)
    result = found(one, one, dtype="float32")
    assert isinstance(result, LowRank)
    assert (result.rank, result.error, result.nbytes) == (0, 0.0, 0)


def test_rounding_alone_needs_no_rank() -> None:
    origin = normal(256, 256, seed=0)
    nudged = origin + normal(256, 256, seed=1, scale=1e-5)
    result = found(rounded(origin, "bfloat16"), rounded(nudged, "bfloat16"), dtype="bfloat16")
    assert isinstance(result, LowRank)
    assert result.rank == 0


def test_the_same_matrices_give_the_same_factors() -> None:
    one, other = fine_tunes(96, 80, 4, "float16", size=0.2)
    results = [found(one, other, dtype="float16") for _ in range(2)]
    assert isinstance(results[0], LowRank)
    assert isinstance(results[1], LowRank)
    assert np.array_equal(results[0].down, results[1].down)
    assert np.array_equal(results[0].up, results[1].up)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_expected_noise_is_the_noise(dtype: str) -> None:
    values = normal(400, 300, seed=3)
    measured = np.sum(np.square((rounded(values, dtype) - values).astype(np.float64)))
    assert rounding_noise(rounded(values, dtype), FRACTION_BITS[dtype]) == pytest.approx(measured, rel=0.02)


def test_zeros_carry_no_noise() -> None:
    assert rounding_noise(np.zeros((4, 4), np.float32), 7) == 0
