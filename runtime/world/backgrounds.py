"""Draws the ten places by day, at sunset and at night.

The world is 128 units wide and drawn at any whole multiple of it: coordinates below are units, a `_Brush`
turns them into pixels so that a picture of 512 pixels, scaled down, is the picture of 128. Forty variants
of each place and time exist; the order of random draws is fixed, so a variant looks the same for ever.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw

from .vocabulary import Time

UNITS = 128
VARIANTS = 40

Colour = tuple[int, int, int]

_SKY: tuple[tuple[Colour, Colour], ...] = (
    ((110, 180, 240), (200, 228, 250)),
    ((90, 70, 140), (250, 150, 80)),
    ((8, 12, 40), (30, 40, 85)),
)
_TINT = ((1.0, 1.0, 1.0), (1.0, 0.82, 0.7), (0.38, 0.42, 0.6))


class Backgrounds:
    """Draws backgrounds and keeps those drawn last: up to `cache_pixels` pixels of 3 bytes."""

    def __init__(self, *, cache_pixels: int = 64_000_000) -> None:
        self._cache: OrderedDict[tuple[int, int, int, int], Image.Image] = OrderedDict()
        self._room = cache_pixels

    def get(self, rng: random.Random, place: int, time: int, size: int) -> Image.Image:
        """A copy of a random variant, `size` pixels a side. RGB. Takes one draw from `rng`."""
        key = (place, time, size, rng.randrange(VARIANTS))
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key].copy()
        image = draw_background(place, time, key[3], size)
        self._cache[key] = image
        self._room -= size * size
        while self._room < 0 and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._room += old.width * old.height
        return image.copy()


def draw_background(place: int, time: int, variant: int, size: int) -> Image.Image:
    """One variant of a place at a time of day, `size` pixels a side. RGB."""
    scale = max(1, ceil(size / UNITS))
    rng = random.Random(f"bg{place},{time},{variant}")
    brush = _Brush(rng, time, scale)
    brush.lights()
    horizon = rng.randint(int(UNITS * 0.38), int(UNITS * 0.52))
    _PAINTERS[place](brush, rng, horizon)
    image = brush.image
    return image if image.width == size else image.resize((size, size), Image.Resampling.LANCZOS)


def _sky(time: int, scale: int) -> Image.Image:
    """A gradient from the zenith down, without sun or stars. RGB."""
    top, bottom = (np.array(colour) for colour in _SKY[time])
    steps = np.linspace(0, 1, UNITS * scale)[:, None, None]
    sky = (top * (1 - steps) + bottom * steps) * np.ones((1, UNITS * scale, 1))
    return Image.fromarray(sky.astype(np.uint8))


class _Brush:
    """Draws in units on an image of `scale` pixels a unit. Like Pillow's, boxes include their far edge."""

    def __init__(self, rng: random.Random, time: int, scale: int) -> None:
        self.rng, self.time, self.scale = rng, time, scale
        self.image = _sky(time, scale)
        self._draw = ImageDraw.Draw(self.image)

    def shade(self, colour: Sequence[int]) -> Colour:
        """The colour, a little lighter or darker by chance, in the light of the hour."""
        shift = self.rng.randint(-12, 12)
        red, green, blue = (int(max(0, min(255, (v + shift) * f))) for v, f in zip(colour, _TINT[self.time]))
        return red, green, blue

    def box(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        s = self.scale
        return x0 * s, y0 * s, (x1 + 1) * s - 1, (y1 + 1) * s - 1

    def point(self, x: float, y: float) -> tuple[float, float]:
        return (x + 0.5) * self.scale - 0.5, (y + 0.5) * self.scale - 0.5

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self._draw.rectangle(self.box(x0, y0, x1, y1), fill=fill)

    def frame(self, x0: float, y0: float, x1: float, y1: float, outline: Colour, width: int) -> None:
        self._draw.rectangle(self.box(x0, y0, x1, y1), outline=outline, width=width * self.scale)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self._draw.ellipse(self.box(x0, y0, x1, y1), fill=fill)

    def arch(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self._draw.arc(self.box(x0, y0, x1, y1), 180, 360, fill=fill, width=self.scale)

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        self._draw.polygon([self.point(x, y) for x, y in points], fill=fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self._draw.line((*self.point(x0, y0), *self.point(x1, y1)), fill=fill, width=self.scale)

    def lights(self) -> None:
        """Moon and stars, the low sun, or sun and clouds (on seven days of ten)."""
        rng, s = self.rng, UNITS
        if self.time == Time.NIGHT:
            for _ in range(25):
                x, y = rng.randrange(s), rng.randrange(int(s * 0.5))
                self.rectangle(x, y, x, y, (255, 255, 230))
            x, y, r = rng.randrange(12, s - 12), rng.randrange(8, 26), rng.randrange(5, 9)
            self.ellipse(x - r, y - r, x + r, y + r, (250, 245, 215))
        elif self.time == Time.SUNSET:
            x, r = rng.randrange(15, s - 15), rng.randrange(9, 14)
            y = rng.randrange(int(s * 0.35), int(s * 0.5))
            self.ellipse(x - r, y - r, x + r, y + r, (255, 205, 90))
        elif rng.random() < 0.7:
            x, y, r = rng.randrange(12, s - 12), rng.randrange(8, 24), rng.randrange(5, 9)
            self.ellipse(x - r, y - r, x + r, y + r, (255, 235, 90))
            for _ in range(2):
                x, y = rng.randrange(s), rng.randrange(8, 40)
                self.ellipse(x - 14, y - 4, x + 14, y + 4, (245, 248, 252))
                self.ellipse(x - 7, y - 8, x + 8, y + 3, (245, 248, 252))


def _beach(brush: _Brush, rng: random.Random, horizon: int) -> None:
    s = UNITS
    brush.rectangle(0, horizon, s, s, brush.shade((40, 130, 190)))
    shore = horizon + rng.randint(12, 26)
    left, right = shore + rng.randint(-5, 5), shore + rng.randint(-5, 5)
    brush.polygon([(0, left), (s, right), (s, s), (0, s)], brush.shade((235, 210, 150)))


def _forest(brush: _Brush, rng: random.Random, horizon: int) -> None:
    s = UNITS
    brush.rectangle(0, horizon + 10, s, s, brush.shade((60, 110, 50)))
    for _ in range(14):
        x, y, w, h = rng.randrange(s), horizon + rng.randint(0, 30), rng.randint(8, 14), rng.randint(30, 50)
        green = rng.randint(75, 110)
        brush.polygon([(x, y - h), (x - w, y), (x + w, y)], brush.shade((25, green, 45)))
        brush.rectangle(x - 1, y, x + 1, y + 5, brush.shade((90, 60, 40)))


def _city(brush: _Brush, rng: random.Random, horizon: int) -> None:  # noqa: ARG001 - every painter has one signature
    s, x, street = UNITS, 0, int(UNITS * 0.7)
    while x < s:
        w, h = rng.randint(14, 26), rng.randint(30, 70)
        walls = rng.choice([(130, 130, 145), (160, 120, 110), (110, 120, 130)])
        brush.rectangle(x, street - h, x + w, street, brush.shade(walls))
        for window_y in range(street - h + 4, street - 4, 8):
            for window_x in range(x + 3, x + w - 3, 7):
                lit = brush.time == Time.NIGHT or rng.random() < 0.3
                fill = (255, 225, 120) if lit else brush.shade((200, 220, 235))
                brush.rectangle(window_x, window_y, window_x + 3, window_y + 4, fill)
        x += w + 1
    brush.rectangle(0, street, s, s, brush.shade((150, 150, 150)))


def _mountains(brush: _Brush, rng: random.Random, horizon: int) -> None:  # noqa: ARG001
    s, foot = UNITS, int(UNITS * 0.68)
    for _ in range(4):
        x, w, h = rng.randrange(s), rng.randint(35, 55), rng.randint(50, 75)
        brush.polygon([(x - w, foot), (x, foot - h), (x + w, foot)], brush.shade((115, 115, 125)))
        cap = foot - h * 0.7
        brush.polygon([(x - w * 0.3, cap), (x, foot - h), (x + w * 0.3, cap)], brush.shade((245, 245, 250)))
    brush.rectangle(0, foot, s, s, brush.shade((120, 150, 90)))


def _desert(brush: _Brush, rng: random.Random, horizon: int) -> None:
    s = UNITS
    brush.rectangle(0, horizon, s, s, brush.shade((225, 165, 90)))
    for _ in range(3):
        x, y = rng.randrange(s), horizon + rng.randint(0, 50)
        brush.ellipse(x - 50, y - 8, x + 50, y + 34, brush.shade((235, 180, 105)))


def _meadow(brush: _Brush, rng: random.Random, horizon: int) -> None:
    s = UNITS
    brush.rectangle(0, horizon, s, s, brush.shade((105, 180, 70)))
    x = rng.randrange(s)
    brush.ellipse(x - 70, horizon - 12, x + 70, horizon + 40, brush.shade((115, 190, 80)))
    for _ in range(25):
        x, y = rng.randrange(s), rng.randint(horizon + 5, s - 1)
        petals = rng.choice([(250, 250, 250), (250, 220, 60), (240, 120, 160)])
        brush.ellipse(x - 1, y - 1, x + 1, y + 1, brush.shade(petals))


def _water(brush: _Brush, rng: random.Random, horizon: int) -> None:
    s = UNITS
    brush.rectangle(0, horizon - 14, s, s, brush.shade((35, 110, 175)))
    for _ in range(22):
        x, y = rng.randrange(s), rng.randint(horizon - 8, s)
        brush.arch(x - 8, y - 3, x + 8, y + 5, brush.shade((150, 200, 235)))


def _snow(brush: _Brush, rng: random.Random, horizon: int) -> None:
    s = UNITS
    left, right = horizon + rng.randint(-8, 8), horizon + rng.randint(-8, 8)
    hill = [(0.0, float(left)), (s * 0.5, horizon - 6.0), (s, right), (s, s), (0, s)]
    brush.polygon(hill, brush.shade((240, 243, 250)))
    for _ in range(4):
        x, y = rng.randrange(s), horizon + rng.randint(0, 14)
        brush.polygon([(x, y - 18), (x - 6, y), (x + 6, y)], brush.shade((190, 215, 215)))


def _room(brush: _Brush, rng: random.Random, horizon: int) -> None:  # noqa: ARG001
    s, k = UNITS, brush.scale
    outside = _sky(brush.time, k).crop((0, 0, 40 * k, 34 * k))
    walls = rng.choice([(225, 205, 180), (200, 215, 205), (215, 200, 215)])
    brush.rectangle(0, 0, s, s, brush.shade(walls))
    brush.rectangle(0, int(s * 0.72), s, s, brush.shade((150, 100, 65)))
    x = rng.randint(10, 70)
    brush.image.paste(outside, (x * k, 12 * k))
    dark = brush.time == Time.NIGHT
    brush.frame(x, 12, x + 40, 46, (110, 110, 120) if dark else (250, 250, 250), 2)
    brush.line(x + 20, 12, x + 20, 46, (110, 110, 120) if dark else (240, 240, 240))
    if dark:
        brush.ellipse(x + 6, 17, x + 12, 23, (250, 245, 215))
    if brush.time == Time.SUNSET:
        brush.rectangle(x + 2, 30, x + 38, 44, (250, 150, 80))


def _road(brush: _Brush, rng: random.Random, horizon: int) -> None:  # noqa: ARG001
    s, h = UNITS, horizon
    brush.rectangle(0, h, s, s, brush.shade((110, 160, 85)))
    brush.polygon([(s * 0.42, h), (s * 0.58, h), (s, s), (0, s)], brush.shade((90, 90, 95)))
    for i in range(5):
        y, w = h + (s - h) * i / 5, 1 + i
        end = y + 2 + (s - h) / 9
        stripe = [(s / 2 - w, y + 2), (s / 2 + w, y + 2), (s / 2 + w + 1, end), (s / 2 - w - 1, end)]
        brush.polygon(stripe, brush.shade((240, 240, 240)))


_PAINTERS = (_beach, _forest, _city, _mountains, _desert, _meadow, _water, _snow, _room, _road)
