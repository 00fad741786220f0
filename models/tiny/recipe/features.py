"""Vision features of the pool, computed once: the tower is frozen while the text layers train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .labels import shown
from .model import Features, VisionForward, patchify
from .pool import PARTS, Part
from .prompts import Grid


@dataclass(frozen=True, slots=True)
class Documents:
    """Rows of one part with their features, fp16 [N, V, C] and [N, D, V, C]."""

    grid: Grid
    scenes: NDArray[np.int16]
    families: list[NDArray[np.int64]]
    family_of: NDArray[np.int32]
    shown: NDArray[np.bool_] | None  # [N, V, 44], photographs only
    merged: NDArray[np.float16]
    deep: NDArray[np.float16]

    def rows(self, index: NDArray[np.int64] | list[int]) -> Features:
        return Features(
            torch.from_numpy(np.asarray(self.merged[index], np.float32)),
            torch.from_numpy(np.asarray(self.deep[index], np.float32)),
        )


@torch.no_grad()
def encode(
    vision: VisionForward, pixels: NDArray[np.uint8], grid: Grid, *, batch: int = 64
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """uint8 [N, F, H, W, 3] -> merged [N, V, C], deep [N, D, V, C] in fp16, as the cache keeps them."""
    merged, deep = [], []
    for start in range(0, len(pixels), batch):
        part = np.asarray(pixels[start : start + batch])
        n = len(part)
        frames = part.reshape(n * grid.slices, -1, *part.shape[2:])
        out = vision(patchify(frames))
        width = out.merged.shape[-1]
        merged.append(out.merged.reshape(n, grid.tokens, width).half().numpy())
        slices = out.deep.reshape(n, grid.slices, out.deep.shape[1], grid.side**2, width)
        deep.append(slices.transpose(1, 2).reshape(n, -1, grid.tokens, width).half().numpy())
    return np.concatenate(merged), np.concatenate(deep)


def encode_pool(vision: VisionForward, pool: Path, out: Path) -> None:
    """Write the features of every part of the pool."""
    for name, grid in PARTS.items():
        part = Part.load(pool / name, grid)
        merged, deep = encode(vision, part.pixels, grid)
        (out / name).mkdir(parents=True, exist_ok=True)
        np.save(out / name / "merged.npy", merged)
        np.save(out / name / "deep.npy", deep)


def open_documents(pool: Path, features: Path) -> dict[str, Documents]:
    documents = {}
    for name, grid in PARTS.items():
        part = Part.load(pool / name, grid)
        family_of = np.array(part.families)
        starts = np.flatnonzero(np.r_[True, family_of[1:] != family_of[:-1]])
        documents[name] = Documents(
            grid=grid,
            scenes=np.array(part.scenes),
            families=np.split(np.arange(len(family_of)), starts[1:]),
            family_of=family_of,
            shown=None if grid.video else shown(np.array(part.boxes), grid.side),
            merged=np.load(features / name / "merged.npy"),
            deep=np.load(features / name / "deep.npy"),
        )
    return documents
