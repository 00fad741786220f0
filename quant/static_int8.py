"""int8 with scales that are known before the model runs: what QuantizeLinear and DequantizeLinear compute.

Both sides are symmetric around zero: a weight has one scale a row, an input one scale a layer, measured on
calibration inputs. Static scales cost nothing at run time and let an engine such as TensorRT fuse the
rounding into the product; the price is that every token lives with the largest one's scale.

Scales are stored in the type that the graph computes in. They are rounded up to it first and the codes are
made for the rounded scale, so float16 scales cost resolution, never a clipped value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIMIT = 127
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class StaticWeight:
    """`values` int8 [rows, columns]; `scale` [rows] in the graph's float type."""

    values: NDArray[np.int8]
    scale: NDArray[np.floating]


def input_scale(absmax: float, dtype: type[np.floating]) -> NDArray[np.floating]:
    """The step [] of an input whose largest magnitude is `absmax`; 1 where there is nothing but zeros."""
    return _rounded_up(np.array(absmax / LIMIT, np.float32), dtype)


def quantize_rows(weight: NDArray[np.floating], dtype: type[np.floating]) -> StaticWeight:
    """Round a weight [rows, columns] of finite numbers to int8, row by row."""
    rows, _ = weight.shape
    values = np.empty(weight.shape, np.int8)
    scale = np.empty(rows, dtype)
    for start in range(0, rows, _ROWS_AT_ONCE):
        here = slice(start, min(start + _ROWS_AT_ONCE, rows))
        part = np.asarray(weight[here], np.float32)
        scale[here] = _rounded_up(np.abs(part).max(axis=1) / np.float32(LIMIT), dtype)
        values[here] = np.clip(np.rint(part / scale[here, None].astype(np.float32)), -LIMIT, LIMIT)
    return StaticWeight(values, scale)


def dequantize_rows(packed: StaticWeight) -> NDArray[np.float32]:
    """The weight that the codes stand for, float32 [rows, columns]."""
    weight: NDArray[np.float32] = packed.values.astype(np.float32)
    weight *= packed.scale[:, None].astype(np.float32)
    return weight


def product(weight: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """x [n, columns] -> [n, rows], both sides rounded, the input by the largest magnitude in it."""
    step = np.float32(input_scale(float(np.abs(x).max()), np.float32))
    codes = np.clip(np.rint(x / step), -LIMIT, LIMIT).astype(np.float32)
    result: NDArray[np.float32] = (codes * step) @ dequantize_rows(quantize_rows(weight, np.float32)).T
    return result


def _rounded_up(steps: NDArray[np.float32], dtype: type[np.floating]) -> NDArray[np.floating]:
    """The smallest values of `dtype` that are not below `steps`; 1 for a step of zero."""
    nearest = steps.astype(dtype)
    above = np.nextafter(nearest, np.array(np.inf, dtype))
    rounded: NDArray[np.floating] = np.where(nearest.astype(np.float32) < steps, above, nearest)
    return np.asarray(np.where(steps > 0, rounded, np.array(1, dtype)))
