"""Static int8: scales that never clip, in the type that a graph computes in."""

from __future__ import annotations

import numpy as np
import pytest
from qvl_local.quant.static_int8 import LIMIT, dequantize_rows, input_scale, product, quantize_rows


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("size", [3.0, 2e-3, 3e-6])
def test_a_weight_is_kept_to_half_a_step(dtype: type[np.floating], size: float) -> None:
    weight = np.random.default_rng(0).standard_normal((40, 64), dtype=np.float32) * np.float32(size)
    weight[7] = 0
    packed = quantize_rows(weight, dtype)
    assert packed.values.dtype == np.int8
    assert packed.scale.dtype == dtype
    assert np.abs(packed.values.astype(int)).max() <= LIMIT
    step = packed.scale.astype(np.float32)[:, None]
    # Half a step everywhere: the scale was rounded up, so the largest value is not clipped either.
    assert (np.abs(dequantize_rows(packed) - weight) <= step * np.float32(0.5001)).all()
    assert not packed.values[7].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_an_inputs_scale_holds_its_largest_value(dtype: type[np.floating]) -> None:
    for absmax in (0.01, 0.37, 5.0, 3000.1):
        scale = input_scale(absmax, dtype)
        assert scale.dtype == dtype
        assert float(scale) * LIMIT >= absmax * (1 - 1e-6)
        assert float(scale) * LIMIT <= absmax * 1.01
    assert float(input_scale(0.0, dtype)) == 1


def test_a_product_is_close_and_an_outlier_costs_all_tokens() -> None:
    generator = np.random.default_rng(1)
    weight = generator.standard_normal((32, 128), dtype=np.float32)
    x = generator.standard_normal((50, 128), dtype=np.float32)
    exact = x @ weight.T
    calm = np.abs(product(weight, x) - exact).mean()
    assert calm < 0.02 * np.abs(exact).mean()
    x[0, 3] = -300
    assert np.abs(product(weight, x)[1:] - (x @ weight.T)[1:]).mean() > 10 * calm
