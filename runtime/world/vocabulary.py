"""The words of the sample world: slots of the scene vector, things, places, colours, signs and motions.

Order is part of the contract: a code in a scene vector is an index into these tables, and trained weights
know the codes. Append at the end, never reorder.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Slot(IntEnum):
    """Positions in a scene vector (int16 [17]) and in a query's constraint vector.

    A and B are the two groups of a scene. Objects are indices into `OBJECTS` (-1: no group B), counts 1 to
    5, colours 0 (as drawn) or 1 + index into `COLOURS`, sizes, positions, relations and motions the enums
    below (0: none), words 0 or 1 + index into `WORDS`, kind 0 photograph or 1 clip.
    """

    PLACE = 0
    TIME = 1
    WEATHER = 2
    A_OBJECT = 3
    A_COUNT = 4
    A_COLOUR = 5
    A_SIZE = 6
    A_POSITION = 7
    B_OBJECT = 8
    B_COUNT = 9
    B_COLOUR = 10
    B_SIZE = 11
    B_POSITION = 12
    RELATION = 13
    WORD = 14
    MOTION = 15
    KIND = 16


SLOTS = len(Slot)
GROUP_A = slice(Slot.A_OBJECT, Slot.A_POSITION + 1)
GROUP_B = slice(Slot.B_OBJECT, Slot.B_POSITION + 1)

ANY = -1
"""Constraint vectors only: this slot may hold anything."""
AT_LEAST_TWO = 8
AT_LEAST_FOUR = 9
CATEGORY = 100
"""Constraint vectors only: an object code of CATEGORY + i stands for any object of `CATEGORIES[i]`."""


class Kind(IntEnum):
    """What a scene is rendered as."""

    PHOTO = 0
    CLIP = 1


class Time(IntEnum):
    """Time of day."""

    DAY = 0
    SUNSET = 1
    NIGHT = 2


class Weather(IntEnum):
    """What falls from the sky."""

    NONE = 0
    RAIN = 1
    SNOW = 2


class Size(IntEnum):
    """Size of a group's objects."""

    SMALL = 1
    NORMAL = 2
    BIG = 3


class Position(IntEnum):
    """Where in the picture a single object is; NONE when the scene does not say."""

    NONE = 0
    LEFT = 1
    RIGHT = 2
    TOP = 3
    BOTTOM = 4
    MIDDLE = 5


class Relation(IntEnum):
    """Where group A is, seen from group B."""

    NONE = 0
    LEFT_OF = 1
    RIGHT_OF = 2
    ABOVE = 3
    BELOW = 4


INVERSE_RELATION = (0, 2, 1, 4, 3)
"""The relation of B to A, indexed by the relation of A to B."""


class Motion(IntEnum):
    """What happens in a clip; THEN: group A is shown first, group B after it."""

    NONE = 0
    LEFT = 1
    RIGHT = 2
    UP = 3
    DOWN = 4
    NEARER = 5
    FARTHER = 6
    THEN = 7


@dataclass(frozen=True, slots=True)
class Thing:
    """One kind of object: the emoji that draws it and the words for it."""

    name: str
    emoji: str
    nouns: tuple[str, ...]
    category: str
    recolourable: bool = False
    flies: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """One background.

    `phrases` follow a noun ("a dog on a beach"), `names` stand alone ("beach at night"), `terse` are the
    bare words that people type between others ("dog beach night").
    """

    name: str
    phrases: tuple[str, ...]
    names: tuple[str, ...]
    terse: tuple[str, ...]


