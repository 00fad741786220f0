"""Queries match their scenes, stop matching when a named attribute changes, and say what they demand."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
from qvl_local.runtime.world.queries import Style, query
from qvl_local.runtime.world.relevance import match
from qvl_local.runtime.world.scenes import Scene, sample
from qvl_local.runtime.world.vocabulary import (
    ANY,
    AT_LEAST_FOUR,
    AT_LEAST_TWO,
    CATEGORY,
    CATEGORY_OF,
    COLOURS,
    GROUP_A,
    GROUP_B,
    INVERSE_RELATION,
    MOTION_PHRASES,
    MOTION_TERSE,
    NUMBERS,
    OBJECT_CODES,
    OBJECTS,
    PLACE_CODES,
    PLACES,
    POSITION_PHRASES,
    POSITION_TERSE,
    RELATION_PHRASES,
    TIME_PHRASES,
    TIME_TERSE,
    WEATHER_PHRASES,
    WEATHER_TERSE,
    Kind,
    Motion,
    Position,
    Relation,
    Size,
    Slot,
    Time,
    Weather,
)
from qvl_local.runtime.world.wording import plural

ROUNDS = 400


def scenes(seed: int, *, kind: Kind | None = None, count: int = ROUNDS) -> list[Scene]:
    rng = random.Random(seed)
    return [sample(rng, held_out=None, kind=kind) for _ in range(count)]


@pytest.mark.parametrize("style", [*Style, None])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_query_matches_the_scene_it_is_about(style: Style | None, kind: Kind) -> None:
    rng = random.Random(1)
    for scene in scenes(2, kind=kind):
        text, constraints = query(rng, scene, style)
        assert match(constraints[None], scene[None])[0, 0], (text, scene)
        assert (constraints != ANY).any(), text
        assert text == " ".join(text.split()), text
        assert "{" not in text


def other_value(slot: Slot, wanted: int) -> int:
    """A value of a scene that the demand `wanted` does not allow."""
    if slot in (Slot.A_OBJECT, Slot.B_OBJECT):
        category = wanted - CATEGORY if wanted >= CATEGORY else CATEGORY_OF[wanted]
        return next(code for code in range(len(OBJECTS)) if CATEGORY_OF[code] != category)
    if slot in (Slot.A_COUNT, Slot.B_COUNT):
        return 3 if wanted == 1 else 1
    return wanted + 1 if wanted == 0 else wanted - 1


@pytest.mark.parametrize("style", list(Style))
def test_a_scene_changed_where_the_query_looks_does_not_match(style: Style) -> None:
    rng = random.Random(3)
    looked: set[Slot] = set()
    for scene in scenes(4):
        if scene[Slot.B_OBJECT] >= 0:
            continue  # the other group could answer instead
        text, constraints = query(rng, scene, style)
        for slot in Slot:
            if constraints[slot] == ANY:
                continue
            changed = scene.copy()
            changed[slot] = other_value(slot, int(constraints[slot]))
            assert not match(constraints[None], changed[None])[0, 0], (text, slot)
            looked.add(slot)
    everything = {slot for slot in Slot if not slot.name.startswith("B_")} - {Slot.RELATION}
    if style == Style.SHORT:
        everything.remove(Slot.KIND)  # these never say "photo" or "video"
    assert looked == everything


@pytest.mark.parametrize("style", list(Style))
def test_two_groups_changed_at_once_do_not_match(style: Style) -> None:
    rng = random.Random(5)
    pairs = 0
    for scene in scenes(6):
        text, constraints = query(rng, scene, style)
        if constraints[Slot.B_OBJECT] == ANY:
            continue
        pairs += 1
        changed = scene.copy()
        allowed = {int(constraints[slot]) for slot in (Slot.A_OBJECT, Slot.B_OBJECT)}
        categories = {code - CATEGORY if code >= CATEGORY else CATEGORY_OF[code] for code in allowed}
        changed[Slot.A_OBJECT] = next(c for c in range(len(OBJECTS)) if CATEGORY_OF[c] not in categories)
        assert not match(constraints[None], changed[None])[0, 0], text
        if constraints[Slot.RELATION] > 0:
            changed = scene.copy()
            changed[Slot.RELATION] = scene[Slot.RELATION] % 4 + 1
            same_thing = scene[Slot.A_OBJECT] == scene[Slot.B_OBJECT]
            if not same_thing and not allowed & set(range(CATEGORY, CATEGORY + 10)):
                assert not match(constraints[None], changed[None])[0, 0], text
    assert pairs > 20


NUMBER_WORDS = {word: count for count, word in enumerate(NUMBERS) if count} | {str(n): n for n in range(1, 6)}
NUMBER_WORDS["single"] = 1
PLACE_WORDS = [
    sorted({*place.phrases, *place.names, *place.terse}, key=len, reverse=True) for place in PLACES
]


@cache
def pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the phrases as whole words, with or without their articles, the longest first."""
    bare = {phrase.replace(" a ", " ").replace(" the ", " ") for phrase in phrases}
    words = sorted({*phrases, *bare}, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(re.escape(word) for word in words)})\b")


