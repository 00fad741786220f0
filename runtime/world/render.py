"""Renders scenes as pictures and clips, at any size.

Photographs are composed in a world 128 units wide, clips in one of 96 (their things are larger in the
frame, their backgrounds the same). A picture of 128 pixels has one pixel a unit; a larger one shows the
same picture with finer edges, so a model may train on either, scaled down. The same scene, seed and size
always give the same pixels.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .backgrounds import Backgrounds
from .scenes import Scene
from .sprites import Sprites
from .vocabulary import FLYING, OBJECT_CODES, Motion, Position, Relation, Size, Slot, Weather

IMAGE_UNITS = 128
CLIP_UNITS = 96

Seed = int | float | str
_Area = tuple[float, float, float, float]

_CAR = OBJECT_CODES["car"]
_SIGN_TOP, _SIGN_BOTTOM, _SIGN_HEIGHT = 2, 104, 22
_SIGN_COLOURS = (
    ((20, 20, 20), (255, 255, 255)),
    ((255, 255, 255), (190, 20, 20)),
    ((20, 20, 20), (250, 215, 60)),
    ((255, 255, 255), (20, 70, 160)),
)
# Centres of single things by `Position`, in units of the photograph's world.
_CENTRES = {1: (25, 84), 2: (103, 84), 3: (64, 22), 4: (64, 106), 5: (64, 66)}


class SpriteBox(NamedTuple):
    """Where one thing or sign was drawn, in world units (not pixels).

    object: an object code, or minus the word code for a sign. colour: colour code. size: a `Size` (0 for a
    sign); in clips the scene's `Motion` instead (0 for THEN).
    """

    object: int
    colour: int
    x: int
    y: int
    width: int
    height: int
    size: int


@dataclass(slots=True)
class Stage:
    """A picture in the making: a background on which things, signs and weather are put, in units.

    image: RGB, any size, drawn on in place. units: how many world units wide it is. time: a `Time`, the
    light. boxes: what has been put so far. Every method draws from `rng`.
    """

    sprites: Sprites
    image: Image.Image
    rng: random.Random
    time: int
    units: int
    boxes: list[SpriteBox] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """Pixels a unit."""
        return self.image.width / self.units

    def crop(self, x: int, y: int, units: int) -> Stage:
        """A stage of its own with a square part of this background."""
        s = self.scale
        box = (round(x * s), round(y * s), round((x + units) * s), round((y + units) * s))
        return Stage(self.sprites, self.image.crop(box), self.rng, self.time, units)

    def put(self, thing: int, colour: int, side: int, x: float, y: float, *, size: int = Size.NORMAL) -> None:
        """Draws one thing, `side` units long, near (x, y) but inside, turned and flipped by chance."""
        flipped = self.rng.random() < 0.5 and thing != _CAR
        degrees = self.rng.choice([-8, 0, 0, 8])
        width, height = self._sprite(thing, colour, side, 1.0, flipped, degrees).size
        left = int(min(max(x - width / 2, 0), max(0, self.units - width))) // 4 * 4
        top = int(min(max(y - height / 2, 0), max(0, self.units - height))) // 4 * 4
        self._paste(self._sprite(thing, colour, side, self.scale, flipped, degrees), left, top)
        self.boxes.append(SpriteBox(thing, colour, left, top, width, height, size))

    def put_exactly(
        self, thing: int, colour: int, side: float, x: float, y: float, *, flipped: bool, step: int, size: int
    ) -> None:
        """Draws one upright thing centred at (x, y), which may lie partly outside.

        step: corners are moved to multiples of so many units (0: not at all).
        """
        whole = int(side)
        width, height = self._sprite(thing, colour, whole, 1.0, flipped, 0).size
        sprite = self._sprite(thing, colour, whole, self.scale * side / whole, flipped, 0)
        if step:
            left, top = float(int(x - width / 2) // step * step), float(int(y - height / 2) // step * step)
        else:
            left, top = x - sprite.width / self.scale / 2, y - sprite.height / self.scale / 2
        self._paste(sprite, left, top)
        self.boxes.append(SpriteBox(thing, colour, int(left), int(top), width, height, size))

    def _sprite(
        self, thing: int, colour: int, side: int, scale: float, flipped: bool, degrees: int
    ) -> Image.Image:
        return self.sprites.thing(
            thing, colour, side, scale=scale, light=self.time, flipped=flipped, degrees=degrees
        )

    def _paste(self, sprite: Image.Image, left: float, top: float) -> None:
        self.image.paste(sprite, (round(left * self.scale), round(top * self.scale)), sprite)

    def group(
        self, thing: int, count: int, colour: int, side: int, area: _Area, *, size: int = Size.NORMAL
    ) -> None:
        """Draws `count` things that do not overlap (smaller where they would) inside area x0, y0, x1, y1."""
        x0, y0, x1, y1 = area
        margin = side / 2
        points: list[tuple[float, float]] = []
        for attempt in range(400):
            apart = side * (1.0 if attempt < 150 else 0.85) + 2
            x = self.rng.uniform(min(x0 + margin, (x0 + x1) / 2), max(x1 - margin, (x0 + x1) / 2))
            y = self.rng.uniform(min(y0 + margin, (y0 + y1) / 2), max(y1 - margin, (y0 + y1) / 2))
            if all(max(abs(x - a), abs(y - b)) > apart for a, b in points):
                points.append((x, y))
            if len(points) == count:
                break
        else:
            self.group(thing, count, colour, int(side * 0.85), area, size=size)
            return
        for x, y in sorted(points, key=lambda point: point[1]):  # the nearer ones, lower down, in front
            self.put(thing, colour, side, x, y, size=size)

    def sign(self, word: int, y: int) -> None:
        """Draws a sign with word code `word`, its top at `y`."""
        s = self.scale
        text_width, text_height = self.sprites.word_units(word)
        width = text_width + 8
        x = self.rng.randrange(0, self.units - width, 8)
        ink, board = self.rng.choice(_SIGN_COLOURS)
        draw = ImageDraw.Draw(self.image)
        edges = (
            round(x * s),
            round(y * s),
            round((x + width + 1) * s) - 1,
            round((y + _SIGN_HEIGHT + 1) * s) - 1,
        )
        draw.rectangle(edges, fill=board, outline=(30, 30, 30), width=max(1, round(s)))
        mask = self.sprites.word(word, scale=s)
        top = y + (_SIGN_HEIGHT + 1 - text_height) / 2
        self.image.paste(ink, (round((x + 4.5) * s), round(top * s)), mask)
        self.boxes.append(SpriteBox(-word, 0, x, y, width, _SIGN_HEIGHT, 0))

    def weather(self, weather: int) -> None:
        """Lets it rain or snow over everything drawn so far."""
        s, units, rng = self.scale, self.units, self.rng
        draw = ImageDraw.Draw(self.image, "RGBA")
        if weather == Weather.RAIN:
            half = s / 2
            for _ in range(70 * units // IMAGE_UNITS):
                x, y = rng.randrange(-8, units), rng.randrange(-8, units)
                line = (x * s + half, y * s + half, (x + 3) * s + half, (y + 9) * s + half)
                draw.line(line, fill=(190, 210, 240, 190), width=max(1, round(s)))
        if weather == Weather.SNOW:
            for _ in range(75 * units // IMAGE_UNITS):
                x, y, r = rng.randrange(units), rng.randrange(units), rng.choice([0.7, 1, 1.5])
                flake = ((x - r) * s, (y - r) * s, (x + r + 1) * s - 1, (y + r + 1) * s - 1)
                draw.ellipse(flake, fill=(255, 255, 255, 230))

    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [height, width, 3], a copy."""
        return np.array(self.image)


