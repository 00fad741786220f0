"""Trains the vision tower on dense labels: what every 32-pixel cell of a scene shows.

Contrastive training of vision and text from scratch stays at place and time at this budget; with a label for
every cell (things and colours in it, the thing whose centre it holds, that thing's size, the word of a sign,
the motion between two frames, its own row and column) objects are read in minutes. The labels hang on the
merger's output and, lighter, on the deepstack outputs.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from numpy.typing import NDArray
from qvl_local.runtime.world.vocabulary import COLOURS, OBJECTS, WORDS, Motion, Slot
from torch import Tensor, nn

from .model import Features, VisionForward, load, patchify
from .optim import clip, rate
from .parallel import add_up_gradients, agreed, launch
from .pool import PARTS, Part, motion_of

THINGS, TINTS = len(OBJECTS), 1 + len(COLOURS)
SIZES, SIGNS, MOTIONS = 3, 1 + len(WORDS), len(Motion) - 1
PRESENT = THINGS + TINTS + THINGS  # thing, colour, thing whose centre is here
OUTPUTS = (PRESENT, SIZES, SIGNS, MOTIONS, 2)


@dataclass(frozen=True, slots=True)
class VisionPlan:
    steps: int = 1500
    minutes: float = 600.0
    seed: int = 21
    lr: float = 4e-4
    batch: int = 32  # a process; photographs, or pairs of frames of as many clips
    decay: float = 0.7
    heads_first: int = 60  # steps before the tower moves: fresh heads would spoil a good one


@dataclass(frozen=True, slots=True)
class CellLabels:
    """present float [S, V, 98]; size, word, motion int [S, V], -1 where unknown; scene int [S, 3]: place,
    time, weather.
    """

    present: Tensor
    size: Tensor
    word: Tensor
    motion: Tensor
    scene: Tensor


class CellHeads(nn.Module):
    """Linear readers of every visual token, one for the merger and one for each deepstack output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = nn.ModuleList([nn.Linear(width, sum(OUTPUTS)) for _ in range(4)])
        self.scene = nn.Linear(width, 16)

    def loss(self, features: Features, labels: CellLabels) -> tuple[Tensor, dict[str, float]]:
        side = int(features.merged.shape[1] ** 0.5)
        line = (torch.arange(side) + 0.5) / side
        own = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(1, -1, 2)
        total, seen = features.merged.new_zeros(()), {}
        for number, head in enumerate(self.tokens):
            x = features.merged if number == 0 else features.deep[:, number - 1]
            present, size, word, motion, place = head(x).split(OUTPUTS, -1)
            part = 30 * F.binary_cross_entropy_with_logits(
                present, labels.present, pos_weight=torch.tensor(6.0)
            )
            part = part + 2 * ((place - own) ** 2).mean()
            for name, logits, answer, weight in (
                ("size", size, labels.size, 0.2),
                ("word", word, labels.word, 0.6),
                ("motion", motion, labels.motion, 0.4),
            ):
                known = answer >= (1 if name == "word" else 0)
                if known.any():
                    part = part + weight * F.cross_entropy(logits[known], answer[known])
                    if number == 0:
                        seen[name] = (logits[known].argmax(-1) == answer[known]).float().mean().item()
                if name == "word":
                    part = part + 0.1 * F.cross_entropy(logits.flatten(0, 1), answer.flatten())
            if number == 0:
                single = labels.present[..., -THINGS:].sum(-1) == 1
                centre = present[..., -THINGS:]
                right = centre[single].argmax(-1) == labels.present[..., -THINGS:][single].argmax(-1)
                seen["object"] = right.float().mean().item()
                seen["centre"] = (
                    ((centre.amax(-1) > 0) == (labels.present[..., -THINGS:].amax(-1) > 0))
                    .float()
                    .mean()
                    .item()
                )
            total = total + (1.0 if number == 0 else 0.25) * part
        for logits, answer in zip(
            self.scene(features.merged.mean(1)).split((10, 3, 3), 1), labels.scene.T, strict=True
        ):
            total = total + 0.3 * F.cross_entropy(logits, answer)
        return total, seen


