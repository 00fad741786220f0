"""Pictures and clips of the sample world at any size, with the boxes of what they show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.world.render import CLIP_UNITS, IMAGE_UNITS, Renderer, SpriteBox

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels. thing: an object code, or minus a word code; note: a thing's size, in clips its motion."""

    thing: int
    colour: int
    x: float
    y: float
    width: float
    height: float
    note: int


@cache
def _renderer() -> Renderer:
    return Renderer()  # one a process: it keeps sprites and backgrounds


def draw_photo(scene: NDArray[np.int16], seed: str, *, size: int) -> tuple[Pixels, list[Box]]:
    """uint8 [size, size, 3] and its boxes."""
    pixels, boxes = _renderer().image_with_boxes(scene, seed, size)
    return pixels, [_box(box, size / IMAGE_UNITS) for box in boxes]


def draw_clip(
    scene: NDArray[np.int16], seed: str, *, size: int, frames: int, smooth: bool
) -> tuple[list[Pixels], list[list[Box]]]:
    """`frames` pictures uint8 [size, size, 3] over the whole of the motion, and the boxes of each."""
    pixels, boxes = _renderer().clip_with_boxes(scene, seed, size, frames=frames, smooth=smooth)
    return list(pixels), [[_box(box, size / CLIP_UNITS)] for box in boxes]


def _box(box: SpriteBox, scale: float) -> Box:
    place = (value * scale for value in (box.x, box.y, box.width, box.height))
    return Box(box.object, box.colour, *place, box.size)
