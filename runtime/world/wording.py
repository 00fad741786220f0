"""Puts parts of a scene into words and records what was said.

A `Wording` is one query in the making: each method says one thing about the scene, chooses the words by
chance, and writes the matching constraint. What no method said stays open.
"""

from __future__ import annotations

import random

import numpy as np

from .relevance import Constraints
from .scenes import Scene
from .vocabulary import (
    ANY,
    AT_LEAST_FOUR,
    AT_LEAST_TWO,
    CATEGORIES,
    CATEGORY,
    COLOURS,
    NUMBERS,
    OBJECTS,
    PLACES,
    SLOTS,
    TIME_PHRASES,
    WEATHER_PHRASES,
    WORDS,
    Size,
    Slot,
)

_PLURALS = {
    "snowman": "snowmen",
    "piece of clothing": "pieces of clothing",
    "sheep": "sheep",
    "fish": "fish",
    "puppy": "puppies",
    "pony": "ponies",
    "bunny": "bunnies",
    "slice of pizza": "slices of pizza",
    "cactus": "cacti",
}
_CATEGORY_NOUNS = {"food": "food item", "clothing": "piece of clothing"}
SIZE_WORDS = {Size.SMALL: ("small", "tiny", "little"), Size.BIG: ("big", "large", "huge")}
_PLURAL_NAMES = frozenset({"mountains", "snowy peaks", "woods"})
"""Names of places that take no article."""


def plural(noun: str) -> str:
    """The plural of a noun of this world."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("fly"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")


def with_article(words: str) -> str:
    """The words after "a" or "an"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def category_noun(category: str) -> str:
    """A countable noun for a category."""
    return _CATEGORY_NOUNS.get(category, category)


def adjectives(rng: random.Random, colour: int, size: int) -> str:
    """ "big red " and the like, with a trailing space; empty where both are open."""
    words = [rng.choice(SIZE_WORDS[Size(size)])] if size in SIZE_WORDS else []
    if colour > 0:
        words.append(COLOURS[colour - 1])
    return "".join(word + " " for word in words)


def noun_phrase(rng: random.Random, thing: int, count: int, colour: int, size: int) -> str:
    """Words for a group: `thing` an object or category code, `count` a number, a count code or ANY."""
    if thing >= CATEGORY:
        noun = category_noun(CATEGORIES[thing - CATEGORY])
    else:
        nouns = OBJECTS[thing].nouns
        noun = rng.choice(nouns) if rng.random() < 0.4 else nouns[0]
    look = adjectives(rng, colour, size)
    if count == ANY:
        return rng.choice([with_article(look + noun), with_article(look + noun), look + noun])
    if count == 1:
        return rng.choice(["one ", "a single ", "exactly one ", "just one "]) + look + noun
    if count == AT_LEAST_TWO:
        # "fish" alone could be one: nouns without a plural of their own need a word that says more than one.
        some = ["some ", "several "] if plural(noun) == noun else ["", "some ", "several "]
        return rng.choice(some) + look + plural(noun)
    if count == AT_LEAST_FOUR:
        return "many " + look + plural(noun)
    return (NUMBERS[count] if rng.random() < 0.85 else str(count)) + " " + look + plural(noun)


class Wording:
    """One query about one scene in the making. `constraints`: int16 [17], see `relevance`."""

    def __init__(self, rng: random.Random, scene: Scene) -> None:
        self.rng, self.scene = rng, scene
        self.constraints: Constraints = np.full(SLOTS, ANY, np.int16)

    def has(self, slot: Slot) -> bool:
        """Whether the scene has a weather, word, position, size, second group ... to speak of."""
        value = int(self.scene[slot])
        if slot in (Slot.A_SIZE, Slot.B_SIZE):
            return value != Size.NORMAL
        return value >= 0 if slot in (Slot.A_OBJECT, Slot.B_OBJECT) else value > 0

    def demand(self, slot: Slot) -> int:
        """Demands what the scene has in this slot; returns it."""
        value = int(self.scene[slot])
        self.constraints[slot] = value
        return value

    def place(self) -> str:
        """ "on a beach"."""
        return self.rng.choice(PLACES[self.demand(Slot.PLACE)].phrases)

    def place_name(self, *, article: bool) -> str:
        """ "a beach", or "beach" without the article."""
        name = self.rng.choice(PLACES[self.demand(Slot.PLACE)].names)
        return with_article(name) if article and name not in _PLURAL_NAMES else name

    def time(self) -> str:
        """ "at night"."""
        return self.rng.choice(TIME_PHRASES[self.demand(Slot.TIME)])

    def weather(self) -> str:
        """ "in the rain"."""
        return self.rng.choice(WEATHER_PHRASES[self.demand(Slot.WEATHER)])

    def sign(self, templates: tuple[str, ...], *, lower: float) -> str:
        """The word on the sign, put into one of the templates; `lower`: how often in lower case, 0..1."""
        word = WORDS[self.demand(Slot.WORD) - 1]
        return self.rng.choice(templates).format(word.lower() if self.rng.random() < lower else word)

    def demand_group(self, said: slice, thing: int, count: int, colour: int, size: int) -> None:
        """Demands a group; `said`: GROUP_A for the group named first, GROUP_B for the second."""
        self.constraints[said] = thing, count, colour, size, ANY