class Renderer:
    """Draws scenes. Keeps the sprites and backgrounds it drew: open one for all. It is not thread-safe."""

    def __init__(self) -> None:
        self._sprites = Sprites()
        self._backgrounds = Backgrounds()

    def stage(
        self, rng: random.Random, place: int, time: int, size: int = IMAGE_UNITS, *, units: int = IMAGE_UNITS
    ) -> Stage:
        """An empty stage, `size` pixels and `units` units a side, in a place at a `Time`."""
        return Stage(self._sprites, self._backgrounds.get(rng, place, time, size), rng, time, units)

    def image(self, scene: Scene, seed: Seed, size: int = IMAGE_UNITS) -> NDArray[np.uint8]:
        """A photograph of the scene: uint8 [size, size, 3]."""
        return self.image_with_boxes(scene, seed, size)[0]

    def image_with_boxes(
        self, scene: Scene, seed: Seed, size: int = IMAGE_UNITS
    ) -> tuple[NDArray[np.uint8], list[SpriteBox]]:
        """A photograph, uint8 [size, size, 3], and where each thing and sign is."""
        place, time, weather, word = (int(scene[i]) for i in (Slot.PLACE, Slot.TIME, Slot.WEATHER, Slot.WORD))
        stage = self.stage(random.Random(seed), place, time, size)
        sign_below = _sign_below(scene)
        # The sign has a band of its own, above the things or below them.
        top = 26 if word and not sign_below else 3
        bottom = 101 if word and sign_below else 126
        if scene[Slot.B_OBJECT] >= 0:
            _put_two_groups(stage, scene, top, bottom)
        elif scene[Slot.A_POSITION]:
            _put_at_position(stage, scene, top, bottom)
        else:
            _put_one_group(stage, scene, top, bottom)
        if word:
            stage.sign(word, _SIGN_BOTTOM if sign_below else _SIGN_TOP)
        if weather:
            stage.weather(weather)
        return stage.pixels(), stage.boxes

    def clip(
        self, scene: Scene, seed: Seed, size: int = CLIP_UNITS, *, frames: int = 8, smooth: bool = False
    ) -> NDArray[np.uint8]:
        """A clip of the scene: uint8 [frames, size, size, 3].

        smooth: move by fractions of a unit, for a video that people watch; otherwise things sit on even
        units.
        """
        return self.clip_with_boxes(scene, seed, size, frames=frames, smooth=smooth)[0]

    def clip_with_boxes(
        self, scene: Scene, seed: Seed, size: int = CLIP_UNITS, *, frames: int = 8, smooth: bool = False
    ) -> tuple[NDArray[np.uint8], list[SpriteBox]]:
        """A clip, uint8 [frames, size, size, 3], and one box a frame."""
        rng = random.Random(seed)
        stage = self.stage(rng, int(scene[Slot.PLACE]), int(scene[Slot.TIME]), size, units=CLIP_UNITS)
        background = stage.image
        track = rng.uniform(0.3, 0.7) * CLIP_UNITS
        side = rng.choice([30, 34])
        flipped = rng.random() < 0.5
        pictures = []
        for i in range(frames):
            stage.image = background.copy()
            self._put_moving(stage, scene, i / max(1, frames - 1), track, side, flipped, smooth)
            if scene[Slot.WEATHER]:
                stage.weather(int(scene[Slot.WEATHER]))
            pictures.append(stage.pixels())
        return np.stack(pictures), stage.boxes

    @staticmethod
    def _put_moving(
        stage: Stage, scene: Scene, progress: float, track: float, side: int, flipped: bool, smooth: bool
    ) -> None:
        """Draws the thing of a clip where it is at `progress` 0..1, on a line `track` units from the edge."""
        motion = int(scene[Slot.MOTION])
        thing, colour = int(scene[Slot.A_OBJECT]), int(scene[Slot.A_COLOUR])
        x, y = CLIP_UNITS / 2, CLIP_UNITS / 2 + 8
        along = CLIP_UNITS * (0.15 + 0.7 * progress)
        length: float = side
        match motion:
            case Motion.LEFT:
                x, y = CLIP_UNITS - along, track + 8
            case Motion.RIGHT:
                x, y = along, track + 8
            case Motion.UP:
                x, y = track, CLIP_UNITS - along
            case Motion.DOWN:
                x, y = track, along
            case Motion.NEARER:
                length = 14 + 46 * progress
            case Motion.FARTHER:
                length = 60 - 46 * progress
            case Motion.THEN if progress > 0.5:
                thing, colour = int(scene[Slot.B_OBJECT]), int(scene[Slot.B_COLOUR])
            case _:
                pass
        stage.put_exactly(
            thing,
            colour,
            length if smooth else int(length) // 2 * 2,
            x,
            y,
            flipped=flipped,
            step=0 if smooth else 2,
            size=motion if motion != Motion.THEN else 0,
        )


