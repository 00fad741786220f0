"""Cutting a video into scenes: from looked-at frames to stretches that get one vector each.

A cut is where two neighbouring looks differ both in place and in colour. Scenes shorter than the minimum
are not cut off, longer ones than the maximum are cut at it, and a short rest at the end joins the scene
before it. Works on a stream of frames and keeps two scenes in memory; knows nothing of containers and
codecs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..model.pixels import PixelBudget

_GRID = 24
"""Frames are compared as `_GRID` by `_GRID` cells of mean colour."""


@dataclass(frozen=True, slots=True)
class SceneSettings:
    """How videos are cut. Part of what an index is made of: other settings give other segments.

    `cut` is the difference of two neighbouring looks, in [0, 1], from which on they are two scenes.
    """

    min_s: float = 2.0
    max_s: float = 20.0
    cut: float = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """One looked-at frame: when, and what it shows. `pixels`: uint8 [H, W, 3]."""

    t_ms: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scene:
    """The stretch [t0_ms, t1_ms) of a video and the frames that stand for it, at least one, in order."""

    t0_ms: int
    t1_ms: int
    looks: tuple[Look, ...]


@dataclass(slots=True)
class _OpenScene:
    """A scene that still grows: every `stride`-th look is kept, so that memory is bounded."""

    t0_ms: int
    keep: int
    looks: list[Look] = field(default_factory=list)
    stride: int = 1
    count: int = 0

    def add(self, look: Look) -> None:
        if self.count % self.stride == 0:
            self.looks.append(look)
        self.count += 1
        if len(self.looks) > self.keep:
            del self.looks[1::2]
            self.stride *= 2

    def close(self, t1_ms: int, budget: PixelBudget) -> Scene:
        times = np.array([look.t_ms for look in self.looks])
        seconds = max(t1_ms - self.t0_ms, 1) / 1000
        wanted = min(max(int(seconds * budget.fps), budget.min_frames), budget.max_frames)
        moments = np.linspace(times[0], times[-1], wanted)
        nearest = {int(np.abs(times - moment).argmin()) for moment in moments}
        return Scene(self.t0_ms, t1_ms, tuple(self.looks[index] for index in sorted(nearest)))


def cut_scenes(
    looks: Iterable[Look], *, duration_ms: int | None, settings: SceneSettings, budget: PixelBudget
) -> Iterator[Scene]:
    """Cut a stream of looks into scenes that cover the video from 0 to its end without gaps.

    `duration_ms` is the container's word, None when it has none; the last look counts when it is later.
    `budget` says how many frames stand for a scene: `fps` a second, evenly spread over its looks.
    """
    keep = 4 * budget.max_frames
    min_ms, max_ms = settings.min_s * 1000, settings.max_s * 1000
    waiting: _OpenScene | None = None  # closed, unless what follows turns out too short to stand alone
    current: _OpenScene | None = None
    previous: NDArray[np.float32] | None = None
    step_ms = last_ms = 0
    for look in looks:
        cells = _cells(look.pixels)
        if current is None or previous is None:
            current = _OpenScene(0, keep)
        else:
            step_ms = look.t_ms - last_ms
            age = look.t_ms - current.t0_ms
            is_cut = age >= min_ms and difference(previous, cells) >= settings.cut
            if is_cut or age >= max_ms:
                if waiting is not None:
                    yield waiting.close(current.t0_ms, budget)
                waiting, current = current, _OpenScene(look.t_ms, keep)
        current.add(look)
        previous, last_ms = cells, look.t_ms
    if current is None:
        return
    end_ms = max(duration_ms or 0, last_ms + max(step_ms, 1))
    if waiting is not None:
        if end_ms - current.t0_ms < min_ms:
            waiting.looks.extend(current.looks)
            current = waiting
        else:
            yield waiting.close(current.t0_ms, budget)
    yield current.close(end_ms, budget)


def difference(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """How much two frames differ, in [0, 1]: the geometric mean of a difference in place and one in colour.

    In place: the mean absolute difference of cells. In colour: the same after sorting the cells of each
    channel, which is the earth mover's distance of their distributions. A moving camera changes the first
    and hardly the second; a cut changes both. Both arrays: float32 [cells, 3] in [0, 1].
    """
    in_place = float(np.abs(first - second).mean())
    in_colour = float(np.abs(np.sort(first, axis=0) - np.sort(second, axis=0)).mean())
    return math.sqrt(in_place * in_colour)


def _cells(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean colours of a grid over the frame: uint8 [H, W, 3] -> float32 [cells, 3] in [0, 1]."""
    height, width = pixels.shape[:2]
    rows = np.linspace(0, height, min(_GRID, height) + 1).astype(int)[:-1]
    columns = np.linspace(0, width, min(_GRID, width) + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0, dtype=np.uint32), columns, axis=1)
    sizes = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    return (sums / (255.0 * sizes[:, :, None])).reshape(-1, 3).astype(np.float32)
