"""Exact labels from scene vectors, constraint vectors and boxes, as the losses need them.

Everything here is arithmetic on integers; nothing knows about models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.world.vocabulary import (
    ANY,
    AT_LEAST_FOUR,
    AT_LEAST_TWO,
    CATEGORY,
    CATEGORY_OF,
    GROUP_A,
    GROUP_B,
    INVERSE_RELATION,
    OBJECTS,
    Motion,
    Slot,
)

FLAGS = (
    "object A", "count A", "colour A", "place and size of A",
    "object B", "count B", "colour B", "size of B",
    "relation or motion", "place", "time and weather", "word",
)  # fmt: skip
_CATEGORY_OF = np.array(CATEGORY_OF)
_INVERSE = np.array(INVERSE_RELATION)


def attribute_flags(queries: NDArray[np.int16], scenes: NDArray[np.int16]) -> NDArray[np.int8]:
    """Which attributes of paired rows agree: [B, 17] x [B, 17] -> [B, 12], -1 where the query does not say.

    Of the two ways to assign the query's groups to the scene's, the one that agrees more often counts.
    """
    q, s = queries.astype(int), scenes.astype(int)
    relation, motion = s[:, Slot.RELATION], s[:, Slot.MOTION]
    straight = _assigned(q, s[:, GROUP_A], s[:, GROUP_B], relation, motion, turned=False)
    turned = _assigned(
        q, s[:, GROUP_B], s[:, GROUP_A], _INVERSE[np.maximum(relation, 0)], motion, turned=True
    )
    better = (turned == 1).sum(1) > (straight == 1).sum(1)
    flags = np.full((len(q), len(FLAGS)), -1, np.int8)
    flags[:, :9] = np.where(better[:, None], turned, straight)
    flags[:, 9] = _flag(q[:, Slot.PLACE] >= 0, q[:, Slot.PLACE] == s[:, Slot.PLACE])
    time, weather = q[:, Slot.TIME], q[:, Slot.WEATHER]
    same = ((time < 0) | (time == s[:, Slot.TIME])) & ((weather <= 0) | (weather == s[:, Slot.WEATHER]))
    flags[:, 10] = _flag((time >= 0) | (weather > 0), same)
    flags[:, 11] = _flag(q[:, Slot.WORD] > 0, q[:, Slot.WORD] == s[:, Slot.WORD])
    return flags


def _flag(said: NDArray[np.bool_], same: NDArray[np.bool_]) -> NDArray[np.int8]:
    return np.where(said, same, -1).astype(np.int8)


def _assigned(
    q: NDArray[np.int_],
    a: NDArray[np.int_],
    b: NDArray[np.int_],
    relation: NDArray[np.int_],
    motion: NDArray[np.int_],
    *,
    turned: bool,
) -> NDArray[np.int8]:
    out = np.full((len(q), 9), -1, np.int8)
    for column, (wanted, found) in ((0, (q[:, GROUP_A], a)), (4, (q[:, GROUP_B], b))):
        thing, count, colour, size, position = wanted.T
        said = thing >= 0
        category = np.where(found[:, 0] >= 0, _CATEGORY_OF[np.maximum(found[:, 0], 0)], -9)
        out[:, column] = _flag(
            said, np.where(thing >= CATEGORY, category == thing - CATEGORY, found[:, 0] == thing)
        )
        enough = np.where(count == AT_LEAST_TWO, found[:, 1] >= 2, found[:, 1] >= 4)
        counted = np.where((count == AT_LEAST_TWO) | (count == AT_LEAST_FOUR), enough, found[:, 1] == count)
        out[:, column + 1] = _flag(said & (count > 0), counted)
        out[:, column + 2] = _flag(said & (colour > 0), found[:, 2] == colour)
        fits = ((size <= 0) | (size == found[:, 3])) & ((position <= 0) | (position == found[:, 4]))
        out[:, column + 3] = _flag(said & ((size > 0) | (position > 0)), fits)
    asked, moved = q[:, Slot.RELATION], q[:, Slot.MOTION]
    moves = (motion == moved) & ((moved != Motion.THEN) | (not turned))
    out[:, 8] = np.where(asked > 0, asked == relation, _flag(moved > 0, moves))
    return out


def shown(boxes: NDArray[np.int16], side: int) -> NDArray[np.bool_]:
    """Which objects each 32-pixel cell shows: boxes [N, F, 12, 7] -> bool [N, side * side, 44], frames
    joined.
    """
    n, frames, many, _ = boxes.shape
    out = np.zeros((n, side, side, len(OBJECTS)), bool)
    start = np.arange(side) * 32
    rows = np.arange(n)
    for f in range(frames):
        for b in range(many):
            thing, _, x, y, w, h, _ = (column.astype(int) for column in boxes[:, f, b].T)
            across = np.clip(
                np.minimum((x + w)[:, None], start + 32) - np.maximum(x[:, None], start), 0, None
            )
            down = np.clip(np.minimum((y + h)[:, None], start + 32) - np.maximum(y[:, None], start), 0, None)
            overlap = down[:, :, None] * across[:, None, :]
            large = (overlap > 0.35 * (w * h)[:, None, None]) | (overlap > 0.35 * 1024)
            row = np.clip((y + h // 2) // 32, 0, side - 1)
            column = np.clip((x + w // 2) // 32, 0, side - 1)
            large[rows, row, column] = True
            ok = thing >= 0
            out[rows[ok], :, :, thing[ok]] |= large[ok]
    return out.reshape(n, side * side, len(OBJECTS))


def queried_cells(queries: NDArray[np.int16], shown_objects: NDArray[np.bool_]) -> NDArray[np.int8]:
    """[B, 17] x [B, V, 44] -> [B, V, 2]: does this cell show the object of query group A, B; -1 where there
    is none.
    """
    out = np.full((*shown_objects.shape[:2], 2), -1, np.int8)
    for g, slot in enumerate((Slot.A_OBJECT, Slot.B_OBJECT)):
        thing = queries[:, slot].astype(int)
        wanted = np.where(
            (thing >= CATEGORY)[:, None],
            _CATEGORY_OF[None] == (thing - CATEGORY)[:, None],
            np.arange(len(OBJECTS))[None] == thing[:, None],
        )
        hit = (shown_objects & wanted[:, None]).any(-1)
        out[:, :, g] = np.where((thing == ANY)[:, None], -1, hit)
    return out
