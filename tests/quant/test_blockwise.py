"""Blocks of 4 and 8 bits: error bounds, layout, and rows that do not divide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qvl_local.quant import blockwise


@given(
    weight=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.integers(1, 150)),
        elements=st.floats(-1000, 1000, width=32, allow_subnormal=False),
    ),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32, 64]),
)
@settings(max_examples=80, deadline=None)
def test_a_weight_lands_within_a_step(weight: np.ndarray, bits: blockwise.Bits, block: int) -> None:
    packed = blockwise.quantize(weight, bits=bits, block=block)
    restored = blockwise.dequantize(packed)
    assert restored.shape == weight.shape
    step = np.repeat(np.abs(packed.scales), block, axis=1)[:, : weight.shape[1]]
    # Half a step, but for what the missing highest code cuts off: up to one step.
    assert (np.abs(restored - weight) <= step * 1.0001 + 1e-30).all()


@pytest.mark.parametrize(("bits", "block", "expected"), [(4, 32, 5.0), (4, 64, 4.5), (8, 128, 8.25)])
def test_bits_a_weight(bits: blockwise.Bits, block: int, expected: float) -> None:
    packed = blockwise.quantize(np.ones((8, 1280), np.float32), bits=bits, block=block)
    assert packed.nbytes * 8 == expected * 8 * 1280


def test_a_row_that_does_not_divide_ends_in_zeros() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 4304), np.float32)
    packed = blockwise.quantize(weight, bits=4, block=64)
    assert packed.codes.shape == (6, 68, 32)
    assert (packed.codes[:, -1, 8:] == 0x88).all()
    assert blockwise.dequantize(packed).shape == weight.shape


def test_the_largest_of_a_block_is_exact() -> None:
    weight = np.random.default_rng(1).standard_normal((4, 128), np.float32)
    restored = blockwise.dequantize(blockwise.quantize(weight, bits=4, block=32))
    grid, other = weight.reshape(4, 4, 32), restored.reshape(4, 4, 32)
    at = np.abs(grid).argmax(axis=-1)[..., None]
    assert np.allclose(np.take_along_axis(grid, at, -1), np.take_along_axis(other, at, -1), rtol=1e-6)


def test_a_block_of_zeros_stays_zero() -> None:
    packed = blockwise.quantize(np.zeros((2, 32), np.float32), bits=8, block=32)
    assert np.array_equal(blockwise.dequantize(packed), np.zeros((2, 32)))


def test_a_large_weight_is_quantized_as_a_small_one_is() -> None:
    weight = np.random.default_rng(2).standard_normal((700, 48), np.float32)
    packed = blockwise.quantize(weight, bits=4, block=16)
    for row in (255, 256, 611):
        alone = blockwise.quantize(weight[row : row + 1], bits=4, block=16)
        assert np.array_equal(packed.codes[row], alone.codes[0])
        assert np.array_equal(packed.scales[row], alone.scales[0])


@pytest.mark.parametrize("block", [8, 24, 48])
def test_a_block_that_the_engine_does_not_know_is_refused(block: int) -> None:
    with pytest.raises(ValueError, match=f"block of {block}"):
        blockwise.quantize(np.ones((2, 96), np.float32), bits=4, block=block)
