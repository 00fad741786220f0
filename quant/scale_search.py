"""Block scales that lose least where it matters: try a few for each block, weigh errors by the inputs.

Round-to-nearest takes a block's largest magnitude as its scale. A smaller one cuts that magnitude off and
rounds all the others more finely; which is better depends on the block, and on how strongly each column's
input is: the error of a column counts with the mean square of what it is multiplied by.

Arrays in, arrays out: no file, no graph, no model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import blockwise, nf4

Floats = NDArray[np.float32]

MULTIPLIERS = (0.7, 0.76, 0.82, 0.86, 0.9, 0.94, 0.97, 1.03)
_ROWS_AT_ONCE = 128


def nf4_scales(weight: Floats, mean_square: Floats) -> Floats:
    """nf4's scales, float32 [ceil(n / 64)], for a weight [rows, K] and its inputs' mean squares [K]."""
    rows, columns = weight.shape
    # As many rows at a time as make whole blocks.
    step = max(1, np.lcm(columns, nf4.BLOCK) // columns)
    step *= max(1, _ROWS_AT_ONCE // step)
    parts = []
    for start in range(0, rows, step):
        part = np.ascontiguousarray(weight[start : start + step])
        importance = np.broadcast_to(mean_square, part.shape)
        base = nf4.quantize(part)
        best, lowest = base.absmax, _flat_errors(part, nf4.dequantize(base), importance)
        for multiplier in MULTIPLIERS:
            scales = base.absmax * np.float32(multiplier)
            restored = nf4.dequantize(nf4.quantize(part, scales=scales))
            errors = _flat_errors(part, restored, importance)
            best, lowest = np.where(errors < lowest, scales, best), np.minimum(errors, lowest)
        parts.append(best)
    return np.concatenate(parts).astype(np.float32)


def block_scales(weight: Floats, mean_square: Floats, *, bits: blockwise.Bits, block: int) -> Floats:
    """Row blocks' scales, float32 [rows, blocks], for a weight [rows, K] and its inputs' mean squares [K]."""
    rows, columns = weight.shape
    count = blockwise.block_count(columns, block)
    padding = ((0, 0), (0, count * block - columns))
    importance = np.pad(mean_square[None], padding).reshape(1, count, block)
    chosen = np.empty((rows, count), np.float32)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = weight[start : start + _ROWS_AT_ONCE]
        base = blockwise.largest_scales(part, bits=bits, block=block)
        best, lowest = base, np.full(base.shape, np.inf, np.float32)
        # The other sign spends the code that has no counterpart on the other end of the block.
        for multiplier in (1.0, *MULTIPLIERS, -1.0, -0.94, -0.88):
            scales = base * np.float32(multiplier)
            packed = blockwise.quantize(part, bits=bits, block=block, scales=scales)
            difference = np.pad(blockwise.dequantize(packed) - part, padding).reshape(-1, count, block)
            errors = np.sum(np.square(difference) * importance, axis=-1)
            best, lowest = np.where(errors < lowest, scales, best), np.minimum(errors, lowest)
        chosen[start : start + len(part)] = best
    return chosen


def _flat_errors(part: Floats, restored: Floats, importance: NDArray[np.floating]) -> Floats:
    """Weighed squared error of each block of 64 of the flattened part."""
    errors = (np.square(restored - part) * importance).reshape(-1)
    missing = -errors.size % nf4.BLOCK
    total: Floats = np.pad(errors, (0, missing)).reshape(-1, nf4.BLOCK).sum(axis=-1)
    return total
