"""Plans the sample library: who photographed what, where and when.

A plan is a list of `Shot`s, made from a seed alone: outings over seven years, each at one place of the
world, with winter where there is snow and evening hours where it is dark. Everything is invented but the
coordinates. No file is touched here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from .relevance import match
from .scenes import Scene, sample, valid
from .vocabulary import (
    ANY,
    COLOURS,
    GROUP_A,
    GROUP_B,
    OBJECT_CODES,
    PLACE_CODES,
    PLACES,
    RECOLOURABLE,
    SLOTS,
    SNOW_FIELD,
    WORDS,
    Kind,
    Motion,
    Relation,
    Size,
    Slot,
    Time,
    Weather,
)

CLIP_FPS = 8
CLIP_SIZE = 384
HEIC_PHOTOS = 8
CUT_CLIPS = 8
"""Clips of two or three scenes, cut one after the other, so that the library has moments to find."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Somewhere to take pictures: decimal degrees, north and east positive."""

    name: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Camera:
    """An invented camera. File names are templates with `number` and `moment`."""

    make: str
    model: str
    photo: str
    clip: str
    heic: bool = False


@dataclass(frozen=True, slots=True)
class Shot:
    """One file of the sample library, before it is made.

    path: relative, with forward slashes. scenes: one for a photograph, one or more for a clip; `seconds` is
    how long each is shown (0 for a photograph). size: pixels a side. orientation: the EXIF value, 1 where
    the file is stored upright. taken_at: local time, without a zone.
    """

    path: str
    kind: Kind
    scenes: tuple[Scene, ...]
    seconds: tuple[float, ...]
    seed: str
    size: int
    orientation: int
    taken_at: datetime
    spot: Spot
    camera: Camera


@dataclass(frozen=True, slots=True)
class DemoQuery:
    """A query that the sample library answers. `constraints`: int16 [17], see `relevance.match`."""

    text: str
    constraints: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class _Wish:
    """Scenes that the library must hold, whatever the seed."""

    text: str
    kind: Kind
    copies: int
    values: Mapping[Slot, int]


@dataclass(frozen=True, slots=True)
class _Outing:
    title: str
    place: int
    winter: bool
    spot: Spot
    camera: Camera
    start: datetime
    days: int


_CAMERAS = (
    Camera("Solano", "Solano Phone 7", "IMG_{number:04d}.JPG", "IMG_{number:04d}.MP4", heic=True),
    Camera("Orbit", "Orbit P4", "IMG_{moment:%Y%m%d_%H%M%S}.jpg", "VID_{moment:%Y%m%d_%H%M%S}.mp4"),
    Camera("Kestrel", "Kestrel D500", "DSC{number:05d}.JPG", "C{number:04d}.MP4"),
    Camera("Halden", "Halden Compact 20", "P{number:07d}.JPG", "MVI_{number:04d}.MP4"),
)

_SPOTS: dict[str, tuple[Spot, ...]] = {
    "beach": (
        Spot("Cádiz", 36.5164, -6.2886),
        Spot("Scheveningen", 52.1136, 4.2797),
        Spot("Lagos", 37.0879, -8.6687),
    ),
    "forest": (Spot("Freudenstadt", 48.4667, 8.4111), Spot("Fontainebleau", 48.4049, 2.7016)),
    "city": (Spot("Chicago", 41.8827, -87.6233), Spot("Frankfurt", 50.1109, 8.6821)),
    "mountains": (Spot("Zermatt", 46.0207, 7.7491), Spot("Chamonix", 45.9237, 6.8694)),
    "desert": (Spot("Merzouga", 31.0802, -4.0133), Spot("Swakopmund", -22.6792, 14.5272)),
    "meadow": (Spot("Hampstead Heath", 51.5608, -0.1629), Spot("Englischer Garten", 48.1642, 11.6056)),
    "water": (Spot("Lake Constance", 47.6336, 9.3890), Spot("Kiel", 54.3897, 10.1886)),
    "snow": (Spot("Rovaniemi", 66.5039, 25.7294), Spot("Davos", 46.8027, 9.8360)),
    "room": (Spot("Home", 48.7758, 9.1829),),
    "road": (Spot("Route 66", 35.2220, -111.5810), Spot("Grossglockner", 47.0833, 12.8428)),
}
_TITLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # place: (outings in the mild months, outings in winter)
    "beach": (("Beach day", "Weekend by the sea", "Summer holiday"), ("New Year by the sea",)),
    "forest": (("Forest walk", "Woodland picnic"), ("Winter walk",)),
    "city": (("City trip", "Old friends in town"), ("Christmas market",)),
    "mountains": (("Hiking", "Alpine summer"), ("Mountain hut",)),
    "desert": (("Desert tour", "Camping in the dunes"), ("Desert in January",)),
    "meadow": (("Picnic", "Garden party"), ("Park in December",)),
    "water": (("Sailing", "Lake weekend"), ("Lake in winter",)),
    "snow": ((), ("Ski week", "First snow", "Snow day")),
    "room": (("At home", "Birthday", "Rainy Sunday"), ()),
    "road": (("Road trip", "Cycling tour"), ("Winter drive",)),
}

