"""4-bit NormalFloat: blocks of 64 weights, each weight one of sixteen levels times the block's largest.

The levels are quantiles of a normal distribution (QLoRA, arXiv:2305.14314, appendix E). Codes and scales are
those of bitsandbytes to the bit, so that a bundle and a checkpoint loaded with bitsandbytes hold the same
weights. A matrix is cut into blocks as it lies in memory, row after row; a block may span two rows.

Arrays in, arrays out: no file, no graph, no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

BLOCK = 64
# The levels as bitsandbytes prints them, rounded to float32.
LEVELS: Floats = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
_BOUNDS: Floats = (LEVELS[:-1] + LEVELS[1:]) / np.float32(2)

_SCALE_BLOCK = 256
_SMALLEST = np.float32(1e-38)
_BLOCKS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Nf4:
    """A quantized array of `shape`, n values in all.

    `codes` uint8 [ceil(n / 2)]: two codes a byte, the first in the high half.
    `absmax` float32 [ceil(n / 64)]: the scale of each block.
    """

    codes: Bytes
    absmax: Floats
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales together."""
        return self.codes.nbytes + self.absmax.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class PackedScales:
    """Block scales in 8 bits ("double quantization"): m scales, in blocks of 256 around their mean.

    `codes` uint8 [m] point into `scale_levels()`; `absmax` float32 [ceil(m / 256)]; `offset` is the mean.
    """

    codes: Bytes
    absmax: Floats
    offset: np.float32

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is stored."""
        return self.codes.nbytes + self.absmax.nbytes + 4


def quantize(values: NDArray[np.floating], *, scales: Floats | None = None) -> Nf4:
    """Quantize an array of any shape; every value goes to the nearest level of its block.

    Args:
        values: numbers; a block with what is none has a scale that is none.
        scales: float32 [ceil(n / 64)], the scale of each block, chosen elsewhere; each block's largest
            magnitude when not given. Values beyond their block's scale take the outermost level.
    """
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    blocks = -(-flat.size // BLOCK)
    absmax = np.empty(blocks, np.float32) if scales is None else np.asarray(scales, np.float32)
    codes = np.empty(flat.size + flat.size % 2, np.uint8)
    codes[flat.size :] = 7  # the padding of an odd count is a zero
    for first, part in _parts(flat):
        part_scales = absmax[first : first + len(part)]
        if scales is None:
            np.abs(part).max(axis=1, out=part_scales)
        start = first * BLOCK
        scaled = _scaled(part, part_scales, whole=start + part.size <= flat.size and part.shape[1] == BLOCK)
        codes[start : start + part.size] = _nearest(scaled).reshape(-1)
    packed = (codes[0::2] << np.uint8(4)) | codes[1::2]
    return Nf4(packed, absmax, tuple(values.shape))


def dequantize(packed: Nf4) -> Floats:
    """The values that the codes stand for, float32 of the original shape."""
    size = int(np.prod(packed.shape, dtype=np.int64))
    codes = np.empty(packed.codes.size * 2, np.uint8)
    codes[0::2] = packed.codes >> 4
    codes[1::2] = packed.codes & 15
    values = LEVELS[codes[:size]]
    for first, part in _parts(values):
        part *= packed.absmax[first : first + len(part), None]
    return values.reshape(packed.shape)


def rounded(values: Floats, scales: Floats) -> Floats:
    """What values would be stored as under these scales, one for each: float32 of the same shape."""
    scaled = np.divide(values, np.maximum(scales, _SMALLEST), dtype=np.float32)
    nearest: Floats = LEVELS[_nearest(scaled)] * scales
    return nearest


def pack_scales(absmax: Floats) -> PackedScales:
    """Quantize block scales to 8 bits, as bitsandbytes does with `compress_statistics`."""
    offset = absmax.mean(dtype=np.float32)
    centred = absmax - offset
    blocks = -(-centred.size // _SCALE_BLOCK)
    padded = np.zeros(blocks * _SCALE_BLOCK, np.float32)
    padded[: centred.size] = centred
    grid = padded.reshape(blocks, _SCALE_BLOCK)
    largest = np.abs(grid).max(axis=1)
    scaled = np.clip(grid * (np.float32(1) / np.maximum(largest, _SMALLEST))[:, None], -1, 1)
    levels = scale_levels()
    bounds = (levels[:-1] + levels[1:]) / np.float32(2)
    codes = np.searchsorted(bounds, scaled.reshape(-1)[: centred.size], side="left").astype(np.uint8)
    return PackedScales(codes, largest, offset)


def unpack_scales(packed: PackedScales) -> Floats:
    """Block scales, float32 [m]."""
    scales: Floats = scale_levels()[packed.codes]
    repeated = np.repeat(packed.absmax, _SCALE_BLOCK)[: scales.size]
    return scales * repeated + packed.offset


def scale_levels() -> Floats:
    """The 256 levels of a packed scale: sign, a shared exponent of ten, a fraction that fills the rest.

    "8-bit approximations for parallelism in deep learning", arXiv:1511.04561, in the signed form with seven
    exponents: an exponent e carries 2^e fractions between 0.1 and 1, each the middle of an interval.
    """
    levels = [0.0, 1.0]
    for exponent in range(7):
        edges = _even_steps(2**exponent)
        middles = (edges[:-1] + edges[1:]) / np.float32(2)
        magnitudes = (middles * np.float32(10.0 ** (exponent - 6))).tolist()
        levels += magnitudes + [-magnitude for magnitude in magnitudes]
    return np.array(sorted(levels), np.float32)


def _even_steps(count: int) -> Floats:
    """0.1 to 1 in `count` equal steps, with the last bits that torch.linspace gives them.

    It counts from both ends with a float32 step, and rounds each sum once.
    """
    step = np.float64((np.float32(1) - np.float32(0.1)) / np.float32(count))
    at = np.arange(count + 1)
    from_below = np.float64(np.float32(0.1)) + step * at
    from_above = 1 - step * (count - at)
    return np.where(at < (count + 1) // 2, from_below, from_above).astype(np.float32)


def _parts(flat: Floats) -> Iterator[tuple[int, Floats]]:
    """Views [blocks, 64] of some blocks at a time, with the first block's number; last, the remainder."""
    whole = flat.size // BLOCK
    for first in range(0, whole, _BLOCKS_AT_ONCE):
        end = min(first + _BLOCKS_AT_ONCE, whole)
        yield first, flat[first * BLOCK : end * BLOCK].reshape(-1, BLOCK)
    if flat.size % BLOCK:
        yield whole, flat[whole * BLOCK :].reshape(1, -1)


def _scaled(part: Floats, absmax: Floats, *, whole: bool) -> Floats:
    """Values in [-1, 1]. bitsandbytes multiplies by a reciprocal in whole blocks, divides in the rest."""
    safe = np.maximum(absmax, _SMALLEST)[:, None]
    with np.errstate(invalid="ignore"):  # the scale of what is no number is none either
        scaled = np.multiply(part, np.float32(1) / safe) if whole else np.divide(part, safe)
    return np.clip(scaled, np.float32(-1), np.float32(1)).astype(np.float32, copy=False)


def _nearest(scaled: Floats) -> Bytes:
    """Codes of the nearest levels; the middle between two goes to the lower."""
    codes = np.zeros(scaled.shape, np.uint8)
    for bound in _BOUNDS:
        codes += scaled > bound
    return codes
