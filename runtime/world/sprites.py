"""Pictures of things and words, cut from the atlas, recoloured, scaled, turned and lit.

The atlas travels with the package (see assets/LICENSE-*), so no font is needed. A `Sprites` keeps what it
made, within a limit of pixels; nothing here knows what a scene is.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Hashable
from importlib import resources

import numpy as np
from PIL import Image

from .vocabulary import BLACK, COLOURS, OBJECTS, WORDS, Time

# Hues of COLOURS[0..6] on Pillow's 0..255 circle.
_HUES = (0, 18, 40, 90, 155, 195, 228)
_PINK = 1 + COLOURS.index("pink")
# Pixels less saturated than this are outlines, tyres and window panes: they keep their colour.
_COLOURFUL = 60
# Evening light is warm, night light dim and cold: factors of red, green, blue.
_LIGHT = {Time.SUNSET: (1.0, 0.92, 0.84), Time.NIGHT: (0.86, 0.87, 0.95)}


class Sprites:
    """The atlas, opened. Images it returns are shared: do not draw on them.

    cache_pixels: how many pixels of finished sprites to keep (4 bytes each).
    """

    def __init__(self, *, cache_pixels: int = 48_000_000) -> None:
        assets = resources.files(__package__) / "assets"
        index = json.loads((assets / "atlas.json").read_text(encoding="utf-8"))
        with (assets / "atlas.webp").open("rb") as file:
            sheet = Image.open(file).convert("RGBA")
        self._things = [sheet.crop(index["objects"][thing.name]) for thing in OBJECTS]
        self._words = [sheet.crop(index["words"][word]["box"]).getchannel("A") for word in WORDS]
        self._word_units = [tuple(index["words"][word]["units"]) for word in WORDS]
        self._coloured: dict[tuple[int, int], Image.Image] = {}
        self._cache: OrderedDict[Hashable, Image.Image] = OrderedDict()
        self._room = cache_pixels

    def thing(
        self, code: int, colour: int, units: int, *, scale: float, light: int, flipped: bool, degrees: int
    ) -> Image.Image:
        """A thing whose longer side is `units * scale` pixels before it is turned. RGBA.

        colour: 0 as drawn, or 1 + index into `COLOURS`. light: a `Time`. degrees: turned counter-clockwise,
        which makes the picture larger.
        """
        key = (code, colour, units, scale, light, flipped, degrees)
        if (found := self._recall(key)) is not None:
            return found
        base = self._base(code, colour)
        # Sides are whole units, so that a sprite covers the same part of the world at every scale.
        fit = units / max(base.size)
        sides = [max(1, int(side * fit)) for side in base.size]
        image = base.resize((round(sides[0] * scale), round(sides[1] * scale)), Image.Resampling.LANCZOS)
        if flipped:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if degrees:
            image = image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
        if light in _LIGHT:
            image = image.point([int(v * f) for f in (*_LIGHT[Time(light)], 1.0) for v in range(256)])
        return self._remember(key, image)

    def word_units(self, word: int) -> tuple[int, int]:
        """Width and height in world units of word code `word` (1 + index into `WORDS`)."""
        width, height = self._word_units[word - 1]
        return width, height

    def word(self, word: int, *, scale: float) -> Image.Image:
        """The ink of a word as a mask. L."""
        key = (word, scale)
        if (found := self._recall(key)) is not None:
            return found
        width, height = self.word_units(word)
        ink = self._words[word - 1]
        return self._remember(
            key, ink.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
        )

    def _recall(self, key: Hashable) -> Image.Image | None:
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        return None

    def _remember(self, key: Hashable, image: Image.Image) -> Image.Image:
        self._cache[key] = image
        self._room -= image.width * image.height
        while self._room < 0 and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._room += old.width * old.height
        return image

    def _base(self, code: int, colour: int) -> Image.Image:
        if not colour:
            return self._things[code]
        if (code, colour) not in self._coloured:
            self._coloured[code, colour] = _recolour(self._things[code], colour, OBJECTS[code].name == "kite")
        return self._coloured[code, colour]


def _recolour(image: Image.Image, colour: int, everything: bool) -> Image.Image:
    """Turns the hue of an RGBA picture's colourful pixels (or of all that is drawn)."""
    rgba = np.array(image)
    hsv = np.array(image.convert("RGB").convert("HSV")).astype(int)
    hue, saturation, value = (hsv[..., i] for i in range(3))
    where = rgba[..., 3] > 0 if everything else saturation > _COLOURFUL
    if colour < BLACK:
        hue = np.where(where, _HUES[colour - 1], hue)
        if colour == _PINK:
            saturation = np.where(where, np.minimum(saturation, 110), saturation)
            value = np.where(where, np.maximum(value, 235), value)
        else:
            saturation = np.where(where, np.maximum(saturation, 190), saturation)
            value = np.where(where, np.clip(value, 120, 240), value)
    else:
        grey = value * 0.22 if colour == BLACK else 215 + value * 0.15
        saturation = np.where(where, 0, saturation)
        value = np.where(where, grey, value)
    hsv = np.clip(np.stack([hue, saturation, value], -1), 0, 255).astype(np.uint8)
    rgba[..., :3] = np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
    return Image.fromarray(rgba)