def without(text: str, phrases: Iterable[str]) -> str:
    return pattern(tuple(phrases)).sub("|", text)


def says(text: str, phrases: Iterable[str]) -> bool:
    return without(text, phrases) != text


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("kind", list(Kind))
def test_the_text_says_what_the_constraints_demand(style: Style, kind: Kind) -> None:
    rng = random.Random(7)
    weather_words = [list({*a, *b}) for a, b in zip(WEATHER_PHRASES, WEATHER_TERSE, strict=True)]
    for scene in scenes(8, kind=kind):
        text, wanted = query(rng, scene, style)
        text = text.lower().rstrip(".")
        weather, place, time = (int(wanted[i]) for i in (Slot.WEATHER, Slot.PLACE, Slot.TIME))

        rest = without(text, weather_words[Weather.RAIN] + weather_words[Weather.SNOW])
        snow_is_weather = weather == Weather.SNOW and place not in (ANY, PLACE_CODES["snow"])
        if weather == Weather.RAIN:
            assert says(text, weather_words[Weather.RAIN]), text
        if weather == Weather.SNOW:
            assert rest != text or (snow_is_weather and says(text, ["snow"])), text
        if weather == ANY:
            assert rest == text, text

        if wanted[Slot.WORD] == ANY:  # "park" and "pizza" are also words on signs
            assert "sign" not in text
            assert "word " not in text
            named = [i for i, words in enumerate(PLACE_WORDS) if says(rest, words)]
            if snow_is_weather and PLACE_CODES["snow"] in named:
                named.remove(PLACE_CODES["snow"])
            assert (named == [place]) if place != ANY else not named, (text, named)
        for moment in Time:
            # "in the dark" and "dark" are one; no time of day is said unless it is demanded.
            words = [*TIME_PHRASES[moment], *TIME_TERSE[moment]]
            assert says(without(rest, ["on a rainy day"]), words) == (time == moment), text

        plain = without(rest, [word for words in PLACE_WORDS for word in words])
        tokens = re.findall(r"[a-z0-9-]+", plain)
        colours = sorted(COLOURS.index(token) + 1 for token in tokens if token in COLOURS)
        assert colours == sorted(int(wanted[g][2]) for g in (GROUP_A, GROUP_B) if wanted[g][2] > 0), text
        numbers = sorted(NUMBER_WORDS[token] for token in tokens if token in NUMBER_WORDS)
        exact = [int(wanted[g][1]) for g in (GROUP_A, GROUP_B) if 1 <= wanted[g][1] <= 5]
        assert numbers == sorted(exact), text
        sizes = {Size.SMALL: {"small", "tiny", "little"}, Size.BIG: {"big", "large", "huge"}}
        for size, words in sizes.items():
            assert bool(words & set(tokens)) == (wanted[Slot.A_SIZE] == size), text
        media = {"photo", "photos", "picture", "image", "pic"}, {"video", "videos", "clip", "footage"}
        assert bool(media[kind] & set(tokens)) == (wanted[Slot.KIND] == kind), text


@pytest.mark.parametrize("style", list(Style))
def test_relations_read_the_right_way_round(style: Style) -> None:
    rng = random.Random(11)
    read = {"as said": 0, "turned round": 0}
    for scene in scenes(12, kind=Kind.PHOTO):
        text, wanted = query(rng, scene, style)
        if wanted[Slot.RELATION] == ANY or max(wanted[Slot.A_OBJECT], wanted[Slot.B_OBJECT]) >= CATEGORY:
            continue
        if wanted[Slot.A_OBJECT] == wanted[Slot.B_OBJECT]:
            continue
        other = [word for words in (*PLACE_WORDS, *TIME_PHRASES) for word in words]
        text = without(text.lower(), other)  # "under the stars"
        places = []
        for slot in (Slot.A_OBJECT, Slot.B_OBJECT):
            nouns = OBJECTS[wanted[slot]].nouns
            names = "|".join(re.escape(name) for noun in nouns for name in (plural(noun), noun))
            found = re.search(rf"\b({names})\b", text)
            assert found, text
            places.append(found.start())
        relations = [r for r in Relation if r and says(text, list(RELATION_PHRASES[r]))]
        turned = places[0] > places[1]
        expected = INVERSE_RELATION[wanted[Slot.RELATION]] if turned else wanted[Slot.RELATION]
        assert relations == [expected], text
        read["turned round" if turned else "as said"] += 1
    assert min(read.values()) > 2


