"""Draws scene vectors: random scenes, and siblings that differ from a scene in one attribute.

A scene is int16 [17], one value a `Slot`. The order of random draws is fixed, so a seed names the same
scenes for ever. Some pairs of object and place are held out: training never shows them, accuracy galleries
show nothing else.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from .vocabulary import (
    BLACK,
    COLOURS,
    GROUP_A,
    GROUP_B,
    OBJECTS,
    PLACES,
    RECOLOURABLE,
    ROOM,
    SLOTS,
    SNOW_FIELD,
    WHITE,
    WORDS,
    Kind,
    Motion,
    Size,
    Slot,
    Time,
)

Scene = NDArray[np.int16]
"""int16 [17], see `Slot`."""

_SWAP = -1
_SIBLING_EDITS: tuple[int, ...] = (
    Slot.PLACE,
    Slot.TIME,
    Slot.A_OBJECT,
    Slot.A_COUNT,
    Slot.A_COLOUR,
    Slot.A_SIZE,
    Slot.A_POSITION,
    Slot.RELATION,
    Slot.WORD,
    Slot.MOTION,
    Slot.B_OBJECT,
    _SWAP,
)


def held(object_code: int, place_code: int) -> bool:
    """Whether this pair of object and place is kept out of training (one pair in five)."""
    return (object_code * 7 + place_code * 3) % 5 == 0


def valid(scene: Scene) -> bool:
    """No weather indoors, and nothing that could not be seen: white on the snowy field, black at night."""
    for group in (GROUP_A, GROUP_B):
        thing, _, colour, _, _ = scene[group]
        if thing < 0:
            continue
        if colour == WHITE and scene[Slot.PLACE] == SNOW_FIELD:
            return False
        if colour == BLACK and scene[Slot.TIME] == Time.NIGHT:
            return False
    return not (scene[Slot.PLACE] == ROOM and scene[Slot.WEATHER])


def sample(rng: random.Random, *, held_out: bool | None = False, kind: int | None = None) -> Scene:
    """One valid random scene.

    held_out: False draws no held-out pair of object and place, True makes group A such a pair, None does
    not care.
    kind: a `Kind`, or None for one clip in five.
    """
    while True:
        scene = _sample_any(rng, held_out, kind)
        if valid(scene):
            return scene


def sibling(rng: random.Random, scene: Scene, *, held_out: bool | None = False) -> Scene:
    """A valid scene that differs in one attribute (or, where none fits, a new scene of its kind)."""
    kind = int(scene[Slot.KIND])
    for _ in range(20):
        other = scene.copy()
        edit = rng.choice(_SIBLING_EDITS)
        fresh = sample(rng, held_out=held_out, kind=kind)
        if not _edit(rng, other, edit, scene, fresh):
            continue
        two = other[Slot.B_OBJECT] >= 0
        same_thing = other[Slot.A_OBJECT] == other[Slot.B_OBJECT]
        if two and same_thing and other[Slot.A_COLOUR] == other[Slot.B_COLOUR]:
            continue
        if held_out is False and _has_held_pair(other):
            continue
        if other[Slot.PLACE] == ROOM:
            other[Slot.WEATHER] = 0
        if (other != scene).any() and valid(other):
            return other
    return sample(rng, held_out=held_out, kind=kind)


def _has_held_pair(scene: Scene) -> bool:
    place, a, b = int(scene[Slot.PLACE]), int(scene[Slot.A_OBJECT]), int(scene[Slot.B_OBJECT])
    return held(a, place) or (b >= 0 and held(b, place))


def _edit(rng: random.Random, other: Scene, edit: int, scene: Scene, fresh: Scene) -> bool:
    """Applies one edit to `other` in place; False where the scene has no such attribute to change."""
    clip, alone = bool(scene[Slot.KIND]), scene[Slot.B_OBJECT] < 0
    if edit == _SWAP:
        if alone:
            return False
        first = other[GROUP_A].copy()
        other[GROUP_A], other[GROUP_B] = other[GROUP_B], first
    elif edit == Slot.MOTION:
        if not clip or scene[Slot.MOTION] == Motion.THEN:
            return False
        other[Slot.MOTION] = rng.randrange(1, Motion.THEN)
    elif edit == Slot.A_OBJECT:
        other[[Slot.A_OBJECT, Slot.A_COLOUR]] = fresh[[Slot.A_OBJECT, Slot.A_COLOUR]]
    elif edit == Slot.B_OBJECT:
        if alone or fresh[Slot.B_OBJECT] < 0:
            return False
        other[[Slot.B_OBJECT, Slot.B_COLOUR]] = fresh[[Slot.B_OBJECT, Slot.B_COLOUR]]
    elif edit == Slot.A_COLOUR:
        if int(scene[Slot.A_OBJECT]) not in RECOLOURABLE:
            return False
        other[Slot.A_COLOUR] = rng.randrange(1, len(COLOURS) + 1)
    elif edit == Slot.A_COUNT:
        if clip or scene[Slot.A_POSITION] or scene[Slot.A_SIZE] != Size.NORMAL:
            return False
        other[Slot.A_COUNT] = rng.randrange(1, 6) if alone else rng.randrange(1, 4)
        if alone and other[Slot.A_COUNT] == 1:
            other[Slot.A_POSITION] = rng.randrange(1, 6)
    elif edit == Slot.A_SIZE:
        if not alone or clip or scene[Slot.A_COUNT] > 2:
            return False
        other[Slot.A_SIZE] = rng.choice([1, 2, 3])
    elif edit == Slot.A_POSITION:
        if not scene[Slot.A_POSITION]:
            return False
        other[Slot.A_POSITION] = rng.randrange(1, 6)
    elif edit == Slot.RELATION:
        if not scene[Slot.RELATION]:
            return False
        other[Slot.RELATION] = rng.randrange(1, 5)
    elif edit == Slot.WORD:
        if clip or not scene[Slot.WORD]:
            return False
        other[Slot.WORD] = rng.randrange(1, len(WORDS) + 1)
    else:
        other[edit] = fresh[edit]
    return True


def _sample_any(rng: random.Random, held_out: bool | None, kind: int | None) -> Scene:
    scene = np.zeros(SLOTS, np.int16)
    scene[Slot.KIND] = kind if kind is not None else int(rng.random() < 0.2)
    place = scene[Slot.PLACE] = rng.randrange(len(PLACES))
    scene[Slot.TIME] = rng.randrange(3)
    scene[Slot.WEATHER] = 0 if place == ROOM else rng.choice([0, 0, 0, 1, 2])
    scene[Slot.B_OBJECT] = -1
    # The second group never has to be a held-out pair; it must not be one where none is wanted.
    second_held_out = False if held_out is False else None
    if scene[Slot.KIND] == Kind.CLIP:
        scene[Slot.MOTION] = rng.randrange(1, len(Motion))
        thing, _, colour = _sample_group(rng, True, held_out, int(place))
        scene[GROUP_A] = thing, 1, colour, Size.NORMAL, 0
        if scene[Slot.MOTION] == Motion.THEN:
            thing, _, colour = _sample_group(rng, True, second_held_out, int(place))
            scene[GROUP_B] = thing, 1, colour, Size.NORMAL, 0
        return scene

    two = rng.random() < 0.45
    thing, count, colour = _sample_group(rng, two, held_out, int(place))
    scene[GROUP_A] = thing, count, colour, Size.NORMAL, 0
    if two:
        while True:
            other, other_count, other_colour = _sample_group(rng, True, second_held_out, int(place))
            if other != thing or other_colour != colour:
                break
        scene[GROUP_B] = other, other_count, other_colour, Size.NORMAL, 0
        scene[Slot.RELATION] = rng.randrange(1, 5)
    else:
        if count <= 2:
            scene[Slot.A_SIZE] = rng.choice([1, 2, 3])
        if count == 1:
            scene[Slot.A_POSITION] = rng.randrange(1, 6)
    scene[Slot.WORD] = rng.randrange(1, len(WORDS) + 1) if rng.random() < 0.25 else 0
    return scene


def _sample_group(rng: random.Random, two: bool, held_out: bool | None, place: int) -> tuple[int, int, int]:
    """Object, count and colour of one group; `two`: it shares the picture, so it has three at most."""
    while True:
        thing = rng.randrange(len(OBJECTS))
        if held_out is None or held(thing, place) == held_out:
            break
    count = rng.choice([1, 1, 2, 3]) if two else rng.choice([1, 1, 1, 2, 2, 3, 4, 5])
    colour = rng.randrange(1, len(COLOURS) + 1) if thing in RECOLOURABLE else 0
    return thing, count, colour
