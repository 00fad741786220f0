"""Builds the sprite atlas that the sample world draws with, from two fonts.

    python -m models.tiny.recipe.atlas

Needs Noto Color Emoji (OFL 1.1) and DejaVu Sans Bold (Bitstream Vera licence), Debian packages
fonts-noto-color-emoji and fonts-dejavu-core, and a Pillow with colour bitmaps. The package carries the
result, so only a change of the tables in `runtime/world/vocabulary.py` needs another run. Output:
atlas.webp (lossless RGBA) and atlas.json under `runtime/world/assets/`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from qvl_local.runtime.world.vocabulary import OBJECTS, WORDS

ASSETS = Path(__file__).resolve().parents[3] / "runtime" / "world" / "assets"
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
WORD_FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf")
EMOJI_STRIKE = 109  # the one bitmap size in the font
WORD_UNITS = 18  # height of a sign's letters, in units of the 128-unit world
WORD_SCALE = 6  # so that a sign stays sharp in a 768-pixel picture
COLUMNS = 8


def emoji_sprite(font: ImageFont.FreeTypeFont, emoji: str) -> Image.Image:
    """One emoji, cropped to what is drawn. RGBA."""
    image = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((10, 10), emoji, font=font, embedded_color=True)
    box = image.getbbox()
    if box is None:
        raise SystemExit(f"{EMOJI_FONT} draws nothing for {emoji!r}. Install fonts-noto-color-emoji.")
    return image.crop(box)


def word_mask(word: str) -> tuple[Image.Image, tuple[int, int]]:
    """A word as white letters whose alpha is the ink, and its width and height in world units."""
    left, top, right, bottom = ImageFont.truetype(WORD_FONT, WORD_UNITS).getbbox(word)
    large = ImageFont.truetype(WORD_FONT, WORD_UNITS * WORD_SCALE)
    ink = Image.new("L", (1024, 256))
    ImageDraw.Draw(ink).text((40, 40), word, font=large, fill=255)
    box = ink.getbbox()
    if box is None:
        raise SystemExit(f"{WORD_FONT} draws nothing for {word!r}. Install fonts-dejavu-core.")
    ink = ink.crop(box)
    image = Image.new("RGBA", ink.size, (255, 255, 255, 0))
    image.putalpha(ink)
    return image, (int(right - left), int(bottom - top))


def pack(tiles: list[Image.Image]) -> tuple[Image.Image, list[tuple[int, int, int, int]]]:
    """Lays tiles out in rows of COLUMNS; returns the sheet and one box (left, top, right, bottom) a tile."""
    boxes: list[tuple[int, int, int, int]] = []
    width = y = 0
    for start in range(0, len(tiles), COLUMNS):
        row, x = tiles[start : start + COLUMNS], 0
        for tile in row:
            boxes.append((x, y, x + tile.width, y + tile.height))
            x += tile.width
        width, y = max(width, x), y + max(tile.height for tile in row)
    sheet = Image.new("RGBA", (width, y), (0, 0, 0, 0))
    for tile, box in zip(tiles, boxes, strict=True):
        sheet.paste(tile, box[:2])
    return sheet, boxes


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the sprite atlas of the sample world.")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for atlas.webp and atlas.json")
    folder: Path = parser.parse_args().out

    font = ImageFont.truetype(EMOJI_FONT, EMOJI_STRIKE)
    words = [word_mask(word) for word in WORDS]
    sheet, boxes = pack(
        [emoji_sprite(font, thing.emoji) for thing in OBJECTS] + [image for image, _ in words]
    )
    index = {
        "objects": {thing.name: box for thing, box in zip(OBJECTS, boxes, strict=False)},
        "words": {
            word: {"box": box, "units": units}
            for word, (_, units), box in zip(WORDS, words, boxes[len(OBJECTS) :], strict=True)
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "atlas.webp", lossless=True, quality=100, method=6, exact=False)
    (folder / "atlas.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    size = (folder / "atlas.webp").stat().st_size
    print(f"{folder / 'atlas.webp'}: {sheet.width} x {sheet.height} pixels, {size:,} bytes")


if __name__ == "__main__":
    main()
