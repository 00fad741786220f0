"""Pictures of items at the size that a screen asks for, made on request and kept.

Thumbnails of 320 pixels are made while indexing; screens with two pixels to the point want 640. Keeping these
for every item would triple the cache for pictures that mostly nobody looks at, so that of JPEG files they are
made when they are first asked for, in less than 0.1 s. Of formats that take longer they are made while
indexing. A file is opened here only as it was when a decoding process read it
well; one that changed, is away, or is very large is shown by its thumbnail. Moments of videos come from the
frames that were kept for reranking.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import LibraryError, MediaError
from ..model.image import to_rgb
from .documents import LARGEST_PIXELS, is_as_indexed
from .photo import damage_named, open_photo, read_format, shrink_early
from .previews import Previews
from .records import MediaItem
from .thumbnails import DAMAGED, THUMBNAIL_SIDE, make_thumbnail, open_thumbnail, split_strip

Side = Literal[320, 640]


def rendition(
    item: MediaItem,
    previews: Previews,
    *,
    side: Side,
    t0_ms: int | None = None,
    cache: Previews | None = None,
) -> bytes | None:
    """A JPEG of an item whose longer side has up to `side` pixels, None when there is nothing to see of it.

    Args:
        item: a photo or a video.
        previews: where thumbnails and the frames of scenes are.
        side: never enlarged; a smaller picture comes back when no larger one can be had.
        t0_ms: a time in a video, in milliseconds: the kept frame nearest to it. None is the cover.
        cache: where what was made is kept.
    """
    moment = t0_ms if item.kind == "video" else None
    thumbnail = previews.thumbnail(item.content_hash)
    if thumbnail and moment is None and (fitting := _fitting(thumbnail, side)) is not None:
        return fitting
    if (
        thumbnail
        and moment is None
        and (side == THUMBNAIL_SIDE or max(item.width, item.height) <= THUMBNAIL_SIDE)
    ):
        return thumbnail
    kept = previews.rendition(item.content_hash, moment, side)
    if kept:
        return kept
    made = _of_photo(item, side) if item.kind == "photo" else _of_video(item, previews, side, moment)
    if made is not None and cache is not None:
        with suppress(LibraryError):  # a cache that cannot be written is no reason to show nothing
            cache.keep_rendition(item.content_hash, moment, side, made)
    return made or thumbnail or None


def _fitting(thumbnail: bytes, side: int) -> bytes | None:
    """The picture that was made while indexing at a size below its own; None where it is not larger."""
    try:
        with open_thumbnail(thumbnail) as image:
            if max(image.size) <= THUMBNAIL_SIDE:
                return None
            if max(image.size) <= side:
                return thumbnail
            return make_thumbnail(image.convert("RGB"), side=side)
    except DAMAGED:
        return None


def _of_photo(item: MediaItem, side: int) -> bytes | None:
    if item.width * item.height > LARGEST_PIXELS or not is_as_indexed(item):
        return None
    try:
        with Path(item.path).open("rb") as file:
            form = read_format(file, item.path)
            with damage_named(item.path), open_photo(file, form) as image:
                shrink_early(image, side)
                return make_thumbnail(Image.fromarray(to_rgb(image)), side=side)
    except (MediaError, OSError):
        return None


def _of_video(item: MediaItem, previews: Previews, side: int, t0_ms: int | None) -> bytes | None:
    strip = previews.strip_around(item.content_hash, t0_ms or 0)
    if strip is None:
        return None
    try:
        frames = split_strip(strip.jpeg, len(strip.times_s))
    except DAMAGED:
        return None
    if t0_ms is None:
        if max(frames.shape[1:3]) <= THUMBNAIL_SIDE:
            return previews.thumbnail(item.content_hash)
        # As the cover was chosen of more frames: not the black one that films begin with.
        chosen = max(range(len(frames)), key=lambda at: float(frames[at, ::4, ::4].std()))
    else:
        chosen = int(np.argmin(np.abs(np.array(strip.times_s) * 1000 + strip.t0_ms - t0_ms)))
    return make_thumbnail(Image.fromarray(frames[chosen]), side=side)
