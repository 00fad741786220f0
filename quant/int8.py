"""int8 weights for int8 activations: one scale a row of the weight, one scale a token of the input.

W8A8 as ONNX's `MatMulInteger` computes it: weights are signed around zero, activations unsigned around 128
(signed activations run many times slower on x86). A token's scale is its own largest magnitude, so one
outlier token costs the others nothing; outlier channels are what `smoothing` is for.

Arrays in, arrays out: no file, no graph, no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ZERO_POINT = 128
LIMIT = 127

# What rounding to a step leaves is at most half a step: in these it fills a second byte, -127 to 127.
REST_STEPS = 254

_SMALLEST = np.float32(1e-10)
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Int8Weight:
    """`values` int8 [rows, columns]; `scale` float32 [rows]."""

    values: NDArray[np.int8]
    scale: Floats

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales together."""
        return self.values.nbytes + self.scale.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Uint8Tokens:
    """`values` uint8 [..., columns] with 128 for zero; `scale` float32 [..., 1]."""

    values: NDArray[np.uint8]
    scale: Floats


def largest_scales(weight: NDArray[np.floating]) -> Floats:
    """Scales [rows] that put each row's largest magnitude on the last code; 1 for a row of zeros."""
    rows, _ = weight.shape
    scale = np.empty(rows, np.float32)
    for start in range(0, rows, _ROWS_AT_ONCE):
        here = slice(start, min(start + _ROWS_AT_ONCE, rows))
        largest = np.abs(np.asarray(weight[here], np.float32)).max(axis=1)
        scale[here] = np.where(largest == 0, np.float32(1), largest / np.float32(LIMIT))
    return scale


def quantize_weight(weight: NDArray[np.floating], *, scale: Floats | None = None) -> Int8Weight:
    """Round a weight [rows, columns] to int8, row by row.

    Args:
        weight: numbers; a row with what is none has a scale that is none.
        scale: float32 [rows] chosen elsewhere; `largest_scales` when not given.
    """
    rows, _ = weight.shape
    scale = largest_scales(weight) if scale is None else scale
    values = np.empty(weight.shape, np.int8)
    for start in range(0, rows, _ROWS_AT_ONCE):
        here = slice(start, min(start + _ROWS_AT_ONCE, rows))
        with np.errstate(invalid="ignore"):  # the scale of what is no number is none either
            part = np.asarray(weight[here], np.float32) / scale[here, None]
            np.rint(part, out=part)
            values[here] = np.clip(part, -LIMIT, LIMIT, out=part)
    return Int8Weight(values, scale)


def rounded(values: Floats, scale: Floats) -> Floats:
    """What values would be stored as under these scales, one for each: float32 of the same shape."""
    nearest: Floats = np.clip(np.rint(values / scale), -LIMIT, LIMIT) * scale
    return nearest


def dequantize_weight(packed: Int8Weight) -> Floats:
    """The weight that the codes stand for, float32 [rows, columns]."""
    weight: Floats = packed.values.astype(np.float32)
    weight *= packed.scale[:, None]
    return weight


def quantize_tokens(x: Floats) -> Uint8Tokens:
    """Round activations [..., columns] to uint8, token by token: what the graph does at run time."""
    largest = np.maximum(np.abs(x).max(axis=-1, keepdims=True), _SMALLEST)
    scale: Floats = largest * np.float32(1 / LIMIT)
    values = np.clip(np.rint(x / scale) + ZERO_POINT, 0, 255).astype(np.uint8)
    return Uint8Tokens(values, scale)


def dequantize_tokens(packed: Uint8Tokens) -> Floats:
    """The activations that the codes stand for, float32 [..., columns]."""
    values: Floats = (packed.values.astype(np.float32) - ZERO_POINT) * packed.scale
    return values


def product(x: Floats, weight: Int8Weight, *, fine: bool = False) -> Floats:
    """x [..., columns] -> [..., rows], both sides in 8 bits and the sum exact: the graph's arithmetic.

    `fine` gives what rounding leaves of the activations a second byte.
    """
    tokens = quantize_tokens(x)
    # float64 holds sums of products of bytes exactly, and multiplies matrices faster than integers do.
    steps = tokens.values.astype(np.float64) - ZERO_POINT
    if fine:
        steps += np.rint((x / tokens.scale - steps) * REST_STEPS) / REST_STEPS
    sums = steps @ weight.values.astype(np.float64).T
    result: Floats = sums.astype(np.float32) * tokens.scale * weight.scale
    return result