@pytest.mark.parametrize("style", list(Style))
def test_motions_and_positions_are_those_of_the_scene(style: Style) -> None:
    rng = random.Random(13)
    heard: set[tuple[Slot, int]] = set()
    for scene in scenes(14, count=800):
        text, wanted = query(rng, scene, style)
        clean = text.lower()
        for slot, tables in (
            (Slot.MOTION, (MOTION_PHRASES, MOTION_TERSE)),
            (Slot.A_POSITION, (POSITION_PHRASES, POSITION_TERSE)),
        ):
            said = int(wanted[slot])
            for code in range(1, len(tables[0])):
                words = list(tables[style == Style.TERSE][code])
                # Snow is "falling" too.
                if slot == Slot.MOTION and scene[Slot.WEATHER] == Weather.SNOW:
                    continue
                if words:
                    assert says(clean, words) == (said == code), (text, code)
                    heard |= {(slot, code)} if said == code else set()
        if wanted[Slot.MOTION] == Motion.THEN:
            assert says(clean, ["then", "followed by"]), text
    assert len(heard) == 11


@pytest.mark.parametrize("style", list(Style))
def test_open_plurals_mean_two_or_more(style: Style) -> None:
    """A noun in the plural without a number demands two, one in the singular none."""
    rng = random.Random(9)
    plurals = {plural(noun) for thing in OBJECTS for noun in thing.nouns if plural(noun) != noun}
    for scene in scenes(10, kind=Kind.PHOTO):
        if scene[Slot.B_OBJECT] >= 0:
            continue
        text, wanted = query(rng, scene, style)
        if wanted[Slot.WORD] != ANY or wanted[Slot.A_OBJECT] == ANY or wanted[Slot.A_OBJECT] >= CATEGORY:
            continue
        # "among the trees" and "in the woods" are places.
        clean = without(text.lower().rstrip("."), [word for words in PLACE_WORDS for word in words])
        many = any(re.search(rf"\b{re.escape(noun)}\b", clean) for noun in plurals)
        some = bool(re.search(r"\b(some|several|many|lots)\b", clean))
        count = int(wanted[Slot.A_COUNT])
        if count in (ANY, 1):
            assert not many, text
        elif many or some:
            assert count >= 2, text
        number = re.search(r"\b(two|three|four|five|[2-5])\b", clean)
        open_count = (many or some) and not number
        assert (count in (AT_LEAST_TWO, AT_LEAST_FOUR)) == open_count, text


def test_terse_queries_are_what_people_type() -> None:
    beach, night = PLACE_CODES["beach"], Time.NIGHT
    scene = sample(random.Random(0), kind=Kind.PHOTO)
    scene[[Slot.PLACE, Slot.TIME, Slot.WEATHER, Slot.WORD, Slot.RELATION]] = beach, night, 0, 0, 0
    scene[GROUP_A] = OBJECT_CODES["dog"], 2, 0, Size.NORMAL, Position.NONE
    scene[GROUP_B] = -1, 0, 0, 0, 0
    rng = random.Random(1)
    texts = {query(rng, scene, Style.TERSE).text for _ in range(8000)}
    assert {
        "dogs",
        "dog",
        "2 dogs",
        "two dogs beach night",
        "dogs on a beach",
        "animals",
        "beach night",
    } <= texts
    assert {"photos of dogs", "dogs on beach", "night beach"} <= texts
    assert {"two dogs at night", "dogs night", "2 dogs beach"} <= texts
    assert all(text == text.lower() for text in texts)


def test_snow_is_weather_beside_a_place_and_a_place_alone() -> None:
    rng = random.Random(2)
    city = PLACE_CODES["city"]
    found = 0
    for scene in scenes(3, kind=Kind.PHOTO):
        scene[[Slot.PLACE, Slot.WEATHER, Slot.WORD]] = city, Weather.SNOW, 0
        for _ in range(10):
            text, wanted = query(rng, scene, Style.TERSE)
            if "snow" in without(text, list(WEATHER_PHRASES[2] + WEATHER_TERSE[2])).split():
                found += 1
                assert wanted[Slot.WEATHER] == Weather.SNOW, text
                assert wanted[Slot.PLACE] == city, text
    assert found > 20


def test_the_default_mixture_has_all_styles() -> None:
    rng = random.Random(4)
    lengths = [len(query(rng, scene).text.split()) for scene in scenes(5)]
    assert min(lengths) == 1
    assert max(lengths) > 15
    assert 0.35 < np.mean(np.array(lengths) <= 5) < 0.65
