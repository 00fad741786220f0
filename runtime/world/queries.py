"""Writes queries about scenes, with the exact constraint vector of each.

Four styles: FULL captions say everything, PARTIAL ones some of it, both as sentences; SHORT ones are
phrases of one or two facts; TERSE ones are what people type into a search field (see `terse`). A query
always matches the scene it was written about, and demands nothing that its text does not say.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from .relevance import Constraints
from .scenes import Scene
from .terse import write_terse
from .vocabulary import (
    ANY,
    AT_LEAST_FOUR,
    AT_LEAST_TWO,
    CATEGORY,
    CATEGORY_OF,
    GROUP_A,
    GROUP_B,
    INVERSE_RELATION,
    MOTION_PHRASES,
    POSITION_PHRASES,
    RELATION_PHRASES,
    Kind,
    Motion,
    Slot,
    Weather,
)
from .wording import Wording, noun_phrase

_Mention = Callable[[], bool]


class Style(StrEnum):
    """How much a query says, and how."""

    FULL = "full"
    PARTIAL = "partial"
    SHORT = "short"
    TERSE = "terse"


class Query(NamedTuple):
    """A query's text and what it demands: int16 [17], see `relevance.match`."""

    text: str
    constraints: Constraints


# Short free text is what people type, so it is half of the default mixture.
_MIXTURE = ((Style.FULL, 0.25), (Style.PARTIAL, 0.5), (Style.SHORT, 0.7), (Style.TERSE, 1.0))

# fmt: off
_SIGNS = (
    "with a sign saying {}", "with a sign that says {}", "with the word {}", "and a sign reading {}",
    "next to a sign with the word {}",
)
_LONE_SIGNS = (
    "a sign saying {}", "a sign that says {}", "{} sign", "sign {}", "sign with the word {}", "the word {}",
    "a {} sign",
)
# fmt: on


_PHOTO_MEDIA = ("a photo of ", "a picture of ", "an image of ", "photo: ")
_CLIP_MEDIA = ("a video of ", "a clip of ", "footage of ", "video: ")


def query(rng: random.Random, scene: Scene, style: Style | None = None) -> Query:
    """A random query that `scene` answers, in one style or, with None, in a mixture of all four."""
    if style is None:
        draw = rng.random()
        style = next(name for name, limit in _MIXTURE if draw < limit)
    wording = Wording(rng, scene)
    match style:
        case Style.FULL:
            text = _write_sentence(wording, full=True)
        case Style.PARTIAL:
            text = _write_sentence(wording, full=False)
        case Style.SHORT:
            text = _write_short(wording)
        case Style.TERSE:
            text = write_terse(wording)
    return Query(text, wording.constraints)


def _write_sentence(wording: Wording, *, full: bool) -> str:
    rng, scene = wording.rng, wording.scene
    share = 1.0 if full else rng.choice([0.35, 0.6, 0.8])

    def mention() -> bool:
        return rng.random() < share

    groups = _choose_groups(wording, mention)
    clip = bool(scene[Slot.KIND])
    texts = [_describe_group(wording, source, said, full, mention) for source, said in groups]
    if clip and groups and (full or rng.random() < 0.8):
        _add_motion(wording, texts)
    subject = _join_groups(wording, texts, mention)

    place = name = time = weather = sign = ""
    say_place = mention()
    if mention():
        time = wording.time()
    if wording.has(Slot.WEATHER) and mention():
        weather = wording.weather()
    if wording.has(Slot.WORD) and (mention() or not (groups or say_place)):
        sign = wording.sign(_SIGNS, lower=1 / 3)
    if say_place or not (groups or sign):
        place, name = wording.place(), wording.place_name(article=True)

    order = rng.random()
    starts_with_noun = not groups or order < 0.75
    if not groups:
        if not name:
            name, sign = sign.removeprefix("with ").removeprefix("and ").removeprefix("next to "), ""
        text = _words(name, time, weather, sign)
    elif order < 0.45:
        text = _words(subject, place, time, weather, sign)
    elif order < 0.6:
        text = _words(subject, sign, place, weather, time)
    elif order < 0.75:
        text = (
            _words(name, time, weather, "with " + subject, sign)
            if name
            else _words(subject, time, weather, sign)
        )
    elif order < 0.88 and (place or time):
        text = _words(place, time, weather) + ", " + _words(subject, sign)
    else:
        text = _words(time, subject, sign, place, weather)
        starts_with_noun = not time

    if rng.random() < 0.3 and (not clip or rng.random() < 0.7):
        wording.demand(Slot.KIND)
        media = _CLIP_MEDIA if clip else _PHOTO_MEDIA
        text = (rng.choice(media) if starts_with_noun else media[-1]) + text
    if rng.random() < 0.2:
        text = text[0].upper() + text[1:] + rng.choice(["", "."])
    return text


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _choose_groups(wording: Wording, mention: _Mention) -> list[tuple[slice, slice]]:
    """Which groups of the scene to speak of, and the slots that take them; a lone group B is said first."""
    first = mention()
    second = wording.has(Slot.B_OBJECT) and mention()
    if not (first or second) and wording.rng.random() < 0.7:
        first = True
    if first:
        return [(GROUP_A, GROUP_A), (GROUP_B, GROUP_B)] if second else [(GROUP_A, GROUP_A)]
    return [(GROUP_B, GROUP_A)] if second else []


