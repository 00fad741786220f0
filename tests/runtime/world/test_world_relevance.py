"""`match` against a slow reading of its rules, and the rules one by one."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.world.queries import query
from qvl_local.runtime.world.relevance import match
from qvl_local.runtime.world.scenes import Scene, sample, sibling
from qvl_local.runtime.world.vocabulary import (
    ANY,
    AT_LEAST_FOUR,
    AT_LEAST_TWO,
    CATEGORIES,
    CATEGORY,
    GROUP_A,
    GROUP_B,
    OBJECT_CODES,
    OBJECTS,
    SLOTS,
    Kind,
    Motion,
    Relation,
    Slot,
)

DOG, CAT, CAR = (OBJECT_CODES[name] for name in ("dog", "cat", "car"))


def slow_match(wanted: NDArray[np.int16], scene: Scene) -> bool:
    """One query, one scene, in plain words."""

    def group(ask: list[int], have: list[int]) -> bool:
        if ask[:3] == [ANY, ANY, ANY]:
            return True
        if have[0] < 0:
            return False
        if ask[0] >= CATEGORY:
            if OBJECTS[have[0]].category != CATEGORIES[ask[0] - CATEGORY]:
                return False
        elif ask[0] not in (ANY, have[0]):
            return False
        enough = {AT_LEAST_TWO: have[1] >= 2, AT_LEAST_FOUR: have[1] >= 4, ANY: True}
        if not enough.get(ask[1], ask[1] == have[1]):
            return False
        return all(a in (ANY, h) for a, h in zip(ask[2:], have[2:], strict=True))

    for slot in (Slot.PLACE, Slot.TIME, Slot.WEATHER, Slot.WORD, Slot.KIND):
        if wanted[slot] not in (ANY, scene[slot]):
            return False
    ask_a, ask_b = wanted[GROUP_A].tolist(), wanted[GROUP_B].tolist()
    a, b = scene[GROUP_A].tolist(), scene[GROUP_B].tolist()
    relation, motion = int(scene[Slot.RELATION]), int(scene[Slot.MOTION])
    turned = {0: 0, 1: 2, 2: 1, 3: 4, 4: 3}[relation]
    ask_relation, ask_motion = int(wanted[Slot.RELATION]), int(wanted[Slot.MOTION])
    said = (
        group(ask_a, a)
        and group(ask_b, b)
        and ask_relation in (ANY, relation)
        and ask_motion in (ANY, motion)
    )
    other = group(ask_a, b) and group(ask_b, a) and ask_relation in (ANY, turned)
    other = other and (ask_motion == ANY or (ask_motion == motion and motion != Motion.THEN))
    return said or other


def test_agrees_with_a_slow_reading() -> None:
    rng = random.Random(1)
    scenes = []
    for _ in range(60):
        scene = sample(rng, held_out=None)
        scenes += [scene, sibling(rng, scene, held_out=None)]
    queries = [query(rng, scene).constraints for scene in scenes]
    fast = match(np.stack(queries), np.stack(scenes))
    slow = np.array([[slow_match(wanted, scene) for scene in scenes] for wanted in queries])
    assert fast.dtype == bool
    assert (fast == slow).all()
    assert slow.sum() > 1.5 * len(scenes)  # more than the scenes the queries were written about


def scene_of(**values: int) -> Scene:
    scene = np.zeros(SLOTS, np.int16)
    scene[GROUP_A] = DOG, 1, 0, 2, 0
    scene[GROUP_B] = ANY, 0, 0, 0, 0
    for name, value in values.items():
        scene[Slot[name]] = value
    return scene


def asks(**values: int) -> NDArray[np.int16]:
    wanted = np.full(SLOTS, ANY, np.int16)
    for name, value in values.items():
        wanted[Slot[name]] = value
    return wanted


COUNTS = (ANY, 1, 3, AT_LEAST_TWO, AT_LEAST_FOUR)


def test_counts() -> None:
    scenes = np.stack([scene_of(A_COUNT=count) for count in range(1, 6)])
    wanted = np.stack(
        [asks(A_OBJECT=DOG, A_COUNT=count) for count in (ANY, 1, 3, AT_LEAST_TWO, AT_LEAST_FOUR)]
    )
    assert match(wanted, scenes).tolist() == [
        [True] * 5,
        [True, False, False, False, False],
        [False, False, True, False, False],
        [False, True, True, True, True],
        [False, False, False, True, True],
    ]


def test_categories() -> None:
    animals = CATEGORY + CATEGORIES.index("animal")
    scenes = np.stack(
        [scene_of(), scene_of(A_OBJECT=CAR, A_COLOUR=1), scene_of(A_OBJECT=CAR, B_OBJECT=CAT, B_COUNT=1)]
    )
    assert match(asks(A_OBJECT=animals)[None], scenes).tolist() == [[True, False, True]]


def test_relations_turn_round_with_the_groups() -> None:
    dog_left_of_cat = scene_of(B_OBJECT=CAT, B_COUNT=1, B_SIZE=2, RELATION=Relation.LEFT_OF)
    wanted = [
        asks(A_OBJECT=DOG, B_OBJECT=CAT, RELATION=Relation.LEFT_OF),
        asks(A_OBJECT=CAT, B_OBJECT=DOG, RELATION=Relation.RIGHT_OF),
        asks(A_OBJECT=CAT, B_OBJECT=DOG),
        asks(A_OBJECT=CAT, B_OBJECT=DOG, RELATION=Relation.LEFT_OF),
        asks(A_OBJECT=DOG, B_OBJECT=CAT, RELATION=Relation.ABOVE),
        asks(A_OBJECT=DOG, B_OBJECT=DOG),
    ]
    assert match(np.stack(wanted), dog_left_of_cat[None])[:, 0].tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_order_in_a_clip_does_not_turn_round() -> None:
    clip = scene_of(B_OBJECT=CAT, B_COUNT=1, B_SIZE=2, KIND=Kind.CLIP, MOTION=Motion.THEN)
    first_dog = asks(A_OBJECT=DOG, B_OBJECT=CAT, MOTION=Motion.THEN)
    first_cat = asks(A_OBJECT=CAT, B_OBJECT=DOG, MOTION=Motion.THEN)
    assert match(np.stack([first_dog, first_cat]), clip[None])[:, 0].tolist() == [True, False]


def test_an_open_query_matches_everything() -> None:
    rng = random.Random(2)
    scenes = np.stack([sample(rng) for _ in range(20)])
    assert match(asks()[None], scenes).all()
