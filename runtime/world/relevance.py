"""Which scenes answer which queries, exactly.

A query's constraint vector has the slots of a scene: -1 allows anything, counts 8 and 9 mean "two or more"
and "four or more", object codes from 100 mean any object of a category. A count speaks of one group of a
scene. A query that names two groups also matches the scene that has them in the other order, with the
relation turned round; the order of a clip's "first A, then B" is never turned round.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .vocabulary import (
    ANY,
    AT_LEAST_FOUR,
    AT_LEAST_TWO,
    CATEGORY,
    CATEGORY_OF,
    GROUP_A,
    GROUP_B,
    INVERSE_RELATION,
    Motion,
    Slot,
)

Constraints = NDArray[np.int16]
"""int16 [17], see `Slot`."""

_PLAIN_SLOTS = (Slot.PLACE, Slot.TIME, Slot.WEATHER, Slot.WORD, Slot.KIND)


def match(queries: NDArray[np.int16], scenes: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Relevance of every scene to every query.

    queries: int16 [Q, 17] constraint vectors. scenes: int16 [S, 17]. Returns bool [Q, S].
    """
    query = np.asarray(queries, np.int16)[:, None, :]
    scene = np.asarray(scenes, np.int16)[None, :, :]
    plain = np.ones((query.shape[0], scene.shape[1]), bool)
    for slot in _PLAIN_SLOTS:
        plain &= _allows(query[..., slot], scene[..., slot])

    wanted_a, wanted_b = query[..., GROUP_A], query[..., GROUP_B]
    group_a, group_b = scene[..., GROUP_A], scene[..., GROUP_B]
    relation, motion = scene[..., Slot.RELATION], scene[..., Slot.MOTION]
    wanted_relation, wanted_motion = query[..., Slot.RELATION], query[..., Slot.MOTION]
    as_said = _group(wanted_a, group_a) & _group(wanted_b, group_b)
    as_said &= _allows(wanted_relation, relation) & _allows(wanted_motion, motion)
    turned_round = _group(wanted_a, group_b) & _group(wanted_b, group_a)
    turned_round &= _allows(wanted_relation, np.array(INVERSE_RELATION, np.int16)[np.maximum(relation, 0)])
    turned_round &= (wanted_motion == ANY) | ((wanted_motion == motion) & (wanted_motion != Motion.THEN))
    return np.asarray(plain & (as_said | turned_round))


def _allows(wanted: NDArray[np.int16], found: NDArray[np.int16]) -> NDArray[np.bool_]:
    return np.asarray((wanted == ANY) | (wanted == found))


def _group(wanted: NDArray[np.int16], found: NDArray[np.int16]) -> NDArray[np.bool_]:
    """wanted: [Q, 1, 5], found: [1, S, 5]: object, count, colour, size, position. Returns bool [Q, S]."""
    thing, count, colour, size, position = (wanted[..., i] for i in range(5))
    found_thing, found_count, found_colour, found_size, found_position = (found[..., i] for i in range(5))
    found_category = np.where(
        found_thing >= 0, np.array(CATEGORY_OF, np.int16)[np.maximum(found_thing, 0)], np.int16(-9)
    )
    ok = np.where(thing >= CATEGORY, found_category == thing - CATEGORY, _allows(thing, found_thing))
    ok &= (
        _allows(count, found_count)
        | ((count == AT_LEAST_TWO) & (found_count >= 2))
        | ((count == AT_LEAST_FOUR) & (found_count >= 4))
    )
    ok &= _allows(colour, found_colour) & _allows(size, found_size) & _allows(position, found_position)
    silent = (thing == ANY) & (count == ANY) & (colour == ANY)
    return np.asarray((ok & (found_thing >= 0)) | silent)