def _things() -> tuple[Thing, ...]:
    fixed = (
        Thing("dog", "🐕", ("dog", "puppy"), "animal"),
        Thing("cat", "🐈", ("cat", "kitten"), "animal"),
        Thing("horse", "🐎", ("horse", "pony"), "animal"),
        Thing("cow", "🐄", ("cow",), "animal"),
        Thing("pig", "🐖", ("pig",), "animal"),
        Thing("sheep", "🐑", ("sheep", "lamb"), "animal"),
        Thing("elephant", "🐘", ("elephant",), "animal"),
        Thing("lion", "🦁", ("lion",), "animal"),
        Thing("monkey", "🐒", ("monkey", "ape"), "animal"),
        Thing("rabbit", "🐇", ("rabbit", "bunny", "hare"), "animal"),
        Thing("duck", "🦆", ("duck", "mallard"), "animal"),
        Thing("chicken", "🐓", ("chicken", "rooster"), "animal"),
        Thing("fish", "🐟", ("fish",), "animal"),
        Thing("butterfly", "🦋", ("butterfly",), "animal", flies=True),
        Thing("turtle", "🐢", ("turtle", "tortoise"), "animal"),
        Thing("snake", "🐍", ("snake", "serpent"), "animal"),
        Thing("penguin", "🐧", ("penguin",), "animal"),
        Thing("owl", "🦉", ("owl",), "animal"),
        Thing("bicycle", "🚲", ("bicycle", "bike"), "vehicle"),
        Thing("train", "🚂", ("train", "locomotive"), "vehicle"),
        Thing("plane", "✈️", ("plane", "airplane"), "vehicle", flies=True),
        Thing("boat", "⛵", ("boat", "sailboat"), "vehicle"),
        Thing("tractor", "🚜", ("tractor",), "vehicle"),
        Thing("tree", "🌳", ("tree",), "plant"),
        Thing("sunflower", "🌻", ("sunflower",), "plant"),
        Thing("cactus", "🌵", ("cactus",), "plant"),
        Thing("apple", "🍎", ("apple",), "food"),
        Thing("banana", "🍌", ("banana",), "food"),
        Thing("pizza", "🍕", ("pizza", "slice of pizza"), "food"),
        Thing("cake", "🎂", ("cake", "birthday cake"), "food"),
        Thing("football", "⚽", ("football", "soccer ball"), "toy"),
        Thing("guitar", "🎸", ("guitar",), "thing"),
        Thing("camera", "📷", ("camera",), "thing"),
        Thing("snowman", "⛄", ("snowman",), "thing"),
    )
    coloured = (
        Thing("car", "🚗", ("car", "automobile"), "vehicle", recolourable=True),
        Thing("balloon", "🎈", ("balloon",), "toy", recolourable=True, flies=True),
        Thing("umbrella", "☂️", ("umbrella", "parasol"), "thing", recolourable=True),
        Thing("shirt", "👕", ("shirt", "t-shirt"), "clothing", recolourable=True),
        Thing("book", "📕", ("book",), "thing", recolourable=True),
        Thing("heart", "❤️", ("heart",), "thing", recolourable=True),
        Thing("tulip", "🌷", ("tulip",), "plant", recolourable=True),
        Thing("backpack", "🎒", ("backpack", "rucksack"), "thing", recolourable=True),
        Thing("mitten", "🧤", ("glove", "mitten"), "clothing", recolourable=True),
        Thing("kite", "🪁", ("kite",), "toy", recolourable=True, flies=True),
    )
    return fixed + coloured


OBJECTS: tuple[Thing, ...] = _things()
OBJECT_CODES: dict[str, int] = {thing.name: code for code, thing in enumerate(OBJECTS)}
RECOLOURABLE: frozenset[int] = frozenset(i for i, thing in enumerate(OBJECTS) if thing.recolourable)
FLYING: frozenset[int] = frozenset(i for i, thing in enumerate(OBJECTS) if thing.flies)

CATEGORIES: tuple[str, ...] = tuple(sorted({thing.category for thing in OBJECTS}))
CATEGORY_OF: tuple[int, ...] = tuple(CATEGORIES.index(thing.category) for thing in OBJECTS)
"""Index into `CATEGORIES`, by object code."""

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white")
WHITE = 1 + COLOURS.index("white")
BLACK = 1 + COLOURS.index("black")

