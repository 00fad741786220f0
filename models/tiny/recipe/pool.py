"""The training pool: scenes in families, their pictures, and where every object is.

A family is a scene and siblings of it. Mixed families (4) differ in one attribute of any kind; structure
families (8) differ in count, position, size or relation alone, which is what embeddings find hardest. Half of
the pictures are drawn at the model's own size, half at 512 and scaled down bicubic after a JPEG round trip,
as photographs in a library are.
"""

from __future__ import annotations

import io
import itertools
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from qvl_local.runtime.world.scenes import held, sample, sibling, valid
from qvl_local.runtime.world.vocabulary import GROUP_A, GROUP_B, Kind, Motion, Slot

from .drawing import Box, draw_clip, draw_photo
from .prompts import CLIP_8, CLIP_16, IMAGE, Grid

MAX_BOXES = 12  # a scene holds at most 3 + 3 objects and a sign
BOX_FIELDS = 7  # object, colour, x, y, width, height, size or motion; a sign is object -word
LARGE = 512


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """How many families of each kind."""

    structure: int = 1000
    mixed: int = 2000
    clips_8: int = 300
    clips_16: int = 300
    seed: int = 11


@dataclass(frozen=True, slots=True)
class Part:
    """Documents of one grid. Families are consecutive rows."""

    grid: Grid
    scenes: NDArray[np.int16]  # [N, 17]
    families: NDArray[np.int32]  # [N], index of the family
    boxes: NDArray[np.int16]  # [N, F, MAX_BOXES, BOX_FIELDS], object -99 where there is none
    pixels: NDArray[np.uint8]  # [N, F, side, side, 3], F = 1 for photographs

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("scenes", "families", "boxes", "pixels"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path, grid: Grid) -> Part:
        names = ("scenes", "families", "boxes", "pixels")
        return cls(grid, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


PARTS: dict[str, Grid] = {"photos": IMAGE, "clips_8": CLIP_8, "clips_16": CLIP_16}


def build(folder: Path, plan: PoolPlan, *, workers: int) -> None:
    """Draw the whole pool into `folder`, one folder a part."""
    rng = random.Random(plan.seed)
    photos = [structure_family(rng) for _ in range(plan.structure)] + [
        mixed_family(rng, Kind.PHOTO) for _ in range(plan.mixed)
    ]
    rng.shuffle(photos)
    families = {
        "photos": photos,
        "clips_8": [mixed_family(rng, Kind.CLIP) for _ in range(plan.clips_8)],
        "clips_16": [mixed_family(rng, Kind.CLIP) for _ in range(plan.clips_16)],
    }
    for name, grid in PARTS.items():
        draw_part(families[name], grid, seed=f"{plan.seed}/{name}", workers=workers).save(folder / name)


def mixed_family(rng: random.Random, kind: Kind) -> NDArray[np.int16]:
    first = sample(rng, held_out=False, kind=kind)
    return np.stack([first] + [sibling(rng, first, held_out=False) for _ in range(3)])


def structure_family(
    rng: random.Random, *, size: int = 8, held_out: bool | None = False
) -> NDArray[np.int16]:
    """A photograph and `size` - 1 others of the same things at the same place, arranged otherwise."""
    while True:
        first = sample(rng, held_out=held_out, kind=Kind.PHOTO)
        variants = {v.tobytes(): v for v in _arrangements(first) if valid(v) and _drawable(v)}
        variants.pop(first.tobytes(), None)
        if len(variants) >= size - 1:
            keys = sorted(variants)
            return np.stack([first] + [variants[key] for key in rng.sample(keys, size - 1)])


def _arrangements(scene: NDArray[np.int16]) -> list[NDArray[np.int16]]:
    out = []
    if scene[Slot.B_OBJECT] >= 0:
        for relation, a, b in itertools.product(range(1, 5), range(1, 4), range(1, 4)):
            if (a != scene[Slot.A_COUNT]) + (b != scene[Slot.B_COUNT]) + (
                relation != scene[Slot.RELATION]
            ) > 2:
                continue
            other = scene.copy()
            other[[Slot.RELATION, Slot.A_COUNT, Slot.B_COUNT]] = relation, a, b
            out.append(other)
        return out
    for position, size in itertools.product(range(1, 6), range(1, 4)):
        other = scene.copy()
        other[[Slot.A_COUNT, Slot.A_POSITION, Slot.A_SIZE]] = 1, position, size
        out.append(other)
    for count, size in itertools.product(range(2, 6), range(1, 4)):
        other = scene.copy()
        other[[Slot.A_COUNT, Slot.A_POSITION, Slot.A_SIZE]] = count, 0, size if count == 2 else 2
        out.append(other)
    return out


def _drawable(scene: NDArray[np.int16]) -> bool:
    a, b = scene[GROUP_A], scene[GROUP_B]
    return not (b[0] >= 0 and a[0] == b[0] and a[2] == b[2])


def is_held_out(scene: NDArray[np.int16]) -> bool:
    """Whether any group of the scene is a held-out pair of object and place."""
    things = [int(scene[Slot.A_OBJECT]), int(scene[Slot.B_OBJECT])]
    return any(thing >= 0 and held(thing, int(scene[Slot.PLACE])) for thing in things)


def draw_part(families: list[NDArray[np.int16]], grid: Grid, *, seed: str, workers: int) -> Part:
    """Render every scene; the picture depends on `seed` and the scene's number alone."""
    scenes = np.concatenate(families)
    numbers = np.repeat(np.arange(len(families), dtype=np.int32), [len(f) for f in families])
    jobs = [(scene, grid, f"{seed}/{i}") for i, scene in enumerate(scenes)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            drawn = list(pool.map(_draw, jobs, chunksize=64))
    else:
        drawn = [_draw(job) for job in jobs]
    return Part(grid, scenes, numbers, np.stack([b for _, b in drawn]), np.stack([p for p, _ in drawn]))


def _draw(job: tuple[NDArray[np.int16], Grid, str]) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    scene, grid, seed = job
    rng = random.Random(seed)
    side = grid.side * 32
    drawn_at = LARGE if rng.random() < 0.5 else side
    if grid.video:
        frames, boxes = draw_clip(
            scene, seed, size=drawn_at, frames=grid.slices * 2, smooth=rng.random() < 0.5
        )
    else:
        frame, found = draw_photo(scene, seed, size=drawn_at)
        frames, boxes = [frame], [found]
    pixels = np.stack([_photograph(f, side, rng) if drawn_at != side else f for f in frames])
    return pixels, _pack(boxes, side / drawn_at)


def _photograph(pixels: NDArray[np.uint8], side: int, rng: random.Random) -> NDArray[np.uint8]:
    """A JPEG round trip and a bicubic reduction with antialias, as the processor does it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=rng.randint(75, 95))
    return np.asarray(Image.open(buffer).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def _pack(frames: list[list[Box]], scale: float) -> NDArray[np.int16]:
    packed = np.full((len(frames), MAX_BOXES, BOX_FIELDS), -99, np.int16)
    for f, boxes in enumerate(frames):
        for b, box in enumerate(boxes[:MAX_BOXES]):
            place = (round(v * scale) for v in (box.x, box.y, box.width, box.height))
            packed[f, b] = (box.thing, box.colour, *place, box.note)
    return packed


def motion_of(scene: NDArray[np.int16]) -> int:
    """The motion inside one pair of frames: none while one thing follows another."""
    motion = int(scene[Slot.MOTION])
    return 0 if motion == Motion.THEN else motion
