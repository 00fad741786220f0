"""Antialiased bicubic resizing that gives the very pixels of the published image and video processors.

Those resize uint8 tensors with torchvision, whose arithmetic is: cubic weights (a = -0.5) stretched by the
scale, rounded to 16-bit fixed point; along rows first, then along columns, each pass rounded and clipped to
uint8. Pillow differs by one grey level in a few pixels of a thousand, enough to move an embedding by 1e-4,
and chooses the order of the passes by the shape, which moves single pixels by twenty.

The passes are matrix products in floating point wide enough to be exact, so the result does not depend on the
machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Outputs computed by one product: enough to keep the multiplier busy, few enough to waste little of its band.
_BLOCK = 16
# Input values turned to floating point at once, which bounds memory.
_VALUES_AT_ONCE = 4_000_000
# Bits of a weight with its sign, and the most fractional bits that torch gives them.
_WEIGHT_BITS = 15
_MAX_PRECISION = 22


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Weights of `count` outputs from `first_out` on, over the inputs from `first_in` on: [inputs, count]."""

    first_out: int
    count: int
    first_in: int
    weights: NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """Resizing along one axis: blocks of fixed-point weights with `precision` fractional bits."""

    blocks: tuple[_Block, ...]
    precision: int
    dtype: type[np.floating[Any]]


def resample(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize uint8 [h, w, 3] to `size` (height, width)."""
    height, width = size
    if pixels.shape[1] != width:
        pixels = _widths(pixels, width)
    if pixels.shape[0] != height:
        pixels = _heights(pixels, height)
    return np.ascontiguousarray(pixels)


def _widths(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Resize the second axis of uint8 [h, w, 3], some rows at a time."""
    height, before, channels = pixels.shape
    plan = _plan(before, width)
    out = np.empty((height, width, channels), dtype=np.uint8)
    step = max(1, _VALUES_AT_ONCE // (before * channels))
    for top in range(0, height, step):
        # Channels before columns, so that one product serves all of them.
        rows = np.ascontiguousarray(pixels[top : top + step].swapaxes(1, 2)).astype(plan.dtype)
        flat = rows.reshape(-1, before)
        sums = np.empty((len(flat), width), dtype=plan.dtype)
        for block in plan.blocks:
            inputs = flat[:, block.first_in : block.first_in + len(block.weights)]
            np.matmul(inputs, block.weights, out=sums[:, block.first_out : block.first_out + block.count])
        done = _rounded(sums, plan).reshape(-1, channels, width)
        out[top : top + step] = done.swapaxes(1, 2)
    return out


def _heights(pixels: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Resize the first axis of uint8 [h, w, 3], one block of rows at a time."""
    before, width, channels = pixels.shape
    plan = _plan(before, height)
    out = np.empty((height, width * channels), dtype=np.uint8)
    flat = np.ascontiguousarray(pixels).reshape(before, width * channels)
    for block in plan.blocks:
        inputs = flat[block.first_in : block.first_in + len(block.weights)].astype(plan.dtype)
        out[block.first_out : block.first_out + block.count] = _rounded(block.weights.T @ inputs, plan)
    return out.reshape(height, width, channels)


def _rounded(sums: NDArray[np.floating[Any]], plan: _Pass) -> NDArray[np.uint8]:
    """Fixed-point sums to grey levels: half up, clipped. Works in place."""
    sums += plan.dtype(2.0 ** (plan.precision - 1))
    sums *= plan.dtype(2.0**-plan.precision)
    np.clip(sums, 0, 255, out=sums)
    return sums.astype(np.uint8)  # truncation is the floor, now that nothing is negative


@lru_cache(maxsize=128)
def _plan(before: int, after: int) -> _Pass:
    """Fixed-point weights for resizing an axis of `before` values to `after`."""
    scale = before / after
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    center = scale * (np.arange(after) + 0.5)
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), before)
    inputs = first[:, None] + np.arange(int((last - first).max()))
    weights = _cubic((inputs - center[:, None] + 0.5) / stretch)
    weights[inputs >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    largest = float(weights.max())
    precision = 0
    while precision < _MAX_PRECISION and int(0.5 + largest * 2 ** (precision + 1)) < 2**_WEIGHT_BITS:
        precision += 1
    fixed = _round_away(weights * 2.0**precision)
    # float32 holds whole numbers up to 2^24 exactly, and no partial sum is larger than the absolute sum.
    reach = float(np.abs(fixed).sum(axis=1).max()) * 255 + 2.0**precision
    dtype = np.float32 if reach < 2**24 else np.float64
    blocks = (_block(fixed, first, last, start, dtype) for start in range(0, after, _BLOCK))
    return _Pass(blocks=tuple(blocks), precision=precision, dtype=dtype)


def _block(
    weights: NDArray[np.float64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    start: int,
    dtype: type[np.floating[Any]],
) -> _Block:
    """The band of outputs from `start` on; `weights` [outputs, taps] count from each one's `first` input."""
    stop = min(start + _BLOCK, len(weights))
    first_in, last_in = int(first[start]), int(last[start:stop].max())
    band = np.zeros((last_in - first_in, stop - start), dtype=dtype)
    for output in range(start, stop):
        low, high = int(first[output]), int(last[output])
        band[low - first_in : high - first_in, output - start] = weights[output, : high - low]
    return _Block(first_out=start, count=stop - start, first_in=first_in, weights=band)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution kernel with a = -0.5 (Keys, 1981), zero beyond 2."""
    a = -0.5
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _round_away(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round half away from zero, as C does by adding half and truncating."""
    return np.trunc(values + np.copysign(0.5, values))
