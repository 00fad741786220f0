"""Rounding with compensation: the same bytes, and products closer to the exact ones."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from qvl_local.quant import blockwise, compensation, int8, nf4

ROWS = 40


def layer(columns: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A weight, inputs that lie near a few directions as those of real layers do, and more such inputs."""
    generator = np.random.default_rng(seed)
    weight = generator.standard_t(4, (ROWS, columns)).astype(np.float32)
    directions = generator.standard_normal((columns // 4, columns))
    directions *= np.exp(generator.standard_normal((columns // 4, 1)))
    inputs = generator.standard_normal((600, columns // 4)) @ directions
    inputs += 0.05 * generator.standard_normal(inputs.shape) * np.abs(inputs).mean()
    inputs = inputs.astype(np.float32)
    return weight, inputs[:500], inputs[500:]


def lost(weight: np.ndarray, stored: np.ndarray, inputs: np.ndarray) -> float:
    return float(np.linalg.norm(inputs @ (stored - weight).T) / np.linalg.norm(inputs @ weight.T))


@pytest.mark.parametrize("columns", [64, 96, 269])
def test_nf4_loses_less_on_inputs_that_it_has_not_seen(columns: int) -> None:
    weight, inputs, others = layer(columns)
    plain, tuned = nf4.quantize(weight), compensation.nf4_weight(weight, inputs)
    assert np.array_equal(tuned.absmax, plain.absmax)
    assert tuned.codes.shape == plain.codes.shape
    assert lost(weight, nf4.dequantize(tuned), others) < 0.6 * lost(weight, nf4.dequantize(plain), others)


@pytest.mark.parametrize(("bits", "block", "columns"), [(4, 32, 128), (4, 64, 269), (8, 128, 256)])
def test_blocks_lose_less_too(bits: blockwise.Bits, block: int, columns: int) -> None:
    weight, inputs, others = layer(columns)
    plain = blockwise.quantize(weight, bits=bits, block=block)
    tuned = compensation.block_weight(weight, inputs, bits=bits, block=block)
    assert np.array_equal(tuned.scales, plain.scales)
    assert tuned.nbytes == plain.nbytes
    before, after = (lost(weight, blockwise.dequantize(one), others) for one in (plain, tuned))
    assert after < 0.6 * before


@pytest.mark.parametrize("columns", [128, 269])
def test_int8_rows_lose_less_too(columns: int) -> None:
    weight, inputs, others = layer(columns)
    weight[3] = 0
    plain = int8.quantize_weight(weight)
    tuned = compensation.int8_weight(weight, inputs)
    assert np.array_equal(tuned.scale, plain.scale)
    assert tuned.values.dtype == plain.values.dtype
    assert not tuned.values[3].any()
    assert np.abs(tuned.values.astype(int)).max() <= int8.LIMIT
    before, after = (lost(weight, int8.dequantize_weight(one), others) for one in (plain, tuned))
    assert after < 0.6 * before


def test_what_was_chosen_is_what_is_stored() -> None:
    weight, inputs, _ = layer(128)
    scales = nf4.quantize(weight).absmax

    def rounded(values: np.ndarray, rows: slice, column: int) -> np.ndarray:
        places = np.arange(rows.start, rows.stop) * 128 + column
        return nf4.rounded(values, scales[places // nf4.BLOCK])

    chosen = compensation.compensate(weight, inputs, rounded)
    stored = nf4.dequantize(compensation.nf4_weight(weight, inputs))
    assert np.array_equal(chosen, stored)


def test_rounding_one_by_one_is_rounding_all() -> None:
    weight, _, _ = layer(128)
    plain = nf4.quantize(weight)
    scales = np.repeat(plain.absmax, nf4.BLOCK).reshape(weight.shape)
    assert np.array_equal(nf4.rounded(weight, scales), nf4.dequantize(plain))
    blocks = blockwise.quantize(weight, bits=4, block=32)
    scales = np.repeat(blocks.scales, 32, axis=1)
    assert np.array_equal(blockwise.rounded(weight, scales, bits=4), blockwise.dequantize(blocks))
    rows = int8.quantize_weight(weight)
    assert np.array_equal(int8.rounded(weight, rows.scale[:, None]), int8.dequantize_weight(rows))


def test_inputs_that_have_nothing_in_common_leave_plain_rounding() -> None:
    weight, _, _ = layer(64)
    inputs = np.diag(np.arange(1, 65)).astype(np.float32)  # every column alone
    tuned = compensation.nf4_weight(weight, inputs)
    assert np.array_equal(tuned.codes, nf4.quantize(weight).codes)


def test_columns_that_are_never_used_round_plainly() -> None:
    weight, _, _ = layer(64)
    tuned = compensation.nf4_weight(weight, np.zeros((10, 64), np.float32))
    assert np.array_equal(tuned.codes, nf4.quantize(weight).codes)


def test_columns_with_large_inputs_come_first() -> None:
    weight, inputs, _ = layer(96)
    order: list[int] = []

    def rounded(values: np.ndarray, _rows: slice, column: int) -> np.ndarray:
        order.append(column)
        return values

    compensation.compensate(weight, inputs, rounded)
    assert order == np.argsort(-np.sum(inputs.astype(np.float64) ** 2, axis=0)).tolist()


def test_the_unit_of_the_inputs_does_not_matter() -> None:
    weight, inputs, _ = layer(64)
    faint = compensation.nf4_weight(weight, inputs * np.float32(2**-20))
    assert np.array_equal(faint.codes, compensation.nf4_weight(weight, inputs).codes)


def test_rows_are_compensated_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inputs, _ = layer(64)

    def codes() -> list[np.ndarray]:
        return [
            compensation.int8_weight(weight, inputs).values,
            compensation.nf4_weight(weight, inputs).codes.reshape(ROWS, -1),
            compensation.block_weight(weight, inputs, bits=8, block=32).codes,
        ]

    whole = codes()
    monkeypatch.setattr(compensation, "_ROWS_AT_ONCE", 16)
    for one, other in zip(whole, codes()):
        # But for a value halfway between two codes, which the order of a sum may tip.
        assert np.mean(one == other) > 0.99


def test_wide_layers_are_compensated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inputs, others = layer(256)
    monkeypatch.setattr(compensation, "GROUP", 96)
    monkeypatch.setattr(compensation, "_ROWS_AT_ONCE", 16)
    make = partial(compensation.block_weight, bits=4, block=32)
    in_parts = blockwise.dequantize(make(weight, inputs))
    plain = blockwise.dequantize(blockwise.quantize(weight, bits=4, block=32))
    assert lost(weight, in_parts, others) < 0.9 * lost(weight, plain, others)
    # A part knows nothing of the others, nor a piece of rows of the rest.
    alone = blockwise.dequantize(make(weight[:, :96], inputs[:, :96]))
    assert np.array_equal(in_parts[:, :96], alone)
