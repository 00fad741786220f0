"""Whether two thumbnails show one picture: resized, compressed anew, or with its edges cut off.

Both are brought to the same size, and the largest difference of any small block decides: compression and
resizing spread a little everywhere, while something that moved changes a few blocks a lot. Where the shapes
or edges differ, the window of one that shows the other is looked for first.

Measured on rendered scenes (docs/decisions/0011-what-is-a-duplicate.md), in grey levels of the worst block:
copies at most 8.0, a third of their size, compressed hard or cropped; other shots of the scene at least 13.
`SAME` lies between. Two shots in which nothing moved are one picture here, and so are a part and its whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAME = 10.0
"""Grey levels by which no block may differ."""

LEAST_PART = 0.78
"""The smallest part of a side that a cropped copy may have kept."""

_SIDE, _BLOCK = 128, 8
_ASPECT = 0.02
# A search on few pixels first: it sees further, and does not get stuck on details.
_FAR = 14.0  # grey levels, root mean square; measured for parts: at most 6
_SEARCHES = ((24, (0.04, 0.02, 0.01)), (96, (0.01, 0.005, 0.0025, 0.00125)))
# Moves of a window: left edge, top edge, scale; those that scale keep one corner, or the middle.
_MOVES = (
    *((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0)),
    *((0.0, 0.0, 1.0), (0.0, 0.0, -1.0), (0.5, 0.5, -1.0), (-0.5, -0.5, 1.0)),
    *((1.0, 1.0, -1.0), (1.0, 0.0, -1.0), (0.0, 1.0, -1.0)),
)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture in fractions of its sides: the left and upper edge, and how much of both sides."""

    x: float
    y: float
    width: float
    height: float


def difference(one: Image.Image, other: Image.Image) -> float | None:
    """The worst block's difference in grey levels of two pictures of one shape; None for other shapes."""
    if abs(np.log((one.width * other.height) / (one.height * other.width))) > _ASPECT:
        return None
    return _worst_block(one, (0, 0, one.width, one.height), other)


def difference_of_part(whole: Image.Image, part: Image.Image, start: Window) -> float:
    """The same for a picture and a part of it that shows all of `part`, searched from `start` on."""
    box = _refined(whole.convert("L"), part.convert("L"), start)
    return 255.0 if box is None else _worst_block(whole, box, part)


Box = tuple[float, float, float, float]


def _worst_block(whole: Image.Image, box: Box, part: Image.Image) -> float:
    scale = _SIDE / max(part.size)
    width, height = (max(_BLOCK, round(side * scale / _BLOCK) * _BLOCK) for side in part.size)
    first, second = _pixels(whole, box, (width, height)), _pixels(part, None, (width, height))
    differing = np.abs(first - second).mean(axis=2)
    blocks = differing.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).mean(axis=(1, 3))
    return float(blocks.max())


def _refined(whole: Image.Image, part: Image.Image, start: Window) -> Box | None:
    """The window of `whole`, of the shape of `part`, that differs least from it: a search downhill.

    None where not even the coarse search finds something like it.
    """
    ratio = part.width / part.height
    widest = min(1.0, whole.height * ratio / whole.width)
    tallest = min(1.0, whole.width / ratio / whole.height)

    def inside(x: float, y: float, scale: float) -> tuple[float, float, float]:
        scale = min(1.0, max(LEAST_PART - 0.05, scale))
        return min(max(x, 0.0), 1 - widest * scale), min(max(y, 0.0), 1 - tallest * scale), scale

    def box(x: float, y: float, scale: float) -> Box:
        left, top = x * whole.width, y * whole.height
        right, bottom = left + widest * scale * whole.width, top + tallest * scale * whole.height
        return left, top, min(right, whole.width), min(bottom, whole.height)

    best = inside(start.x, start.y, max(start.width / widest, start.height / tallest))
    for side, steps in _SEARCHES:
        shrink = side / max(part.size)
        size = (max(8, round(part.width * shrink)), max(8, round(part.height * shrink)))
        wanted = _pixels(part, None, size)
        least = float(np.square(_pixels(whole, box(*best), size) - wanted).mean())
        for step in steps:
            moved = True
            while moved:
                moved = False
                for x, y, scale in _MOVES:
                    tried = inside(best[0] + x * step, best[1] + y * step, best[2] + scale * step)
                    found = float(np.square(_pixels(whole, box(*tried), size) - wanted).mean())
                    if found < least * 0.999:
                        best, least, moved = tried, found, True
        if least > _FAR**2:
            return None
    return box(*best)


def _pixels(image: Image.Image, box: Box | None, size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box), np.float32)
