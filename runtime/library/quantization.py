"""Full-width int8 vectors with one scale for a whole space.

int8 = round(float * scale), clipped to [-127, 127]. One scale keeps dot products of stored vectors
comparable, so that a search needs no per-row factor. `vec_quantize_int8(..., 'unit')` would spread [-1, 1]
over the range and leave about five bits for components of size 1/sqrt(dims).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INT8_MAX = 127

# The range starts at this quantile of |component| ...
QUANTILE = 0.9995
# ... widened, because later batches hold vectors that the first one did not foresee; a small one foresees
# less.
HEADROOM = 1.1
HEADROOM_OF_FEW = 1.25
FEW = 500

# Ranges tried beyond it, as multiples: embedding models have a few outlier components.
_WIDENINGS = (1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8, 3.4, 4.0, 4.8, 5.6, 6.8, 8.0, 11.2, 16.0)


def choose_scale(vectors: NDArray[np.float32]) -> float:
    """The scale for a space, from its first batch: float32 [n, dims], rows L2-normalised.

    Starts from the quantile 0.9995 of |component| with head-room, and widens the range as long as that
    lowers the squared error (clipping falls, rounding grows): a model with a few large constant components
    needs a wider range than the quantile tells.
    """
    magnitudes = np.abs(vectors).ravel()
    start = float(np.quantile(magnitudes, QUANTILE)) or float(magnitudes.max()) or 1.0
    ranges = [start * widening for widening in _WIDENINGS]
    errors = [_squared_error(magnitudes, limit) for limit in ranges]
    headroom = HEADROOM_OF_FEW if len(vectors) < FEW else HEADROOM
    return INT8_MAX / (ranges[int(np.argmin(errors))] * headroom)


def _squared_error(magnitudes: NDArray[np.float32], limit: float) -> float:
    clipped = np.maximum(magnitudes - limit, 0.0)
    rounding = (limit / INT8_MAX) ** 2 / 12
    return float(np.mean(np.square(clipped, dtype=np.float64)) + rounding)


def quantize(vectors: NDArray[np.float32], scale: float) -> tuple[NDArray[np.int8], int]:
    """float32 [..., dims] -> int8 of the same shape, and how many components were clipped."""
    scaled = np.rint(vectors * np.float32(scale))
    clipped = int(np.count_nonzero(np.abs(scaled) > INT8_MAX))
    return np.clip(scaled, -INT8_MAX, INT8_MAX).astype(np.int8), clipped


def dequantize(stored: NDArray[np.int8], scale: float) -> NDArray[np.float32]:
    """int8 [..., dims] -> float32 of the same shape, as close to the original as int8 allows."""
    return stored.astype(np.float32) / np.float32(scale)


def quantize_query(vector: NDArray[np.float32]) -> NDArray[np.int8]:
    """float32 [d] -> int8 [d] with a scale of its own, so that nothing clips: cosines ignore the length."""
    peak = float(np.abs(vector).max())
    stored: NDArray[np.int8] = np.rint(vector * np.float32(INT8_MAX / peak)).astype(np.int8)
    return stored
