"""Losses and the heads that exist in training only.

The heads read attributes from embeddings (presence of objects; given an object, its count, side and colour;
and so on) and from reranker states (which attributes of the query agree; which cells show what it names).
They are what makes counts and relations learnable in minutes: with the contrastive or yes/no loss alone
nothing but place and time is learnt at this budget.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from numpy.typing import NDArray
from qvl_local.runtime.world.vocabulary import (
    COLOURS,
    INVERSE_RELATION,
    OBJECTS,
    RECOLOURABLE,
    WORDS,
    Kind,
    Motion,
    Slot,
)
from torch import Tensor, nn

from .labels import FLAGS

DIMS = (32, 64, 128, 256)
THINGS, COUNTS, SIDES, SHADES = len(OBJECTS), 5, 5, len(COLOURS)
COLOURED = sorted(RECOLOURABLE)
PER_SCENE = (
    (Slot.PLACE, 10), (Slot.TIME, 3), (Slot.WEATHER, 3), (Slot.WORD, len(WORDS) + 1),
    (Slot.MOTION, len(Motion)), (Slot.A_SIZE, 4),
)  # fmt: skip
_COLOURED_ROW = torch.tensor([COLOURED.index(o) if o in RECOLOURABLE else -1 for o in range(THINGS)])
_INVERSE = torch.tensor(INVERSE_RELATION)


def contrastive(text: Tensor, documents: Tensor, masked: Tensor, scale: Tensor) -> Tensor:
    """In-batch loss both ways at every MRL size; row i of text belongs to row i of documents.

    masked: bool [B, B], true where a document answers the query although it is not its own.
    """
    own = torch.arange(len(text))
    total = text.new_zeros(())
    for d in DIMS:
        similarity = F.normalize(text[:, :d], dim=-1) @ F.normalize(documents[:, :d], dim=-1).T
        logits = (similarity * scale).masked_fill(masked, -1e4)
        total = total + (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / (2 * len(DIMS))
    return total


class AttributeHeads(nn.Linear):
    """One linear layer read as many small classifiers; the same for images, clips and texts."""

    def __init__(self, width: int) -> None:
        shared = THINGS + 1 + SHADES + THINGS * (COUNTS + SIDES) + len(COLOURED) * SHADES
        super().__init__(width, shared + sum(n for _, n in PER_SCENE))

    def loss(self, embedding: Tensor, slots: NDArray[np.int16]) -> tuple[Tensor, dict[str, float]]:
        """slots: scene vectors, or constraint vectors, whose -1 (anything) is left out. Returns loss,
        accuracies.
        """
        out, q = self(embedding), torch.from_numpy(slots.astype(np.int64))
        rows = torch.arange(len(q))
        sizes = [
            THINGS,
            1 + SHADES,
            THINGS * COUNTS,
            THINGS * SIDES,
            len(COLOURED) * SHADES,
            *(n for _, n in PER_SCENE),
        ]
        things, colours, counts, sides, shades, *scene = out.split(sizes, 1)
        counts, sides = counts.view(-1, THINGS, COUNTS), sides.view(-1, THINGS, SIDES)
        shades = shades.view(-1, len(COLOURED), SHADES)
        present, tinted = torch.zeros_like(things), torch.zeros_like(colours)
        still = q[:, Slot.KIND] != Kind.CLIP
        total, seen = out.new_zeros(()), {}
        for name, first in (("A", Slot.A_OBJECT), ("B", Slot.B_OBJECT)):
            thing, count, colour, position = q[:, first], q[:, first + 1], q[:, first + 2], q[:, first + 4]
            named = (thing >= 0) & (thing < THINGS)
            present[rows[named], thing[named]] = 1
            coloured = named & (colour > 0)
            tinted[rows[coloured], colour[coloured]] = 1
            row = thing.clamp(0, THINGS - 1)
            relation = q[:, Slot.RELATION]
            side = torch.where(
                relation > 0, relation if name == "A" else _INVERSE[relation.clamp(min=0)], position
            )
            told = named & (count >= 1) & (count <= COUNTS) & still
            placed = named & (side > 0) & still
            painted = coloured & (_COLOURED_ROW[row] >= 0)
            for label, keep, logits, answer in (
                ("count", told, counts[rows, row], count - 1),
                ("side", placed, sides[rows, row], side - 1),
                ("colour", painted, shades[rows, _COLOURED_ROW[row].clamp(min=0)], colour - 1),
            ):
                if keep.any():
                    total = total + 0.6 * F.cross_entropy(logits[keep], answer[keep]) * keep.float().mean()
                    seen[f"{label} {name}"] = accuracy(logits[keep], answer[keep])
        total = total + F.binary_cross_entropy_with_logits(things, present, reduction="none").sum(1).mean()
        total = total + F.binary_cross_entropy_with_logits(colours, tinted, reduction="none").sum(1).mean()
        for (slot, n), logits in zip(PER_SCENE, scene, strict=True):
            answer = q[:, slot]
            keep = (answer >= 0) & (answer < n)
            keep &= (answer > 0) if slot == Slot.MOTION else torch.ones_like(keep)
            keep &= (answer > 0) | (torch.rand(len(q)) < 0.3) if slot == Slot.WORD else torch.ones_like(keep)
            if keep.any():
                total = total + 0.5 * F.cross_entropy(logits[keep], answer[keep]) * keep.float().mean() ** 0.5
                seen[slot.name.lower()] = accuracy(logits[keep], answer[keep])
        return total, seen


class JudgeHeads(nn.Module):
    """Dense help for the reranker."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.flags = nn.Linear(width, len(FLAGS))
        self.cells = nn.Linear(width, 2)

    def loss(
        self, last: Tensor, visual: Tensor, flags: Tensor, cells: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """last [B, C], visual [B, V, C], flags [B, 12] and cells [B, V, 2] in {-1, 0, 1}; two losses."""
        out, known = self.flags(last), flags >= 0
        first = F.binary_cross_entropy_with_logits(out[known], flags[known].float())
        if cells is None or not (cells >= 0).any():
            return first, first.new_zeros(())
        out, known = self.cells(visual), cells >= 0
        weight = torch.tensor(3.0)  # most cells show nothing that the query names
        return first, F.binary_cross_entropy_with_logits(out[known], cells[known].float(), pos_weight=weight)


def listwise(logits: Tensor, relevant: Tensor) -> Tensor:
    """Softmax over the documents of a query, document 0 being its own; other relevant ones are masked."""
    others = (relevant > 0) & (torch.arange(logits.shape[1])[None] > 0)
    return F.cross_entropy(logits.masked_fill(others, -1e4), torch.zeros(len(logits), dtype=torch.long))


def yes_or_no(logits: Tensor, relevant: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, relevant, pos_weight=torch.tensor(2.0))


def accuracy(logits: Tensor, answer: Tensor) -> float:
    return (logits.argmax(-1) == answer).float().mean().item()
