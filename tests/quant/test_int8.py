"""int8 rows and uint8 tokens: error bounds and exact sums."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qvl_local.quant import int8

finite = st.floats(-1000, 1000, width=32, allow_subnormal=False)
matrices = hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 60)), elements=finite)


@given(weight=matrices)
@settings(max_examples=80, deadline=None)
def test_a_weight_lands_within_half_a_step(weight: np.ndarray) -> None:
    packed = int8.quantize_weight(weight)
    assert np.abs(packed.values.astype(int)).max() <= int8.LIMIT
    error = np.abs(int8.dequantize_weight(packed) - weight)
    assert (error <= packed.scale[:, None] * 0.5001 + 1e-30).all()


@given(x=matrices)
@settings(max_examples=80, deadline=None)
def test_a_token_lands_within_half_a_step_of_its_own_scale(x: np.ndarray) -> None:
    packed = int8.quantize_tokens(x)
    assert packed.values.min() >= 1
    assert (np.abs(int8.dequantize_tokens(packed) - x) <= packed.scale * 0.5001 + 1e-9).all()


def test_an_outlier_token_costs_the_others_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    loud = x.copy()
    loud[2] *= 1000
    quiet = [0, 1, 3, 4]
    assert np.array_equal(int8.quantize_tokens(loud).values[quiet], int8.quantize_tokens(x).values[quiet])


def test_a_faint_token_is_rounded_as_a_loud_one_is() -> None:
    x = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    faint = int8.quantize_tokens(x * np.float32(2**-20))
    assert np.array_equal(faint.values, int8.quantize_tokens(x).values)


def test_scales_chosen_elsewhere_clip_what_lies_beyond_them() -> None:
    weight = np.array([[4.0, -4.0, 1.0]], np.float32)
    packed = int8.quantize_weight(weight, scale=np.array([2 / int8.LIMIT], np.float32))
    assert np.allclose(int8.dequantize_weight(packed), [[2, -2, 1]], atol=0.01)


def test_a_second_byte_holds_what_the_first_cannot() -> None:
    generator = np.random.default_rng(1)
    packed = int8.quantize_weight(generator.standard_normal((80, 512), np.float32))
    x = generator.standard_normal((30, 512), np.float32)
    exact = x @ int8.dequantize_weight(packed).T
    coarse, fine = (np.abs(int8.product(x, packed, fine=fine) - exact).max() for fine in (False, True))
    assert fine < coarse / 100


def test_a_product_is_close_to_the_exact_one() -> None:
    generator = np.random.default_rng(1)
    weight = generator.standard_normal((80, 512), np.float32)
    x = generator.standard_normal((30, 512), np.float32)
    exact = x @ weight.T
    error = int8.product(x, int8.quantize_weight(weight)) - exact
    assert np.sqrt(np.mean(error**2) / np.mean(exact**2)) < 0.015


def test_a_row_of_zeros_stays_zero() -> None:
    weight = np.zeros((2, 8), np.float32)
    weight[1] = 3
    packed = int8.quantize_weight(weight)
    assert np.array_equal(int8.dequantize_weight(packed), weight)
    assert np.isfinite(packed.scale).all()
    assert np.array_equal(int8.product(np.zeros((1, 8), np.float32), packed), np.zeros((1, 2)))


def test_a_large_weight_is_quantized_as_a_small_one_is() -> None:
    weight = np.random.default_rng(2).standard_normal((700, 33), np.float32)
    packed = int8.quantize_weight(weight)
    row = int8.quantize_weight(weight[611:612])
    assert np.array_equal(packed.values[611], row.values[0])
    assert packed.scale[611] == row.scale[0]
