"""Rounding with compensation: what rounding one column costs is made good by the columns still to come.

GPTQ (arXiv:2210.17323). For inputs X the error of a product is that of the weight seen through X^T X: after
a column was rounded, the columns not yet rounded are moved to where they undo most of its error, and are
rounded from there. Scales are those of round-to-nearest and the bytes are as many; only the codes differ.

Columns go from the one with the largest inputs to the one with the smallest ("act-order", with the scales
fixed beforehand, so that blocks stay where they are). Columns further apart than `GROUP` do not compensate
each other, which bounds memory and time for wide layers.

Arrays in, arrays out: no file, no graph, no model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from . import blockwise, int8, nf4

Floats = NDArray[np.float32]
# Values [n] of one column in some rows -> what those can be stored as, float32 [n].
RoundedColumn = Callable[[Floats, slice, int], Floats]

GROUP = 2048
# Added to the diagonal of X^T X as a part of its mean, so that directions without inputs are left alone.
_DAMPING = 0.01
_ROWS_AT_ONCE = 2048
_COLUMNS_AT_ONCE = 64


def nf4_weight(weight: Floats, inputs: Floats) -> nf4.Nf4:
    """nf4 of a weight [rows, K] for inputs like these [n, K], with the scales that plain nf4 has."""
    columns = weight.shape[1]
    scales = nf4.quantize(weight).absmax

    def rounded(values: Floats, rows: slice, column: int) -> Floats:
        places = np.arange(rows.start, rows.stop) * columns + column
        return nf4.rounded(values, scales[places // nf4.BLOCK])

    return nf4.quantize(compensate(weight, inputs, rounded), scales=scales)


def block_weight(weight: Floats, inputs: Floats, *, bits: blockwise.Bits, block: int) -> blockwise.Blocks:
    """Blocks of a weight [rows, K] for inputs like these [n, K], with the scales that plain rounding has."""
    scales = blockwise.largest_scales(weight, bits=bits, block=block)

    def rounded(values: Floats, rows: slice, column: int) -> Floats:
        return blockwise.rounded(values, scales[rows, column // block], bits=bits)

    return blockwise.quantize(compensate(weight, inputs, rounded), bits=bits, block=block, scales=scales)


def int8_weight(weight: Floats, inputs: Floats) -> int8.Int8Weight:
    """int8 rows of a weight [rows, K] for inputs like these [n, K], with the scales of plain rounding."""
    scale = int8.largest_scales(weight)

    def rounded(values: Floats, rows: slice, _column: int) -> Floats:
        return int8.rounded(values, scale[rows])

    return int8.quantize_weight(compensate(weight, inputs, rounded), scale=scale)


def compensate(weight: Floats, inputs: Floats, rounded: RoundedColumn) -> Floats:
    """A weight of values that can be stored, chosen so that products with the inputs stay close.

    Args:
        weight: float32 [rows, K].
        inputs: float32 [n, K], some tokens of what it is multiplied by.
        rounded: what values of a column can be stored as.

    Returns:
        float32 [rows, K], every value one that `rounded` gave.
    """
    rows, columns = weight.shape
    result = np.empty((rows, columns), np.float32)
    for start in range(0, columns, GROUP):
        here = slice(start, min(start + GROUP, columns))
        order, factor = _plan(inputs[:, here])
        for first in range(0, rows, _ROWS_AT_ONCE):
            some = slice(first, min(first + _ROWS_AT_ONCE, rows))
            turned = np.ascontiguousarray(weight[some, here].T[order])
            _round(turned, factor, rounded, some, start + order)
            result[some, start + order] = turned.T
    return result


def _plan(inputs: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The order of the columns, int64 [K], and in that order the upper triangular U [K, K] of the inverse.

    (X^T X)^-1 = U^T U: row k of U says how columns behind k undo an error of column k.
    """
    wide = inputs.astype(np.float64)
    gram = wide.T @ wide
    energy = np.diag(gram).copy()
    order = np.argsort(-energy, kind="stable")
    gram = gram[np.ix_(order, order)]
    gram[np.diag_indices_from(gram)] += _DAMPING * energy.mean() or 1.0
    return order, np.linalg.cholesky(np.linalg.inv(gram)).T.astype(np.float32)


def _round(
    columns: Floats, factor: Floats, rounded: RoundedColumn, rows: slice, places: NDArray[np.int64]
) -> None:
    """Replace columns [K, n], whose places in the weight are given, by what they can be stored as."""
    count = len(columns)
    for start in range(0, count, _COLUMNS_AT_ONCE):
        end = min(start + _COLUMNS_AT_ONCE, count)
        errors = np.empty((end - start, columns.shape[1]), np.float32)
        for at in range(start, end):
            kept = rounded(columns[at], rows, int(places[at]))
            errors[at - start] = error = (columns[at] - kept) / factor[at, at]
            columns[at] = kept
            columns[at + 1 : end] -= np.outer(factor[at, at + 1 : end], error)
        columns[end:] -= factor[start:end, end:].T @ errors
