"""Terse queries, as people type them into a search field.

"two dogs beach night", "red car", "3 balloons sunset", "hotel sign", "snow city", "dogs", "video of a
balloon rising": lower case, digits as often as number words, few articles, any order of words. The rules
that keep them exact:

- a singular without a number ("dog") means one or more, a plural without a number ("dogs") two or more, in
  one group;
- "snow" is weather where another place is named ("snow city"), and the snowy field where none is;
- things named one after the other, without a word between, say nothing about where they are.
"""

from __future__ import annotations

from .vocabulary import (
    ANY,
    AT_LEAST_FOUR,
    AT_LEAST_TWO,
    CATEGORIES,
    CATEGORY,
    CATEGORY_OF,
    COLOURS,
    GROUP_A,
    GROUP_B,
    INVERSE_RELATION,
    MOTION_TERSE,
    NUMBERS,
    OBJECTS,
    PLACES,
    POSITION_TERSE,
    SNOW_FIELD,
    TIME_TERSE,
    WEATHER_TERSE,
    Motion,
    Size,
    Slot,
    Time,
    Weather,
)
from .wording import SIZE_WORDS, Wording, adjectives, plural, with_article

_SIGNS = ("{} sign", "sign {}", "sign saying {}", "word {}", "sign with {}", "text {}")
_RELATIONS = (
    (),
    ("left of", "to left of"),
    ("right of", "to right of"),
    ("above", "over"),
    ("below", "under"),
)
_PHOTO_MEDIA = ("photo of", "picture of", "pic of", "photos of")
_CLIP_MEDIA = ("video of", "clip of", "videos of")
_UNCOUNTED = frozenset({"food", "clothing"})
_UNTYPED = frozenset({"thing"})
"""Categories that nobody would search for by that word."""


def write_terse(wording: Wording) -> str:
    """The text of a terse query; what it demands is left in `wording.constraints`."""
    rng, draw = wording.rng, wording.rng.random()
    clip = bool(wording.scene[Slot.KIND])
    if clip and draw < 0.55:
        subject = _write_motion(wording)
    elif wording.has(Slot.WORD) and draw < 0.3:
        subject = wording.sign(_SIGNS, lower=0.85)
        if rng.random() < 0.2:
            subject = " ".join(_shuffled(wording, [subject, _name(wording, GROUP_A, GROUP_A)]))
    elif wording.has(Slot.B_OBJECT) and not clip and draw < 0.5:
        subject = _write_pair(wording)
    elif draw > 0.92:
        return _add_medium(wording, _write_surroundings(wording))
    else:
        second = wording.has(Slot.B_OBJECT) and not clip and rng.random() < 0.4
        subject = _name(wording, GROUP_B if second else GROUP_A, GROUP_A)
        if wording.has(Slot.A_POSITION) and rng.random() < 0.35:
            subject += " " + rng.choice(POSITION_TERSE[wording.demand(Slot.A_POSITION)])
    if rng.random() < 0.4:
        return _add_medium(wording, " ".join([subject, *_phrases(wording)]))
    parts = [subject, *_context(wording, place=0.45)]
    return _add_medium(wording, _join(wording, _shuffled(wording, parts) if rng.random() < 0.4 else parts))


def _write_surroundings(wording: Wording) -> str:
    """A place, time or weather without a thing: "night city", "rain", "snowing in the city"."""
    rng = wording.rng
    if wording.has(Slot.WEATHER) and rng.random() < 0.5:
        draw = rng.random()
        if draw < 0.35:
            return " ".join(_shuffled(wording, [_weather(wording, named=True), _place(wording)]))
        weather = _weather(wording, named=False)
        return weather if draw > 0.7 or weather == "rainy" else f"{weather} {wording.place()}"
    if rng.random() < 0.15:
        return rng.choice(TIME_TERSE[wording.demand(Slot.TIME)])
    parts = _context(wording, place=1.0)
    if len(parts) == 1 and rng.random() < 0.3:
        parts.append(wording.time())
        return " ".join(parts)
    return _join(wording, _shuffled(wording, parts))


def _join(wording: Wording, parts: list[str]) -> str:
    return (", " if wording.rng.random() < 0.07 else " ").join(parts)


def _shuffled(wording: Wording, parts: list[str]) -> list[str]:
    wording.rng.shuffle(parts)
    return parts


def _context(wording: Wording, *, place: float) -> list[str]:
    """Bare words: "beach", "night", "rain". `place`: how often the place is named, 0..1."""
    rng, scene = wording.rng, wording.scene
    parts = []
    named = rng.random() < place
    if named:
        parts.append(_place(wording))
    # "day" is what pictures are when nothing is said: it is seldom typed.
    if rng.random() < (0.12 if scene[Slot.TIME] == Time.DAY else 0.45):
        parts.append(rng.choice(TIME_TERSE[wording.demand(Slot.TIME)]))
    if wording.has(Slot.WEATHER) and rng.random() < 0.3:
        parts.append(_weather(wording, named=named))
    return parts


def _place(wording: Wording) -> str:
    return wording.rng.choice(PLACES[wording.demand(Slot.PLACE)].terse)


