"""By how much fingerprints differ, of pictures and of films, in grey levels of their worst cell of 4 x 4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .fingerprint import Print

# Of films: frames apart in time, their cells apart, and how many of the frames must agree.
_FRAME_MS = 350
_FRAME_CELLS = 20.0
_FRAMES_PART = 0.75


def cells_apart(lumas: NDArray[np.uint8], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """The worst 4 x 4 cell's difference of two fingerprints in grey levels, float32 [pairs]."""
    apart = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), 4096):
        first, second = np.array(pairs[start : start + 4096]).T
        apart[start : start + 4096] = _worst_cells(lumas[first], lumas[second])
    return apart


def _worst_cells(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    differing = np.abs(one.astype(np.int16) - other)
    cells = differing.reshape(len(differing), 8, 4, 8, 4).mean(axis=(2, 4), dtype=np.float32)
    worst: NDArray[np.float32] = cells.max(axis=(1, 2))
    return worst


def films_apart(one: Sequence[Print], other: Sequence[Print]) -> float | None:
    """The median frame's difference in grey levels of two films that are one, else None."""
    apart = []
    for frame in one:
        nearest = min(other, key=lambda candidate: abs(candidate.t_ms - frame.t_ms))
        if abs(nearest.t_ms - frame.t_ms) <= _FRAME_MS:
            apart.append(float(_worst_cells(frame.luma[None], nearest.luma[None])[0]))
    needed = _FRAMES_PART * max(len(one), len(other))
    agreeing = [value for value in apart if value <= _FRAME_CELLS]
    return float(np.median(agreeing)) if agreeing and len(agreeing) >= needed else None
