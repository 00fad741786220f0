"""nf4 against bitsandbytes itself, bit for bit, and its own properties."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qvl_local.quant import nf4

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import bitsandbytes.functional as bnb


@pytest.fixture(scope="module", autouse=True)
def _uncompiled() -> Iterator[None]:
    """bitsandbytes has CPU code of its own compiled as C++ at first use, which takes longer than all else."""
    with torch.compiler.set_stance("force_eager"):
        yield


def at_the_borders() -> np.ndarray:
    """Blocks whose values lie on a border between two levels, or a bit beside it: the last bit decides."""
    scales = np.random.default_rng(7).uniform(0.01, 3, (200, 1)).astype(np.float32)
    borders = scales * ((nf4.LEVELS[:-1] + nf4.LEVELS[1:]) / np.float32(2))
    beside = [np.nextafter(borders, np.float32(way)) for way in (-10, 10)]
    return np.hstack([borders, *beside, np.repeat(scales, 64 - 45, axis=1)])


MATRICES = {
    "normal": np.random.default_rng(0).standard_normal((96, 256), np.float32),
    "heavy tails": np.random.default_rng(1).standard_t(2, (40, 320)).astype(np.float32),
    "blocks that span rows": np.random.default_rng(2).standard_normal((64, 4304), np.float32) * 0.02,
    "a remainder": np.random.default_rng(3).standard_normal((3, 77), np.float32),
    "an odd count": np.random.default_rng(4).standard_normal((1, 65), np.float32),
    "zeros": np.zeros((2, 96), np.float32),
    "many equal": np.random.default_rng(5).choice(np.array([-2, -1, 0, 1], np.float32), (16, 128)),
    "the middles between levels": np.tile(
        np.append((nf4.LEVELS[:-1] + nf4.LEVELS[1:]) / np.float32(2), np.float32(1)), (8, 4)
    ),
    "at the borders": at_the_borders(),
    "tiny": np.random.default_rng(6).standard_normal((4, 64), np.float32) * np.float32(1e-37),
}


@pytest.mark.parametrize("name", MATRICES)
def test_codes_and_scales_are_those_of_bitsandbytes(name: str) -> None:
    matrix = MATRICES[name]
    ours = nf4.quantize(matrix)
    codes, state = bnb.quantize_4bit(torch.from_numpy(matrix), blocksize=64, quant_type="nf4")
    assert np.array_equal(ours.codes, codes.numpy().reshape(-1))
    assert np.abs(ours.absmax - state.absmax.numpy()).max() <= (0 if matrix.size % 64 == 0 else 1e-37)
    assert np.array_equal(nf4.LEVELS, state.code.numpy())
    theirs = bnb.dequantize_4bit(codes, state).numpy()
    assert np.array_equal(nf4.dequantize(ours), theirs.reshape(matrix.shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_checkpoints_quantize_as_bitsandbytes_quantizes_them(dtype: torch.dtype) -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    codes, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    ours = nf4.quantize(weight.float().numpy())
    assert np.array_equal(ours.codes, codes.numpy().reshape(-1))
    assert np.array_equal(ours.absmax, state.absmax.float().numpy())


def test_a_hundred_thousand_blocks_agree() -> None:
    matrix = np.random.default_rng(7).standard_normal((3200, 2048), np.float32)
    codes, state = bnb.quantize_4bit(torch.from_numpy(matrix), blocksize=64, quant_type="nf4")
    ours = nf4.quantize(matrix)
    assert np.array_equal(ours.codes, codes.numpy().reshape(-1))
    assert np.array_equal(ours.absmax, state.absmax.numpy())


@pytest.mark.parametrize("count", [64, 256, 4096, 5000])
def test_packed_scales_are_those_of_bitsandbytes(count: int) -> None:
    matrix = np.random.default_rng(count).standard_normal((count, 64), np.float32)
    absmax = nf4.quantize(matrix).absmax
    _, state = bnb.quantize_4bit(
        torch.from_numpy(matrix), blocksize=64, quant_type="nf4", compress_statistics=True
    )
    packed = nf4.pack_scales(absmax)
    assert np.array_equal(nf4.scale_levels(), state.state2.code.numpy())
    # The mean is a sum in another order, so it may differ in its last bit and tip a scale over a border.
    assert abs(packed.offset - state.offset.item()) <= 1e-6 * abs(packed.offset)
    differing = packed.codes.astype(int) - state.absmax.numpy().astype(int)
    assert np.abs(differing).max() <= 1
    assert np.count_nonzero(differing) <= count // 100
    theirs = bnb.dequantize_blockwise(state.absmax, state.state2).numpy() + state.offset.item()
    assert np.allclose(nf4.unpack_scales(packed), theirs, rtol=1e-2)
    assert np.abs(nf4.unpack_scales(packed) / absmax - 1).max() < 0.03


@given(
    values=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=70),
        elements=st.floats(-1000, 1000, width=32, allow_subnormal=False),
    )
)
@settings(max_examples=60, deadline=None)
def test_every_value_lands_within_half_a_gap_of_itself(values: np.ndarray) -> None:
    packed = nf4.quantize(values)
    restored = nf4.dequantize(packed)
    assert restored.shape == values.shape
    assert packed.codes.size == -(-values.size // 2)
    assert packed.absmax.size == -(-values.size // 64)
    absmax = np.repeat(packed.absmax, 64)[: values.size].reshape(values.shape)
    widest = np.diff(nf4.LEVELS).max() / 2
    assert (np.abs(restored - values) <= absmax * widest * 1.0001 + 1e-30).all()
    largest = np.abs(values) == absmax
    assert np.array_equal(restored[largest], values[largest])


def test_scales_chosen_elsewhere_clip_what_lies_beyond_them() -> None:
    values = np.array([[4.0] + [1.0] * 63], np.float32)
    packed = nf4.quantize(values, scales=np.array([2.0], np.float32))
    assert nf4.dequantize(packed)[0, 0] == 2.0
    assert np.array_equal(packed.absmax, [2.0])


def test_four_and_a_half_bits_a_weight() -> None:
    packed = nf4.quantize(np.ones((64, 640), np.float32))
    assert packed.nbytes * 8 == 4.5 * 64 * 640
