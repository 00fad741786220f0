"""Draws docs/images/search.png: real searches in the sample library, made by `qvl-local demo` first.

qvl-local demo --library /tmp/demo && python docs/images/search.py /tmp/demo
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from qvl_local.runtime import Library
from qvl_local.runtime.library.records import Hit

QUERIES = (
    "two dogs on a beach at night",
    "red car in the snow",
    "a sign that says hotel",
    "a balloon rising",
)
SHOWN, SIDE, GAP, HEADER, FOOTER = 5, 220, 14, 44, 24
INK, PALE, PAPER = "#1d2530", "#6b7685", "#ffffff"


def draw(library: Library) -> Image.Image:
    """One row of pictures for each query."""
    row = HEADER + SIDE + FOOTER + GAP
    sheet = Image.new("RGB", (SHOWN * (SIDE + GAP) + GAP, len(QUERIES) * row + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(20), ImageFont.load_default(13)
    for number, query in enumerate(QUERIES):
        top = GAP + number * row
        pen.text((GAP, top + 8), f'$ qvl-local search "{query}"', fill=INK, font=large)
        for place, hit in enumerate(library.search(query, limit=SHOWN).hits):
            left = GAP + place * (SIDE + GAP)
            sheet.paste(picture(library, hit), (left, top + HEADER))
            pen.text((left, top + HEADER + SIDE + 4), caption(hit), fill=PALE, font=small)
    return sheet


def picture(library: Library, hit: Hit) -> Image.Image:
    """The thumbnail of a hit, cut square."""
    data = library.thumbnail(hit.media_id)
    if data is None:
        raise SystemExit(f"{hit.path}: has no thumbnail; run the demo again.")
    image = Image.open(BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def caption(hit: Hit) -> str:
    """Score and, for a video, the moment."""
    moment = "" if hit.start_s is None else f"  video, {hit.start_s:.0f} to {hit.end_s or 0:.0f} s"
    return f"{hit.score:.2f}{moment}"


def main() -> None:
    """Write the picture beside this file."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with Library.open(sys.argv[1], create=False) as library:
        draw(library).save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
