"""Weight-only blocks of 4 or 8 bits: each row of a matrix in blocks, each block with a scale of its own.

The layout is that of ONNX Runtime's `MatMulNBits`: unsigned codes around a zero point, two 4-bit codes a byte
with the first in the low half, and a row's last block filled up with zeros when the row does not divide.

Arrays in, arrays out: no file, no graph, no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bits = Literal[4, 8]

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A quantized weight [rows, columns].

    `codes` uint8 [rows, blocks, block * bits / 8]; `scales` float32 [rows, blocks]. A value is
    (code - 2^(bits - 1)) * scale.
    """

    codes: Bytes
    scales: Floats
    bits: Bits
    block: int
    columns: int

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales together."""
        return self.codes.nbytes + self.scales.nbytes


def block_count(columns: int, block: int) -> int:
    """Blocks in a row, the last one filled up when it must be."""
    return -(-columns // block)


def largest_scales(weight: Floats, *, bits: Bits, block: int) -> Floats:
    """Scales [rows, blocks] that put each block's largest magnitude on the lowest code.

    The codes reach one step further below the zero point than above it, and the scale takes the sign that
    spends that step on the largest value.
    """
    grid = _grid(weight, block)
    at = np.abs(grid).argmax(axis=-1)
    signed = np.take_along_axis(grid, at[..., None], axis=-1)[..., 0]
    scales: Floats = signed / np.float32(-(2 ** (bits - 1)))
    return scales


def quantize(weight: NDArray[np.floating], *, bits: Bits, block: int, scales: Floats | None = None) -> Blocks:
    """Round a weight [rows, columns] in blocks.

    Args:
        weight: numbers; a block with what is none has a scale that is none.
        bits: of a code.
        block: columns that share a scale; a power of two from 16.
        scales: float32 [rows, blocks] chosen elsewhere; `largest_scales` when not given.

    Raises:
        ValueError: a block that `MatMulNBits` does not know.
    """
    if block < 16 or block & (block - 1):
        raise ValueError(f"a block of {block} columns: must be a power of two from 16")
    rows, columns = weight.shape
    count = block_count(columns, block)
    codes = np.empty((rows, count, block * bits // 8), np.uint8)
    kept = np.empty((rows, count), np.float32)
    zero = 2 ** (bits - 1)
    for start in range(0, rows, _ROWS_AT_ONCE):
        here = slice(start, min(start + _ROWS_AT_ONCE, rows))
        part = np.asarray(weight[here], np.float32)
        kept[here] = largest_scales(part, bits=bits, block=block) if scales is None else scales[here]
        with np.errstate(invalid="ignore"):  # the scale of what is no number is none either
            steps = _grid(part, block) / np.where(kept[here] == 0, np.float32(1), kept[here])[..., None]
            whole = np.clip(np.rint(steps) + zero, 0, 2 * zero - 1).astype(np.uint8)
        codes[here] = whole[..., 0::2] | (whole[..., 1::2] << 4) if bits == 4 else whole
    return Blocks(codes, kept, bits, block, columns)


def rounded(values: Floats, scales: Floats, *, bits: Bits) -> Floats:
    """What values would be stored as under these scales, one for each: float32 of the same shape."""
    zero = 2 ** (bits - 1)
    steps = np.rint(values / np.where(scales == 0, np.float32(1), scales))
    nearest: Floats = np.clip(steps, -zero, zero - 1) * scales
    return nearest


def dequantize(packed: Blocks) -> Floats:
    """The weight that the codes stand for, float32 [rows, columns]."""
    rows, count, _ = packed.codes.shape
    codes = packed.codes
    if packed.bits == 4:
        codes = np.empty((rows, count, packed.block), np.uint8)
        codes[..., 0::2] = packed.codes & 15
        codes[..., 1::2] = packed.codes >> 4
    weight = (codes.astype(np.float32) - np.float32(2 ** (packed.bits - 1))) * packed.scales[..., None]
    return np.ascontiguousarray(weight.reshape(rows, -1)[:, : packed.columns])


def _grid(weight: Floats, block: int) -> Floats:
    """[rows, columns] -> [rows, blocks, block], with zeros behind a row that does not divide."""
    rows, columns = weight.shape
    count = block_count(columns, block)
    if columns == count * block:
        return weight.reshape(rows, count, block)
    padded = np.zeros((rows, count * block), np.float32)
    padded[:, :columns] = weight
    return padded.reshape(rows, count, block)