def _sign_below(scene: Scene) -> bool:
    """A sign stands above the things, but below a single flying group or a thing at the top."""
    flying = int(scene[Slot.A_OBJECT]) in FLYING and scene[Slot.B_OBJECT] < 0 and scene[Slot.A_POSITION] == 0
    return bool(scene[Slot.A_POSITION] == Position.TOP or flying)


def _heights(thing: int, top: int, bottom: int) -> tuple[int, int]:
    """The band of the picture where a thing belongs: the sky for what flies, else the ground."""
    return (top, max(top + 50, 76)) if thing in FLYING else (bottom - 76, bottom)


def _choose_each(rng: random.Random, options: tuple[tuple[int, ...], ...]) -> list[int]:
    """One choice of each row: every scene takes the same number of draws, whichever row it needs."""
    return [rng.choice(row) for row in options]


def _put_two_groups(stage: Stage, scene: Scene, top: int, bottom: int) -> None:
    a, a_count, a_colour = (int(scene[i]) for i in (Slot.A_OBJECT, Slot.A_COUNT, Slot.A_COLOUR))
    b, b_count, b_colour = (int(scene[i]) for i in (Slot.B_OBJECT, Slot.B_COUNT, Slot.B_COLOUR))
    side = _choose_each(stage.rng, ((36, 40, 44), (30, 33), (26, 28)))[max(a_count, b_count) - 1]
    relation = int(scene[Slot.RELATION])
    area_a: _Area
    area_b: _Area
    if relation <= Relation.RIGHT_OF:
        left, right = (3, 62), (66, 125)
        columns = (left, right) if relation == Relation.LEFT_OF else (right, left)
        a_top, a_bottom = _heights(a, top, bottom)
        b_top, b_bottom = _heights(b, top, bottom)
        area_a = (columns[0][0], a_top, columns[0][1], a_bottom)
        area_b = (columns[1][0], b_top, columns[1][1], b_bottom)
    else:
        middle = (top + bottom) // 2
        upper, lower = (4, top, 124, middle - 3), (4, middle + 3, 124, bottom)
        area_a, area_b = (upper, lower) if relation == Relation.ABOVE else (lower, upper)
    stage.group(a, a_count, a_colour, side, area_a)
    stage.group(b, b_count, b_colour, side, area_b)


def _put_at_position(stage: Stage, scene: Scene, top: int, bottom: int) -> None:
    rng, size = stage.rng, int(scene[Slot.A_SIZE])
    side = _choose_each(rng, ((20, 22), (38, 40, 42), (64, 68)))[size - 1]
    x, y = _CENTRES[int(scene[Slot.A_POSITION])]
    x += rng.randint(-6, 6)
    y += rng.randint(-6, 6)
    inside = min(max(y, top + side / 2), bottom - side / 2)
    stage.put(int(scene[Slot.A_OBJECT]), int(scene[Slot.A_COLOUR]), side, x, inside, size=size)


def _put_one_group(stage: Stage, scene: Scene, top: int, bottom: int) -> None:
    thing, count, colour, size = (
        int(scene[i]) for i in (Slot.A_OBJECT, Slot.A_COUNT, Slot.A_COLOUR, Slot.A_SIZE)
    )
    side = (22, stage.rng.choice([34, 38]), 58)[size - 1]
    if count >= 4:
        side = stage.rng.choice([28, 32])
    upper, lower = _heights(thing, top, bottom)
    stage.group(thing, count, colour, side, (4, upper, 124, lower), size=size)