def _weather(wording: Wording, *, named: bool) -> str:
    """ "rain", "snowing"; "snow" too where a place that is not the snowy field is `named`."""
    words = WEATHER_TERSE[wording.demand(Slot.WEATHER)]
    if named and wording.scene[Slot.WEATHER] == Weather.SNOW and wording.scene[Slot.PLACE] != SNOW_FIELD:
        words = (*words, "snow", "snow")
    return wording.rng.choice(words)


def _phrases(wording: Wording) -> list[str]:
    """ "on a beach", "at night", "in rain": up to two, often without their articles."""
    rng = wording.rng
    draw = rng.random()
    if draw < 0.4:
        parts = [wording.place()]
    elif draw < 0.65:
        parts = [wording.time()]
    elif draw < 0.85:
        parts = [wording.place(), wording.time()]
        if rng.random() < 0.3:
            parts.reverse()
    elif wording.has(Slot.WEATHER):
        parts = [wording.weather()]
    else:
        parts = []
    if rng.random() < 0.4:
        parts = [part.replace(" a ", " ").replace(" the ", " ") for part in parts]
    return parts


def _write_motion(wording: Wording) -> str:
    rng, motion = wording.rng, int(wording.scene[Slot.MOTION])
    text = _name(wording, GROUP_A, GROUP_A)
    if motion != Motion.THEN:
        wording.demand(Slot.MOTION)
        return f"{text} {rng.choice(MOTION_TERSE[motion])}"
    if rng.random() < 0.7:
        wording.demand(Slot.MOTION)
        return f"{text} then {_name(wording, GROUP_B, GROUP_B)}"
    return text


def _write_pair(wording: Wording) -> str:
    rng = wording.rng
    a, b = _name(wording, GROUP_A, GROUP_A), _name(wording, GROUP_B, GROUP_B)
    if rng.random() < 0.45:
        relation = wording.demand(Slot.RELATION)
        if rng.random() < 0.4:
            a, b, relation = b, a, INVERSE_RELATION[relation]
        return f"{a} {rng.choice(_RELATIONS[relation])} {b}"
    if rng.random() < 0.5:
        a, b = b, a
    return a + rng.choice([" ", " and ", " and ", " with ", " + "]) + b


def _name(wording: Wording, source: slice, said: slice) -> str:
    """ "2 red cars", "dogs", "dog", "big cat", "animals"; demands the group in the slots `said`."""
    rng = wording.rng
    thing, found, colour, size, _ = (int(v) for v in wording.scene[source])
    category = CATEGORIES[CATEGORY_OF[thing]]
    nouns = OBJECTS[thing].nouns
    noun = rng.choice(nouns) if rng.random() < 0.3 else nouns[0]
    if category not in _UNTYPED and rng.random() < 0.1:
        thing, noun = CATEGORY + CATEGORY_OF[thing], category
    colour = colour if colour > 0 and rng.random() < 0.65 else ANY
    size = size if size != Size.NORMAL and rng.random() < 0.45 else ANY
    count = ANY if wording.scene[Slot.KIND] or noun in _UNCOUNTED else _choose_count(wording, found, noun)
    wording.demand_group(said, thing, count, colour, size)
    look = adjectives(rng, colour, size)
    if count == ANY:
        one = rng.random() < 0.15 and noun not in _UNCOUNTED
        return with_article(look + noun) if one else look + noun
    if count == 1:
        return rng.choice(["1 ", "one ", "single "]) + look + noun
    if count == AT_LEAST_TWO:
        return look + plural(noun)
    if count == AT_LEAST_FOUR:
        return rng.choice(["many ", "lots of "]) + look + plural(noun)
    return rng.choice([str(count), NUMBERS[count]]) + " " + look + plural(noun)


def _choose_count(wording: Wording, found: int, noun: str) -> int:
    draw = wording.rng.random()
    if found == 1:
        return 1 if draw < 0.12 else ANY
    if draw < 0.55:
        return found
    if draw < 0.85:
        # "fish" without a number could be one.
        return AT_LEAST_TWO if plural(noun) != noun else found
    if found >= 4 and draw < 0.92:
        return AT_LEAST_FOUR
    return ANY


def _add_medium(wording: Wording, text: str) -> str:
    """Sometimes says "photo of" before or "video" after the rest."""
    rng = wording.rng
    if rng.random() >= 0.15:
        return text
    clip = wording.demand(Slot.KIND)
    if rng.random() < 0.6:
        before = rng.choice(_CLIP_MEDIA if clip else _PHOTO_MEDIA)
        if _starts_with_one_thing(wording, text) and rng.random() < 0.6:
            text = with_article(text)
        return f"{before} {text}"
    return f"{text} {rng.choice(['video', 'clip'] if clip else ['photo', 'pic', 'photos', 'picture'])}"


def _starts_with_one_thing(wording: Wording, text: str) -> bool:
    """Whether an article could stand before the text: "dog beach" but not "dogs", "a dog" or "beach dog"."""
    thing, count, colour, size, _ = (int(v) for v in wording.constraints[GROUP_A])
    if thing == ANY or count != ANY or wording.constraints[Slot.B_OBJECT] != ANY:
        return False
    if colour != ANY or size != ANY:
        nouns = (*COLOURS, *SIZE_WORDS.get(Size(size), ())) if size != ANY else COLOURS
    else:
        nouns = (CATEGORIES[thing - CATEGORY],) if thing >= CATEGORY else OBJECTS[thing].nouns
    return not _UNCOUNTED.intersection(nouns) and text.startswith(tuple(nouns))
