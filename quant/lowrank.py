"""Two matrices that differ by a few directions: the difference as a product of two thin matrices.

Fine-tunes made with LoRA differ from each other by low-rank updates. After merging, each side was rounded to
the type that it is stored in, so the difference is low-rank plus a little noise in every direction.
`factorise` finds the smallest rank that leaves nothing but that noise, or says that there is none.

The range finder is the randomised one of Halko, Martinsson and Tropp, "Finding structure with randomness"
(SIAM Review 53, 2011), algorithms 4.4 and 5.1. One difference is in memory at a time. This module knows
matrices, not models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Factor = NDArray[np.float16]

# Stored bits of the fraction: a value v was rounded to a grid of 2 ** (exponent(v) - bits).
FRACTION_BITS = {"float32": 23, "float16": 10, "bfloat16": 7}

# How far what is left may exceed the expected rounding noise, which is an estimate.
_NOISE_SLACK = 1.05
# What may always be left, as a part of the difference: far below what a quantized base loses.
_NEGLIGIBLE = 2e-3
_OVERSAMPLING = 8
# Power iterations where directions hardly stand out from those that are left.
_FLAT_ITERATIONS = 3
# Eigenvalues of a Gram matrix below this part of the largest are rounding.
_DEFICIENT = 1e-13
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """`target - base`, both [rows, columns], is about `(down @ up).T`; so y += (x @ down) @ up.

    `down` float16 [columns, rank], `up` float16 [rank, rows]. `error` is the Frobenius norm of what the
    product leaves, as a part of the target's norm; `difference` is that of the whole difference, and `noise`
    the part that rounding to the storage types explains.
    """

    down: NDArray[np.float16]
    up: NDArray[np.float16]
    error: float
    difference: float
    noise: float

    @property
    def rank(self) -> int:
        """How many directions are kept."""
        return int(self.up.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of both factors."""
        return self.down.nbytes + self.up.nbytes


@dataclass(frozen=True, slots=True)
class NotLowRank:
    """No rank up to `limit` leaves only noise. Figures as in `LowRank`, `error` at the limit."""

    limit: int
    error: float
    difference: float
    noise: float


@dataclass(frozen=True, slots=True)
class Rounding:
    """The types that base and target are stored in, by their fraction's bits; see `FRACTION_BITS`."""

    base: int
    target: int


