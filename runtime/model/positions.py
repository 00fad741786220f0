"""Positions: where patches and tokens stand, as the cos, sin, indices and weights that the graphs take.

Everything here depends on sizes alone, never on pixels or weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import TextConfig, VisionConfig

# The vision tower's rotary base is fixed in the architecture; config.json does not carry it.
VISION_ROPE_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class PatchPositions:
    """Inputs of the vision graph for one grid of N patches in merge order.

    `index` int64 [N, 4] and `weight` float32 [N, 4]: the four learned positions around each patch and their
    bilinear weights. `cos`, `sin`: float32 [N, head_dim / 2].
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]


def patch_positions(rows: int, columns: int, vision: VisionConfig) -> PatchPositions:
    """Positions of a grid of `rows` x `columns` patches (both multiples of the merge size).

    The table of learned positions, `grid_side` squared, is stretched over the grid with its corners aligned.
    Half of each head's rotary pairs turn with the row, half with the column.
    """
    row, column = _merge_order(rows, columns, vision.merge_size)
    row_index, row_weight = _between(row, rows, vision.grid_side)
    column_index, column_weight = _between(column, columns, vision.grid_side)
    index = row_index[:, :, None] * vision.grid_side + column_index[:, None, :]
    weight = row_weight[:, :, None] * column_weight[:, None, :]
    half = vision.head_dim // 2
    inverse = _inverse_frequencies(half, VISION_ROPE_THETA)
    angles = np.concatenate([_outer(row, inverse), _outer(column, inverse)], axis=1)
    return PatchPositions(
        index=index.reshape(-1, 4),
        weight=weight.reshape(-1, 4),
        cos=np.cos(angles),
        sin=np.sin(angles),
    )


def token_positions(is_visual: NDArray[np.bool_], grids: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Three-axis (time, row, column) positions of a prompt's tokens, int64 [3, T].

    Text advances all three together. The tokens of one image or frame pair share a time and spread over rows
    and columns; text after them goes on behind the longer side.

    Args:
        is_visual: bool [T], true at the tokens that stand for visual features.
        grids: rows and columns of visual tokens of each image or frame pair, in prompt order.
    """
    positions = np.empty((3, len(is_visual)), dtype=np.int64)
    here = 0  # token
    position = 0
    for rows, columns in grids:
        start = here + int(np.argmax(is_visual[here:]))
        positions[:, here:start] = position + np.arange(start - here)
        position += start - here
        here = start + rows * columns
        positions[0, start:here] = position
        positions[1, start:here] = position + np.repeat(np.arange(rows), columns)
        positions[2, start:here] = position + np.tile(np.arange(columns), rows)
        position += max(rows, columns)
    positions[:, here:] = position + np.arange(len(is_visual) - here)
    return positions


def token_rotary(
    positions: NDArray[np.int64], text: TextConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Interleaved mrope: cos and sin, float32 [..., T, head_dim / 2], for positions int64 [3, ..., T].

    Rotary pairs go time, row, column, time, row, column, ... as far as `mrope_section` reaches, then time.
    """
    inverse = _inverse_frequencies(text.head_dim, text.rope_theta)
    time, row, column = (positions[axis].astype(np.float32)[..., None] * inverse for axis in range(3))
    for offset, axis in ((1, row), (2, column)):
        chosen = slice(offset, text.mrope_section[offset] * 3, 3)
        time[..., chosen] = axis[..., chosen]
    return np.cos(time), np.sin(time)


def _merge_order(rows: int, columns: int, merge: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of every patch, the patches of one token together."""
    shape = (rows // merge, columns // merge, merge, merge)
    row = np.arange(rows).reshape(rows // merge, 1, merge, 1)
    column = np.arange(columns).reshape(1, columns // merge, 1, merge)
    return np.broadcast_to(row, shape).reshape(-1), np.broadcast_to(column, shape).reshape(-1)


def _between(
    place: NDArray[np.int64], count: int, side: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The two learned positions around each place on an axis of `count` patches, and their weights."""
    stretched = np.linspace(0, side - 1, count, dtype=np.float32)[place]
    low = stretched.astype(np.int64)
    high = np.minimum(low + 1, side - 1)
    fraction = (stretched - low).astype(np.float32)
    return np.stack([low, high], axis=1), np.stack([1 - fraction, fraction], axis=1)


def _inverse_frequencies(dim: int, theta: float) -> NDArray[np.float32]:
    """theta ** (-2i / dim), float32 [dim / 2]."""
    exponent = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    inverse: NDArray[np.float32] = np.float32(1.0) / np.power(np.float32(theta), exponent, dtype=np.float32)
    return inverse


def _outer(place: NDArray[Any], inverse: NDArray[np.float32]) -> NDArray[np.float32]:
    return place.astype(np.float32)[:, None] * inverse
