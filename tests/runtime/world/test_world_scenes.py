"""Random scenes: validity, held-out pairs, siblings, and seeds that keep their meaning."""

from __future__ import annotations

import random

import numpy as np
import pytest
from qvl_local.runtime.world.scenes import held, sample, sibling, valid
from qvl_local.runtime.world.vocabulary import (
    BLACK,
    CATEGORIES,
    CATEGORY_OF,
    GROUP_A,
    OBJECT_CODES,
    OBJECTS,
    PLACES,
    RECOLOURABLE,
    ROOM,
    SNOW_FIELD,
    WHITE,
    WORDS,
    Kind,
    Motion,
    Slot,
    Time,
)

# Scenes of seed 11, and a sibling of the first.
GOLDEN = [
    [8, 1, 0, 37, 2, 3, 3, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0],
    [2, 0, 1, 5, 1, 0, 2, 0, 38, 3, 8, 2, 0, 2, 0, 0, 0],
]
GOLDEN_SIBLING = [8, 1, 0, 24, 2, 0, 3, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_vocabulary_keeps_its_codes() -> None:
    # Trained weights know these numbers.
    assert (len(OBJECTS), len(PLACES), len(WORDS)) == (44, 10, 20)
    names = [OBJECTS[i].name for i in (0, 1, 13, 20, 34, 35, 43)]
    assert names == ["dog", "cat", "butterfly", "plane", "car", "balloon", "kite"]
    assert frozenset(range(34, 44)) == RECOLOURABLE
    assert CATEGORIES == ("animal", "clothing", "food", "plant", "thing", "toy", "vehicle")
    assert CATEGORY_OF[OBJECT_CODES["pizza"]] == 2
    assert (SNOW_FIELD, ROOM, BLACK, WHITE) == (7, 8, 8, 9)
    assert [slot.name for slot in Slot][3:8] == ["A_OBJECT", "A_COUNT", "A_COLOUR", "A_SIZE", "A_POSITION"]
    assert (Slot.RELATION, Slot.WORD, Slot.MOTION, Slot.KIND) == (13, 14, 15, 16)


def test_a_seed_names_the_same_scene_for_ever() -> None:
    rng = random.Random(11)
    first = [sample(rng).tolist() for _ in range(2)]
    assert first == GOLDEN
    assert sibling(random.Random(3), np.array(GOLDEN[0], np.int16)).tolist() == GOLDEN_SIBLING


@pytest.mark.parametrize("held_out", [False, True, None])
@pytest.mark.parametrize("kind", [Kind.PHOTO, Kind.CLIP, None])
def test_samples_are_valid(held_out: bool | None, kind: Kind | None) -> None:
    rng = random.Random(1)
    for _ in range(300):
        scene = sample(rng, held_out=held_out, kind=kind)
        assert valid(scene)
        assert scene.dtype == np.int16
        place, thing, other = (int(scene[i]) for i in (Slot.PLACE, Slot.A_OBJECT, Slot.B_OBJECT))
        if kind is not None:
            assert scene[Slot.KIND] == kind
        if held_out is not None:
            assert held(thing, place) == held_out
        if held_out is False and other >= 0:
            assert not held(other, place)
        assert (scene[Slot.A_COLOUR] > 0) == (thing in RECOLOURABLE)
        assert (scene[Slot.MOTION] > 0) == (scene[Slot.KIND] == Kind.CLIP)
        if scene[Slot.KIND] == Kind.CLIP:
            assert (other >= 0) == (scene[Slot.MOTION] == Motion.THEN)
        else:
            assert (other >= 0) == (scene[Slot.RELATION] > 0)


def test_one_pair_in_five_is_held_out() -> None:
    pairs = [held(thing, place) for thing in range(len(OBJECTS)) for place in range(len(PLACES))]
    assert 0.18 < sum(pairs) / len(pairs) < 0.22


def test_what_could_not_be_seen_is_not_valid() -> None:
    scene = sample(random.Random(2), kind=Kind.PHOTO)
    scene[GROUP_A] = OBJECT_CODES["car"], 1, WHITE, 2, 1
    scene[[Slot.PLACE, Slot.TIME, Slot.WEATHER]] = SNOW_FIELD, Time.DAY, 0
    assert not valid(scene)
    scene[Slot.A_COLOUR] = BLACK
    assert valid(scene)
    scene[Slot.TIME] = Time.NIGHT
    assert not valid(scene)
    scene[[Slot.TIME, Slot.PLACE]] = Time.DAY, ROOM
    assert valid(scene)
    scene[Slot.WEATHER] = 1
    assert not valid(scene)


def test_a_sibling_is_close_but_not_the_same() -> None:
    rng = random.Random(4)
    changes = []
    for _ in range(500):
        scene = sample(rng, held_out=None)
        other = sibling(rng, scene, held_out=None)
        assert valid(other)
        assert other[Slot.KIND] == scene[Slot.KIND]
        changes.append(int((other != scene).sum()))
    assert min(changes) >= 1
    assert np.median(changes) <= 2


def test_siblings_for_training_keep_held_out_pairs_out() -> None:
    rng = random.Random(5)
    for _ in range(500):
        other = sibling(rng, sample(rng, held_out=False), held_out=False)
        assert not held(int(other[Slot.A_OBJECT]), int(other[Slot.PLACE]))