@dataclass(frozen=True, slots=True, eq=False)
class _Spectrum:
    """The largest directions of a matrix: `left` [rows, w], `values` [w], `right` [w, columns].

    `outside` is the norm of what they do not span.
    """

    left: Floats
    values: NDArray[np.float64]
    right: Floats
    outside: float

    def tail(self) -> NDArray[np.float64]:
        """float64 [w + 1]: the norm of what keeping so many directions leaves."""
        dropped = np.append(np.cumsum(self.values[::-1] ** 2)[::-1], 0.0)
        tail: NDArray[np.float64] = np.sqrt(dropped + self.outside**2)
        return tail

    def factors(self, rank: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """down [columns, rank] and up [rank, rows], each carrying the roots of the values."""
        roots = np.sqrt(self.values[:rank]).astype(np.float32)
        down = (self.right[:rank].T * roots).astype(np.float16)
        up = (self.left[:, :rank] * roots).T.astype(np.float16)
        return np.ascontiguousarray(down), np.ascontiguousarray(up)


def factorise(
    base: Callable[[slice], Floats],
    target: Callable[[slice], Floats],
    shape: tuple[int, int],
    *,
    rounding: Rounding,
    limit: int,
    likely: int = 16,
    seed: int = 0,
) -> LowRank | NotLowRank:
    """Find the product of two thin matrices that leads from one matrix to another.

    Args:
        base, target: yield some rows of a matrix as float32 [n, columns].
        shape: rows and columns of both.
        rounding: how both are stored; it sets the noise that no rank needs to explain.
        limit: the highest rank that is of use.
        likely: a guess at the rank; a good one saves time.
        seed: of the random sketch. The same seed gives the same factors.

    Returns:
        Factors of the smallest rank that leaves no more than the rounding noise, or why there are none.
    """
    difference, whole, norm, noise = _subtract(base, target, shape, rounding)
    allowed = max(_NOISE_SLACK * noise, _NEGLIGIBLE * whole)
    size = norm or 1.0
    limit = min(limit, *shape)
    tail = np.array([whole])
    for width, iterations in _attempts(likely, limit, min(shape)):
        spectrum = _decompose(difference, _range_of(difference, width, iterations, seed))
        tail = spectrum.tail()
        enough = np.flatnonzero(tail <= allowed)
        if enough.size and enough[0] <= limit:
            down, up = spectrum.factors(int(enough[0]))
            return LowRank(
                down=down,
                up=up,
                error=_left_by(difference, down, up) / size,
                difference=whole / size,
                noise=noise / size,
            )
    left = float(tail[min(limit, len(tail) - 1)])
    return NotLowRank(limit=limit, error=left / size, difference=whole / size, noise=noise / size)


def nearest(difference: Floats, rank: int, *, seed: int = 0) -> tuple[Factor, Factor]:
    """The two thin matrices whose product comes closest to a difference, whatever they leave of it.

    Args:
        difference: float32 [rows, columns], of any rank.
        rank: how many directions to keep.
        seed: of the random sketch.

    Returns:
        `down` [columns, rank] and `up` [rank, rows] as in `LowRank`.
    """
    width = min(rank + _OVERSAMPLING, *difference.shape)
    return _decompose(difference, _range_of(difference, width, _FLAT_ITERATIONS, seed)).factors(rank)


def rounding_noise(values: Floats, bits: int) -> float:
    """Expected squared Frobenius norm of the error of rounding to a fraction of so many bits.

    The error is uniform over one step of the grid, so its variance is step ** 2 / 12.
    """
    # A float32 without sign and fraction is the power of two below its value, and nought for nought.
    powers = (np.ascontiguousarray(values).view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    return _squares(powers) * 4.0**-bits / 12


def _subtract(
    base: Callable[[slice], Floats],
    target: Callable[[slice], Floats],
    shape: tuple[int, int],
    rounding: Rounding,
) -> tuple[Floats, float, float, float]:
    """target - base float32 [rows, columns], its norm, the target's, and the expected norm of the noise."""
    difference = np.empty(shape, np.float32)
    squares = whole = noise = 0.0
    for start in range(0, shape[0], _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, shape[0]))
        one, other = base(rows), target(rows)
        np.subtract(other, one, out=difference[rows])
        squares += _squares(other)
        whole += _squares(difference[rows])
        noise += rounding_noise(one, rounding.base) + rounding_noise(other, rounding.target)
    return difference, math.sqrt(whole), math.sqrt(squares), math.sqrt(noise)


def _attempts(likely: int, limit: int, smaller_side: int) -> Iterator[tuple[int, int]]:
    """Widths of the sketch and power iterations, the cheapest first.

    A plain sketch finds directions that stand out from the noise; a power iteration those that hardly do; and
    the last width is enough for every rank up to the limit.
    """
    last = min(limit + _OVERSAMPLING, smaller_side)
    width = min(likely + _OVERSAMPLING, last)
    yield width, 0
    yield width, 1
    while width < last:
        width = min(3 * width, last)
        yield width, 1


def _range_of(matrix: Floats, width: int, iterations: int, seed: int) -> Floats:
    """Orthonormal columns [rows, width] that span nearly what the matrix's largest directions span."""
    generator = np.random.default_rng(seed)
    sketch = matrix @ generator.standard_normal((matrix.shape[1], width), dtype=np.float32)
    for _ in range(iterations):
        sketch = matrix @ _orthonormal(matrix.T @ _orthonormal(sketch))
    return _orthonormal(sketch)


def _orthonormal(columns: Floats) -> Floats:
    """Orthonormal columns of the same span, [n, w]; where the span is narrower, some are nought.

    By the eigenvectors of the small Gram matrix, ten times faster than a QR of many rows; the second pass
    removes what the first one's rounding left.
    """
    for _ in range(2):
        values, vectors = _gram(columns.T)
        inverse = np.where(values > _DEFICIENT * values[0], 1 / np.sqrt(np.maximum(values, 1e-300)), 0)
        columns = columns @ (vectors * inverse).astype(np.float32)
    return columns


def _gram(rows: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, largest first, and eigenvectors [w, w] of rows @ rows.T, in float64."""
    wide = rows.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.T)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def _decompose(matrix: Floats, basis: Floats) -> _Spectrum:
    inside = basis.T @ matrix
    squares = 0.0
    for start in range(0, matrix.shape[0], _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        # Explicitly: the difference of two squared norms would drown in their own rounding.
        squares += _squares(matrix[rows] - basis[rows] @ inside)
    values, vectors = _gram(inside)
    values = np.sqrt(values)
    left = vectors.astype(np.float32)
    scales = np.where(values > 0, 1 / np.maximum(values, 1e-300), 0).astype(np.float32)
    return _Spectrum(basis @ left, values, (left * scales).T @ inside, math.sqrt(squares))


def _left_by(difference: Floats, down: NDArray[np.float16], up: NDArray[np.float16]) -> float:
    """Norm of the difference without the stored factors' product."""
    wide_down, wide_up = down.astype(np.float32), up.astype(np.float32)
    squares = 0.0
    for start in range(0, difference.shape[0], _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        squares += _squares(difference[rows] - wide_up[:, rows].T @ wide_down.T)
    return math.sqrt(squares)


def _squares(values: Floats) -> float:
    """Sum of squares. Callers add up pieces of a few million values, so float32 holds six digits of it."""
    flat = values.reshape(-1)
    return float(np.dot(flat, flat))