def label_cells(
    boxes: NDArray[np.int16], scene: NDArray[np.int16], side: int
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Labels of one picture or pair of frames: boxes [F, 12, 7] -> present [V, 98], size, word, motion [V].

    In a pair a thing is labelled where it is on average.
    """
    present = np.zeros((side, side, PRESENT), np.float32)
    size, word, motion = (np.full((side, side), value) for value in (-1, 0, -1))
    merged = boxes[0] if len(boxes) == 1 or boxes[0, 0, 0] != boxes[1, 0, 0] else boxes.mean(0).astype(int)
    for thing, colour, x, y, w, h, note in merged.tolist():
        if thing == -99:
            continue
        for row in range(max(0, y // 32), min(side, (y + h) // 32 + 1)):
            for column in range(max(0, x // 32), min(side, (x + w) // 32 + 1)):
                across = max(0, min(x + w, column * 32 + 32) - max(x, column * 32))
                down = max(0, min(y + h, row * 32 + 32) - max(y, row * 32))
                if thing < 0:
                    word[row, column] = -thing if across * down > 200 else word[row, column]
                elif across * down > 0.35 * min(w * h, 1024):
                    present[row, column, [thing, THINGS + colour]] = 1
        if thing >= 0:
            row, column = (
                min(side - 1, max(0, int(y + h / 2) // 32)),
                min(side - 1, max(0, int(x + w / 2) // 32)),
            )
            present[row, column, [thing, THINGS + colour, THINGS + TINTS + thing]] = 1
            if len(boxes) == 1:
                size[row, column] = note - 1
            elif scene[Slot.MOTION] != Motion.THEN:
                motion[row, column] = motion_of(scene)
    return present.reshape(side * side, -1), size.ravel(), word.ravel(), motion.ravel()


def train_vision(plan: VisionPlan, *, start: Path, out: Path, pool: Path, workers: int) -> None:
    """Fine-tune the tower of checkpoint `start` on the pool's pixels; write the whole checkpoint to `out`."""
    launch(workers, _train, plan, start, out, pool)


def _train(rank: int, workers: int, plan: VisionPlan, start: Path, out: Path, pool: Path) -> None:
    torch.manual_seed(plan.seed)
    rng = random.Random(plan.seed + 1000 * rank)
    parts = {name: Part.load(pool / name, grid) for name, grid in PARTS.items()}
    model = load(start)
    vision, heads = VisionForward(model), CellHeads(256)
    parameters = [*model.model.visual.parameters(), *heads.parameters()]
    groups = [
        {"params": list(model.model.visual.parameters()), "base": plan.lr},
        {"params": list(heads.parameters()), "base": 4e-3},
    ]
    optimiser = torch.optim.AdamW(groups, lr=plan.lr, weight_decay=0.02, betas=(0.9, 0.98), fused=True)
    log: dict[str, list[float]] = defaultdict(list)
    began, step = time.monotonic(), 0
    while (progress := agreed(max(step / plan.steps, (time.monotonic() - began) / 60 / plan.minutes))) < 1:
        for group in optimiser.param_groups:
            late = 0 if group["base"] == plan.lr and step < plan.heads_first else 1
            group["lr"] = late * group["base"] * rate(progress, step, warmup=60, decay=plan.decay)
        name = rng.choice(("photos", "photos", "photos", "clips_8", "clips_16"))
        pixels, labels = _draw(rng, parts[name], plan.batch)
        loss, seen = heads.loss(vision(patchify(pixels)), labels)
        (loss / workers).backward()
        add_up_gradients(parameters)
        clip(parameters, 2.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        log[f"{name} loss"].append(loss.item())
        for key, value in seen.items():
            log[f"{name} {key}"].append(value)
        if step % 25 == 0 and rank == 0:
            line = " ".join(f"{key} {np.nanmean(values):.3f}" for key, values in sorted(log.items()))
            print(f"{(time.monotonic() - began) / 60:.1f}min {step}/{plan.steps} {line}", flush=True)
            log.clear()
    if rank == 0:
        model.save_pretrained(out)


def _draw(rng: random.Random, part: Part, batch: int) -> tuple[NDArray[np.uint8], CellLabels]:
    """A batch of photographs, or of pairs of frames from as many clips."""
    rows = sorted(rng.sample(range(len(part.scenes)), batch))
    pixels, boxes = np.array(part.pixels[rows]), np.array(part.boxes[rows])
    if part.grid.video:
        first = np.array([rng.randrange(part.grid.slices) * 2 for _ in rows])
        pair = first[:, None] + np.arange(2)
        pixels, boxes = pixels[np.arange(batch)[:, None], pair], boxes[np.arange(batch)[:, None], pair]
    scenes = np.array(part.scenes[rows])
    each = [label_cells(b, s, part.grid.side) for b, s in zip(boxes, scenes, strict=True)]
    present, size, word, motion = (torch.from_numpy(np.stack(column)) for column in zip(*each, strict=True))
    scene = torch.from_numpy(scenes[:, [Slot.PLACE, Slot.TIME, Slot.WEATHER]].astype(np.int64))
    return pixels, CellLabels(present, size, word, motion, scene)
