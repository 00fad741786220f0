"""Where in one picture another one may lie, from their fingerprints alone: the start of a closer look.

Sides are treated apart: the mean of every column of a cropped copy is that of a stretch of the other's
columns, nearly, and so for the rows. Thousands of pairs cost one product of matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .fingerprint import SIDE
from .likeness import LEAST_PART

_SAMPLES = 24
_LENGTH_STEP, _OFFSET_STEP = 0.03, 0.02
_BLOCK = 4096


def best_windows(
    wholes: NDArray[np.uint8], parts: NDArray[np.uint8], stretches: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """For each pair the window of the whole that is most like the part, and how like it is.

    Args:
        wholes, parts: fingerprints, uint8 [n, 32, 32].
        stretches: float64 [n], log of the part's width / height less that of the whole. A window of the whole
            has the part's shape, so that its width and height, in fractions, differ by this.

    Returns:
        Windows, float64 [n, 4]: left, top, width and height in fractions; correlations in [-1, 1], float32
        [n], of the less alike of both sides.
    """
    starts, lengths = _stretches_of_a_side()
    windows = np.empty((len(wholes), 4))
    scores = np.empty(len(wholes), np.float32)
    for first in range(0, len(wholes), _BLOCK):
        block = slice(first, first + _BLOCK)
        columns = _correlations(wholes[block].mean(axis=1), parts[block].mean(axis=1), starts, lengths)
        rows = _correlations(wholes[block].mean(axis=2), parts[block].mean(axis=2), starts, lengths)
        # Of each length the best place; then the two lengths whose ratio is right and whose fit is best.
        distinct = np.unique(lengths)
        at_x, best_x = _best_of_length(columns, lengths, distinct)
        at_y, best_y = _best_of_length(rows, lengths, distinct)
        ratios = np.log(distinct)[:, None] - np.log(distinct)[None, :]
        is_off = np.abs(ratios[None] - stretches[block, None, None]) > 1.5 * _LENGTH_STEP
        both = np.minimum(best_x[:, :, None], best_y[:, None, :])
        both[is_off] = -1
        chosen = both.reshape(len(both), -1).argmax(axis=1)
        x, y = np.divmod(chosen, len(distinct))
        n = np.arange(len(both))
        windows[block] = np.stack([starts[at_x[n, x]], starts[at_y[n, y]], distinct[x], distinct[y]], axis=1)
        scores[block] = both.reshape(len(both), -1)[n, chosen]
    return windows, scores


def _stretches_of_a_side() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every stretch that is tried: where it starts and how long it is, in parts of a side."""
    found = []
    for length in np.arange(1.0, LEAST_PART - 0.03, -_LENGTH_STEP):
        count = int(np.ceil((1 - length) / _OFFSET_STEP)) + 1
        found += [(start, round(float(length), 6)) for start in np.linspace(0, 1 - length, count)]
    starts, lengths = np.array(found).T
    return starts, lengths


def _correlations(
    wholes: NDArray[np.float64],
    parts: NDArray[np.float64],
    starts: NDArray[np.float64],
    lengths: NDArray[np.float64],
) -> NDArray[np.float32]:
    """[n, 32] each -> [n, stretches]: the correlation of every stretch of the whole with the part."""
    at = starts[:, None] + lengths[:, None] * (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    stretched = _unit((wholes @ _weights(at.ravel()).T).reshape(len(wholes), len(starts), _SAMPLES))
    whole_part = _unit(parts @ _weights((np.arange(_SAMPLES) + 0.5) / _SAMPLES).T)
    correlations: NDArray[np.float32] = np.einsum("nks,ns->nk", stretched, whole_part).astype(np.float32)
    return correlations


def _weights(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation of 32 samples at these parts of a side: [places, 32]."""
    exact = np.clip(places * SIDE - 0.5, 0, SIDE - 1)
    below = np.minimum(exact.astype(int), SIDE - 2)
    weights = np.zeros((len(places), SIDE))
    n = np.arange(len(places))
    weights[n, below] = 1 - (exact - below)
    weights[n, below + 1] = exact - below
    return weights


def _unit(profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = profiles - profiles.mean(axis=-1, keepdims=True)
    unit: NDArray[np.float64] = centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-6)
    return unit


def _best_of_length(
    correlations: NDArray[np.float32], lengths: NDArray[np.float64], distinct: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each length the position of its best stretch, [n, lengths], and that correlation."""
    at = np.empty((len(correlations), len(distinct)), np.int64)
    for number, length in enumerate(distinct):
        own = np.flatnonzero(lengths == length)
        at[:, number] = own[correlations[:, own].argmax(axis=1)]
    return at, np.take_along_axis(correlations, at, axis=1)