_DOG, _CAT, _CAR, _TREE = (OBJECT_CODES[name] for name in ("dog", "cat", "car", "tree"))
_WISHES = (
    _Wish(
        "two dogs on a beach at night",
        Kind.PHOTO,
        5,
        {
            Slot.A_OBJECT: _DOG,
            Slot.A_COUNT: 2,
            Slot.PLACE: PLACE_CODES["beach"],
            Slot.TIME: Time.NIGHT,
        },
    ),
    _Wish(
        "a red car in the snow",
        Kind.PHOTO,
        5,
        {Slot.A_OBJECT: _CAR, Slot.A_COLOUR: 1 + COLOURS.index("red"), Slot.PLACE: SNOW_FIELD},
    ),
    _Wish("a balloon rising", Kind.CLIP, 4, {Slot.A_OBJECT: OBJECT_CODES["balloon"], Slot.MOTION: Motion.UP}),
    _Wish(
        "three balloons at sunset",
        Kind.PHOTO,
        4,
        {Slot.A_OBJECT: OBJECT_CODES["balloon"], Slot.A_COUNT: 3, Slot.TIME: Time.SUNSET},
    ),
    _Wish("a cat in the forest", Kind.PHOTO, 4, {Slot.A_OBJECT: _CAT, Slot.PLACE: PLACE_CODES["forest"]}),
    _Wish("a sign saying hotel", Kind.PHOTO, 4, {Slot.WORD: 1 + WORDS.index("HOTEL")}),
    _Wish(
        "snow falling in the city",
        Kind.PHOTO,
        4,
        {Slot.PLACE: PLACE_CODES["city"], Slot.WEATHER: Weather.SNOW},
    ),
    _Wish(
        "a heart left of a tree",
        Kind.PHOTO,
        4,
        {
            Slot.A_OBJECT: OBJECT_CODES["heart"],
            Slot.B_OBJECT: _TREE,
            Slot.RELATION: Relation.LEFT_OF,
        },
    ),
    _Wish(
        "a boat on the water at sunset",
        Kind.PHOTO,
        4,
        {Slot.A_OBJECT: OBJECT_CODES["boat"], Slot.PLACE: PLACE_CODES["water"], Slot.TIME: Time.SUNSET},
    ),
    _Wish(
        "a train moving left", Kind.CLIP, 3, {Slot.A_OBJECT: OBJECT_CODES["train"], Slot.MOTION: Motion.LEFT}
    ),
    _Wish(
        "a cat, then a dog",
        Kind.CLIP,
        3,
        {Slot.A_OBJECT: _CAT, Slot.B_OBJECT: _DOG, Slot.MOTION: Motion.THEN},
    ),
)


def demo_queries() -> tuple[DemoQuery, ...]:
    """Queries that a sample library of full size has three or more answers to, the most telling first."""
    queries = []
    for wish in _WISHES:
        constraints = np.full(SLOTS, ANY, np.int16)
        constraints[list(wish.values)] = list(wish.values.values())
        queries.append(DemoQuery(wish.text, constraints))
    return tuple(queries)