PLACES: tuple[Place, ...] = (
    Place(
        "beach",
        (
            "on a beach",
            "at the beach",
            "by the sea",
            "on the sand by the sea",
            "at the seaside",
            "on the shore",
        ),
        ("beach", "seaside", "sea shore"),
        ("beach", "seaside", "shore"),
    ),
    Place(
        "forest",
        ("in a forest", "in the woods", "among the trees", "in a wood"),
        ("forest", "woods"),
        ("forest", "woods"),
    ),
    Place(
        "city",
        ("in a city", "in the city", "downtown", "in front of tall buildings", "among skyscrapers"),
        ("city", "city skyline"),
        ("city", "downtown", "skyscrapers"),
    ),
    Place(
        "mountains",
        ("in the mountains", "in front of snowy peaks", "in the alps", "near the mountains"),
        ("mountains", "snowy peaks"),
        ("mountains", "mountain", "alps"),
    ),
    Place(
        "desert",
        ("in the desert", "in a desert", "among sand dunes"),
        ("desert",),
        ("desert", "sand dunes"),
    ),
    Place(
        "meadow",
        ("in a meadow", "on the grass", "in a green field", "in a park"),
        ("meadow", "green field", "park"),
        ("meadow", "grass", "park"),
    ),
    Place(
        "water",
        ("on the water", "on a lake", "on the open sea", "on the waves"),
        ("lake", "open sea"),
        ("lake", "water", "open sea"),
    ),
    Place(
        "snow",
        ("in the snow", "on a snowy field", "in a white winter landscape"),
        ("snowy field", "winter landscape"),
        ("snow", "winter landscape"),
    ),
    Place(
        "room",
        ("in a room", "indoors", "inside a house", "in the living room"),
        ("room", "living room"),
        ("room", "indoors", "inside", "living room"),
    ),
    Place(
        "road",
        ("on a road", "on the street", "on a highway"),
        ("road", "street", "highway"),
        ("road", "street", "highway"),
    ),
)
PLACE_CODES: dict[str, int] = {place.name: code for code, place in enumerate(PLACES)}
SNOW_FIELD = PLACE_CODES["snow"]
ROOM = PLACE_CODES["room"]

TIME_PHRASES: tuple[tuple[str, ...], ...] = (
    ("by day", "in daylight", "during the day", "in the daytime"),
    ("at sunset", "at dusk", "in the evening light", "at sundown"),
    ("at night", "by night", "in the dark", "under the stars", "at midnight"),
)
TIME_TERSE: tuple[tuple[str, ...], ...] = (
    ("daytime", "day", "daylight"),
    ("sunset", "dusk", "evening"),
    ("night", "night", "dark", "midnight"),
)
WEATHER_PHRASES: tuple[tuple[str, ...], ...] = (
    (),
    ("in the rain", "on a rainy day", "while it rains", "in rainy weather"),
    ("in falling snow", "while it is snowing", "during a snowfall", "with snow falling"),
)
WEATHER_TERSE: tuple[tuple[str, ...], ...] = (
    (),
    ("rain", "raining", "rainy"),
    ("snowing", "snowfall", "snow falling"),
)

# fmt: off
WORDS = (
    "OPEN", "SALE", "STOP", "CAFE", "TAXI", "HOTEL", "EXIT", "BUS", "ZOO", "PARK",
    "BANK", "PIZZA", "MUSIC", "HELLO", "LOVE", "HOME", "FIRE", "SHOP", "BAR", "POST",
)
# fmt: on

POSITION_PHRASES: tuple[tuple[str, ...], ...] = (
    (),
    ("on the left", "on the left side", "at the left edge"),
    ("on the right", "on the right side", "at the right edge"),
    ("at the top", "in the upper part"),
    ("at the bottom", "in the lower part"),
    ("in the middle", "in the centre", "in the center"),
)
POSITION_TERSE: tuple[tuple[str, ...], ...] = (
    (),
    ("left side", "on left", "on the left"),
    ("right side", "on right", "on the right"),
    ("top", "at top", "upper part"),
    ("bottom", "at bottom", "lower part"),
    ("middle", "centre", "center", "in middle"),
)
RELATION_PHRASES: tuple[tuple[str, ...], ...] = (
    (),
    ("to the left of", "left of"),
    ("to the right of", "right of"),
    ("above", "over"),
    ("below", "under", "beneath"),
)
MOTION_PHRASES: tuple[tuple[str, ...], ...] = (
    (),
    ("moving left", "going to the left", "moving from right to left"),
    ("moving right", "going to the right", "moving from left to right"),
    ("rising", "moving up", "going upwards"),
    ("falling", "moving down", "sinking"),
    ("getting bigger", "coming closer", "approaching", "growing"),
    ("getting smaller", "moving away", "shrinking"),
    (),
)
MOTION_TERSE: tuple[tuple[str, ...], ...] = (
    (),
    ("moving left", "going left", "moves left"),
    ("moving right", "going right", "moves right"),
    ("rising", "going up", "moving up"),
    ("falling", "going down", "moving down", "sinking"),
    ("coming closer", "approaching", "getting bigger", "growing"),
    ("moving away", "getting smaller", "going away", "shrinking"),
    (),
)
NUMBERS = ("", "one", "two", "three", "four", "five")