def _describe_group(wording: Wording, source: slice, said: slice, full: bool, mention: _Mention) -> str:
    rng = wording.rng
    thing, count, colour, size, position = (int(v) for v in wording.scene[source])
    if not full and rng.random() < 0.06:
        thing = CATEGORY + CATEGORY_OF[thing]
    if full or mention():
        count = _choose_count(rng, count, full)
    else:
        count = AT_LEAST_TWO if count > 1 and rng.random() < 0.5 else ANY
    if wording.scene[Slot.KIND]:
        count = ANY
    colour = colour if colour > 0 and mention() else ANY
    size = size if size != 2 and mention() else ANY
    wording.demand_group(said, thing, count, colour, size)
    text = noun_phrase(rng, thing, count, colour, size)
    if position > 0 and mention():
        wording.constraints[said.start + 4] = position
        text += " " + rng.choice(POSITION_PHRASES[position])
    return text


def _choose_count(rng: random.Random, count: int, full: bool) -> int:
    """The exact number, or "two or more", "four or more"; "a dog" may be more than one."""
    draw = rng.random()
    if count == 1:
        return 1 if draw < (0.5 if full else 0.25) else ANY
    if full or draw < 0.75:
        return count
    return AT_LEAST_TWO if draw < 0.9 or count < 4 else AT_LEAST_FOUR


def _add_motion(wording: Wording, texts: list[str]) -> None:
    motion = int(wording.scene[Slot.MOTION])
    if motion != Motion.THEN:
        wording.demand(Slot.MOTION)
        texts[0] += " " + wording.rng.choice(MOTION_PHRASES[motion])
    elif len(texts) == 2:
        wording.demand(Slot.MOTION)


def _join_groups(wording: Wording, texts: list[str], mention: _Mention) -> str:
    rng, clip = wording.rng, bool(wording.scene[Slot.KIND])
    if len(texts) < 2:
        return "".join(texts)
    if wording.constraints[Slot.MOTION] == Motion.THEN:
        templates = ["{} then {}", "{} and then {}", "first {}, then {}", "{} followed by {}"]
        return rng.choice(templates).format(*texts)
    if wording.has(Slot.RELATION) and mention():
        return _relate(wording, texts[0], texts[1], turned=0.2)
    if clip:
        return "{} and {}".format(*texts)
    if rng.random() < 0.5:
        texts = texts[::-1]
    return rng.choice(["{} and {}", "{} with {}", "{} next to {}"]).format(*texts)


def _relate(wording: Wording, a: str, b: str, *, turned: float) -> str:
    """ "A left of B", or, with chance `turned`, "B right of A"."""
    rng, relation = wording.rng, wording.demand(Slot.RELATION)
    if rng.random() < turned:
        return f"{b} {rng.choice(RELATION_PHRASES[INVERSE_RELATION[relation]])} {a}"
    return f"{a} {rng.choice(RELATION_PHRASES[relation])} {b}"


