"""What the reranker gets to see of a hit: the photo or its thumbnail, the stored frames of a scene.

Photos are read from their files in threads, as small as the JPEG decoder can make them; no process is
started for a search. A file that is gone, or was changed since it was indexed, is shown by its preview.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import MediaError
from ..model.image import to_rgb
from ..model.pixels import PixelBudget, fit_image_size
from .photo import damage_named, open_photo, read_format, shrink_early
from .previews import Previews
from .records import Candidate, MediaItem
from .scanner import stamp
from .thumbnails import DAMAGED, THUMBNAIL_SIDE, open_thumbnail, split_strip

if TYPE_CHECKING:
    from ..model.reranker import Reranker

_THREADS = 8
# Larger photos take too long in a search, and Pillow warns of them: their thumbnail must do.
LARGEST_PIXELS = 80_000_000


def logits(
    reranker: Reranker, query: dict[str, Any], candidates: Sequence[Candidate], *, previews: Previews
) -> NDArray[np.float32]:
    """The reranker's log-odds of "yes" for each candidate, float32 [n]; NaN where nothing can be shown."""
    judged = np.full(len(candidates), np.nan, np.float32)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="reading hits") as pool:
        documents = list(pool.map(lambda one: document(one, previews, reranker.budget), candidates))
    seen = [index for index, shown in enumerate(documents) if shown is not None]
    if seen:
        judged[seen] = reranker.logits(query, [shown for shown in documents if shown is not None])
    return judged


def document(candidate: Candidate, previews: Previews, budget: PixelBudget) -> dict[str, Any] | None:
    """A candidate as an input of the reranker, None when there is nothing to see of it."""
    item = candidate.item
    if item.kind == "video":
        return _scene(candidate, previews, budget)
    thumbnail = previews.thumbnail(item.content_hash)
    is_enough = max(fit_image_size(max(item.height, 1), max(item.width, 1), budget)) <= THUMBNAIL_SIDE
    pixels = _preview(thumbnail, budget) if is_enough else _photo(item, budget)
    if pixels is None:
        pixels = _photo(item, budget) if is_enough else _preview(thumbnail, budget)
    return None if pixels is None else {"image": pixels}


def _preview(thumbnail: bytes | None, budget: PixelBudget) -> NDArray[np.uint8] | None:
    if thumbnail is None:
        return None
    try:
        with open_thumbnail(thumbnail) as image:
            return _fitted(image.convert("RGB"), budget)
    except DAMAGED:
        return None


def _photo(item: MediaItem, budget: PixelBudget) -> NDArray[np.uint8] | None:
    if item.width * item.height > LARGEST_PIXELS or not is_as_indexed(item):
        return None
    try:
        with Path(item.path).open("rb") as file:
            form = read_format(file, item.path)
            with damage_named(item.path), open_photo(file, form) as image:
                shrink_early(image, max(fit_image_size(image.height, image.width, budget)))
                return _fitted(Image.fromarray(to_rgb(image)), budget)
    except (MediaError, OSError):
        return None


def _fitted(upright: Image.Image, budget: PixelBudget) -> NDArray[np.uint8]:
    """An RGB image at its smart-resize size, uint8 [h, w, 3].

    By Pillow's own resize: a grey level off the model's, many times as fast, and threads can share it.
    """
    height, width = fit_image_size(upright.height, upright.width, budget)
    return np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC))


def _scene(candidate: Candidate, previews: Previews, budget: PixelBudget) -> dict[str, Any] | None:
    from ..model.video import VideoFrames, read_video

    item, segment = candidate.item, candidate.segment
    strip = previews.strip(item.content_hash, segment.t0_ms)
    if strip is not None:
        with suppress(*DAMAGED):
            frames = split_strip(strip.jpeg, len(strip.times_s))
            return {"video": VideoFrames(frames=frames, times_s=np.array(strip.times_s))}
    if not is_as_indexed(item):
        return None
    try:
        # Only where the previews were deleted, or are damaged.
        start_s, end_s = segment.t0_ms / 1000, segment.t1_ms / 1000
        return {"video": read_video(item.path, budget=budget, start_s=start_s, end_s=end_s)}
    except MediaError:
        return None


def is_as_indexed(item: MediaItem) -> bool:
    """Whether the file is the one that was read while indexing, by its size and time."""
    try:
        status = Path(item.path).stat()
    except OSError:
        return False
    return stamp(status) == (item.size, item.mtime_ns)