def plan_album(*, seed: int, photos: int, clips: int) -> tuple[Shot, ...]:
    """The files of a sample library, in the order they were taken."""
    rng = random.Random(f"album{seed}")
    outings = _plan_outings(rng)
    contents: list[tuple[Kind, tuple[Scene, ...]]] = [
        (Kind.PHOTO, (scene,)) for scene in _choose_scenes(rng, Kind.PHOTO, photos)
    ]
    for i, scene in enumerate(_choose_scenes(rng, Kind.CLIP, clips)):
        # The last ones are cut from several scenes: at the front are those that queries ask for.
        more = 1 + i % 2 if i >= clips - min(CUT_CLIPS, clips // 4) else 0
        contents.append((Kind.CLIP, (scene, *(_other_place(rng, scene, Kind.CLIP) for _ in range(more)))))

    dated = []
    for kind, scenes in contents:
        outing = rng.choice([outing for outing in outings if _fits(outing, scenes[0])])
        dated.append((_choose_moment(rng, outing, scenes[0]), outing, kind, scenes))
    dated.sort(key=lambda entry: entry[0])

    phone_photos = [
        i for i, (_, outing, kind, _) in enumerate(dated) if outing.camera.heic and kind == Kind.PHOTO
    ]
    heic = set(rng.sample(phone_photos, min(HEIC_PHOTOS, len(phone_photos))))
    numbers = {camera.model: rng.randrange(100, 2000) for camera in _CAMERAS}
    taken: set[str] = set()
    shots = []
    for i, (moment, outing, kind, scenes) in enumerate(dated):
        camera = outing.camera
        numbers[camera.model] += rng.choice([1, 1, 1, 2, 5])
        path = _name_file(outing, kind, moment, numbers[camera.model], taken)
        if i in heic:
            path = path.removesuffix(".JPG") + ".HEIC"
        upright = kind == Kind.CLIP or i in heic
        shots.append(
            Shot(
                path=path,
                kind=kind,
                scenes=scenes,
                seconds=_choose_lengths(rng, kind, len(scenes)),
                seed=f"album{seed}-{i}",
                size=CLIP_SIZE if kind == Kind.CLIP else rng.choice([512, 512, 512, 640, 768]),
                orientation=1 if upright else rng.choice([1] * 17 + [6, 8, 3]),
                taken_at=moment,
                spot=outing.spot,
                camera=camera,
            )
        )
    return tuple(shots)


def _choose_scenes(rng: random.Random, kind: Kind, count: int) -> list[Scene]:
    """`count` scenes of a kind: first those that the wishes ask for, then random ones."""
    scenes = [_grant(rng, wish) for wish in _WISHES if wish.kind == kind for _ in range(wish.copies)]
    scenes += [sample(rng, held_out=None, kind=kind) for _ in range(count - len(scenes))]
    return scenes[:count]


def _grant(rng: random.Random, wish: _Wish) -> Scene:
    """A random scene that fulfils a wish and shows as little else as it can."""
    wanted = np.full(SLOTS, ANY, np.int16)
    wanted[list(wish.values)] = list(wish.values.values())
    pair = Slot.B_OBJECT in wish.values
    while True:
        scene = sample(rng, held_out=None, kind=wish.kind)
        if pair != (scene[Slot.B_OBJECT] >= 0):
            continue
        scene[list(wish.values)] = list(wish.values.values())
        for group in (GROUP_A, GROUP_B):
            thing, count, colour, size, position = (int(v) for v in scene[group])
            if thing < 0:
                continue
            if thing not in RECOLOURABLE:
                colour = 0
            elif colour == 0:
                colour = rng.randrange(1, len(COLOURS) + 1)
            alone = count == 1 and not pair and wish.kind == Kind.PHOTO
            size = size if count <= 2 else Size.NORMAL
            scene[group] = thing, count, colour, size, (position or 5) if alone else 0
        if valid(scene) and match(wanted[None], scene[None])[0, 0]:
            return scene


def _other_place(rng: random.Random, scene: Scene, kind: Kind) -> Scene:
    """A scene at another place, so that the cut shows."""
    while True:
        other = sample(rng, held_out=None, kind=kind)
        if other[Slot.PLACE] != scene[Slot.PLACE]:
            return other


def _plan_outings(rng: random.Random) -> list[_Outing]:
    """Every title once, over the years 2019 to 2025."""
    titles = [
        (place, title, winter)
        for place, seasons in _TITLES.items()
        for winter, names in enumerate(seasons)
        for title in names
    ]
    rng.shuffle(titles)
    outings = []
    for i, (place, title, winter) in enumerate(titles):
        month = rng.choice([1, 2, 12]) if winter else rng.randrange(4, 11)
        start = datetime(2019 + i % 7, month, rng.randrange(1, 26))
        spot = rng.choice(_SPOTS[place])
        camera = rng.choice(_CAMERAS)
        outings.append(
            _Outing(title, PLACE_CODES[place], bool(winter), spot, camera, start, rng.randrange(1, 4))
        )
    return outings


def _fits(outing: _Outing, scene: Scene) -> bool:
    if outing.place != scene[Slot.PLACE]:
        return False
    if PLACES[outing.place].name in ("snow", "room"):
        return True
    return outing.winter == bool(scene[Slot.WEATHER] == Weather.SNOW)


def _choose_moment(rng: random.Random, outing: _Outing, scene: Scene) -> datetime:
    """A time of day that goes with the light in the scene; hours of the northern half of the world."""
    match Time(int(scene[Slot.TIME])):
        case Time.DAY:
            first, last = (9.5, 15.0) if outing.winter else (9.0, 17.5)
        case Time.SUNSET:
            first, last = (16.2, 17.2) if outing.winter else (19.0, 20.8)
        case Time.NIGHT:
            first, last = (18.5, 23.9) if outing.winter else (21.8, 23.9)
    seconds = int(rng.uniform(first, last) * 3600)
    return outing.start + timedelta(days=rng.randrange(outing.days), seconds=seconds)


def _choose_lengths(rng: random.Random, kind: Kind, scenes: int) -> tuple[float, ...]:
    if kind == Kind.PHOTO:
        return (0.0,)
    first, last = (8.0, 10.0) if scenes == 1 else (4.0, 5.5)
    return tuple(round(rng.uniform(first, last), 1) for _ in range(scenes))


def _name_file(outing: _Outing, kind: Kind, moment: datetime, number: int, taken: set[str]) -> str:
    """A path as the camera would have named the file, unlike all in `taken` (in any case), which it joins."""
    folder = f"Photos/{moment.year}/{outing.title}" if kind == Kind.PHOTO else f"Videos/{moment.year}"
    template = outing.camera.photo if kind == Kind.PHOTO else outing.camera.clip
    while True:
        path = f"{folder}/{template.format(number=number, moment=moment)}"
        # A HEIC beside a JPEG of the same number would be a second file of one picture.
        stem = path.rsplit(".", 1)[0].lower()
        if stem not in taken:
            taken.add(stem)
            return path
        number, moment = number + 1, moment + timedelta(seconds=1)