def _write_short(wording: Wording) -> str:
    """One or two facts: "two dogs on a beach", "a sign saying hotel", "beach at night"."""
    rng, scene = wording.rng, wording.scene
    clip, draw = bool(scene[Slot.KIND]), rng.random()
    two = wording.has(Slot.B_OBJECT)
    if clip and draw < 0.6:
        text, motion = _name_group(wording, GROUP_A, GROUP_A), int(scene[Slot.MOTION])
        if motion != Motion.THEN:
            wording.demand(Slot.MOTION)
            text += " " + rng.choice(MOTION_PHRASES[motion])
        elif rng.random() < 0.6:
            wording.demand(Slot.MOTION)
            text += rng.choice([" then ", ", then ", " and then "]) + _name_group(wording, GROUP_B, GROUP_B)
        text += _maybe_where_or_when(wording, 0.35)
    elif wording.has(Slot.WORD) and draw < 0.4:
        text = wording.sign(_LONE_SIGNS, lower=2 / 3) + _maybe_where_or_when(wording, 0.35)
    elif two and draw < 0.65 and not clip:
        a, b = _name_group(wording, GROUP_A, GROUP_A), _name_group(wording, GROUP_B, GROUP_B)
        if rng.random() < 0.6:
            text = _relate(wording, a, b, turned=0.4)
        else:
            text = rng.choice(["{} and {}", "{} with {}"]).format(*((a, b) if rng.random() < 0.5 else (b, a)))
        text += _maybe_where_or_when(wording, 0.3)
    elif draw > 0.88:
        text = wording.place_name(article=rng.random() < 0.5)
        if scene[Slot.WEATHER] == Weather.RAIN and rng.random() < 0.4:
            wording.demand(Slot.WEATHER)
            text = "rainy " + wording.place_name(article=False)
        elif wording.has(Slot.WEATHER) and rng.random() < 0.6:
            text += " " + wording.weather()
        if rng.random() < 0.5:
            text += " " + wording.time()
    else:
        text = _write_one_group(wording)
    return text[0].upper() + text[1:] if rng.random() < 0.15 else text


def _write_one_group(wording: Wording) -> str:
    rng, clip = wording.rng, wording.scene[Slot.KIND] == Kind.CLIP
    second = wording.has(Slot.B_OBJECT) and not clip and rng.random() < 0.4
    text = _name_group(wording, GROUP_B if second else GROUP_A, GROUP_A)
    if wording.has(Slot.A_POSITION) and rng.random() < 0.3:
        text += " " + rng.choice(POSITION_PHRASES[wording.demand(Slot.A_POSITION)])
    draw = rng.random()
    if draw < 0.35:
        return f"{text} {wording.place()}"
    if draw < 0.6:
        return f"{text} {wording.time()}"
    if draw < 0.75:
        return f"{text} {wording.place()} {wording.time()}"
    if draw < 0.85 and wording.has(Slot.WEATHER):
        return f"{text} {wording.weather()}"
    return text


def _name_group(wording: Wording, source: slice, said: slice) -> str:
    rng = wording.rng
    thing, count, colour, size, _ = (int(v) for v in wording.scene[source])
    if rng.random() < 0.07:
        thing = CATEGORY + CATEGORY_OF[thing]
    count = ANY if count == 1 or wording.scene[Slot.KIND] else rng.choice([count, count, count, AT_LEAST_TWO])
    colour = colour if colour > 0 and rng.random() < 0.7 else ANY
    size = size if size != 2 and rng.random() < 0.5 else ANY
    wording.demand_group(said, thing, count, colour, size)
    return noun_phrase(rng, thing, count, colour, size)


def _maybe_where_or_when(wording: Wording, chance: float) -> str:
    if wording.rng.random() >= chance:
        return ""
    return " " + (wording.place() if wording.rng.random() < 0.6 else wording.time())
