"""Galleries and probes: held-out, deterministic, and exact."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from qvl_local.runtime.world.galleries import (
    ATTRIBUTES,
    Gallery,
    attribute_probes,
    held_out_galleries,
)
from qvl_local.runtime.world.queries import Style
from qvl_local.runtime.world.scenes import held
from qvl_local.runtime.world.vocabulary import Kind, Slot


@pytest.fixture(scope="module")
def galleries() -> tuple[Gallery, Gallery, Gallery]:
    return held_out_galleries(images=120, clips=40, families=30, queries=50)


def test_sizes_and_names(galleries: tuple[Gallery, Gallery, Gallery]) -> None:
    images, clips, siblings = galleries
    assert [gallery.name for gallery in galleries] == ["images", "clips", "siblings"]
    assert (images.scenes.shape, clips.scenes.shape, siblings.scenes.shape) == (
        (120, 17),
        (40, 17),
        (120, 17),
    )
    assert (images.scenes[:, Slot.KIND] == Kind.PHOTO).all()
    assert (clips.scenes[:, Slot.KIND] == Kind.CLIP).all()
    for gallery, free in zip(galleries, (50, 40, 50), strict=True):
        assert [question.source for question in gallery.asked(Style.FULL)] == list(range(len(gallery.scenes)))
        styles = Counter(question.style for question in gallery.questions)
        assert styles[Style.PARTIAL] + styles[Style.SHORT] + styles[Style.TERSE] == free
        assert styles[Style.TERSE] >= free // 3
        assert len(set(gallery.seeds)) == len(gallery.scenes)


def test_scenes_are_held_out(galleries: tuple[Gallery, Gallery, Gallery]) -> None:
    for gallery in galleries[:2]:
        assert all(held(int(scene[Slot.A_OBJECT]), int(scene[Slot.PLACE])) for scene in gallery.scenes)
    founders = galleries[2].scenes[::4]
    assert all(held(int(scene[Slot.A_OBJECT]), int(scene[Slot.PLACE])) for scene in founders)


def test_every_question_is_answered_by_its_source(galleries: tuple[Gallery, Gallery, Gallery]) -> None:
    for gallery in galleries:
        relevant = gallery.relevance(gallery.questions)
        assert relevant.shape == (len(gallery.questions), len(gallery.scenes))
        assert all(relevant[i, question.source] for i, question in enumerate(gallery.questions))
        assert relevant.mean() < 0.25


def test_siblings_are_told_apart_by_captions(galleries: tuple[Gallery, Gallery, Gallery]) -> None:
    siblings = galleries[2]
    relevant = siblings.relevance(siblings.asked(Style.FULL))
    family = np.arange(len(siblings.scenes)) // 4
    others = relevant & (family[:, None] == family[None]) & ~np.eye(len(family), dtype=bool)
    assert others.sum(1).mean() < 0.5


def test_the_same_seed_gives_the_same_records(galleries: tuple[Gallery, Gallery, Gallery]) -> None:
    again = held_out_galleries(images=120, clips=40, families=30, queries=50)
    for one, other in zip(galleries, again, strict=True):
        assert (one.scenes == other.scenes).all()
        assert [q.text for q in one.questions] == [q.text for q in other.questions]
    assert (
        held_out_galleries(seed=1, images=120, clips=1, families=1)[0].scenes != galleries[0].scenes
    ).any()


def test_probes_have_one_true_caption() -> None:
    probes = attribute_probes(each=12)
    assert Counter(probe.attribute for probe in probes) == dict.fromkeys(ATTRIBUTES, 12)
    options = dict.fromkeys(ATTRIBUTES, 4) | {"time": 3, "weather": 2}
    for probe in probes:
        assert len(set(probe.texts)) == len(probe.texts)
        if probe.attribute == "size":
            assert len(probe.texts) in (2, 3)
        else:
            assert len(probe.texts) == options[probe.attribute]
        assert probe.scene[Slot.KIND] == (probe.attribute == "motion")
    assert [probe.texts for probe in probes] == [probe.texts for probe in attribute_probes(each=12)]


def test_count_probes_differ_in_the_count_alone() -> None:
    numbers = {
        "one": 1,
        "single": 1,
        "two": 2,
        "2": 2,
        "three": 3,
        "3": 3,
        "four": 4,
        "4": 4,
        "five": 5,
        "5": 5,
    }
    for probe in attribute_probes(each=12):
        if probe.attribute != "count":
            continue
        said = [{numbers[word] for word in text.lower().split() if word in numbers} for text in probe.texts]
        count = int(probe.scene[Slot.A_COUNT])
        assert said[0] == {count} or (count == 1 and said[0] == set())  # "a dog"
        assert all(count not in wrong for wrong in said[1:])
