"""Pixels: how large an image or a clip may be, and the patches that the vision tower reads.

Sizes follow the "smart resize" of the Qwen3-VL processors: both sides become multiples of 32 (patch 16,
merge 2), the aspect ratio stays as close as possible, and the number of pixels stays within the budget. Pure
arithmetic and numpy: opening files is the business of `image.py` and `video.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, InputError

# Limits of the official Qwen3-VL-Embedding and -Reranker code, in visual tokens of 32x32 pixels.
OFFICIAL_MIN_TOKENS = 4
OFFICIAL_MAX_TOKENS = 1800
OFFICIAL_VIDEO_TOKENS = 7680
OFFICIAL_FPS = 1.0
OFFICIAL_MAX_FRAMES = 64

# Retrieval defaults. The technical report's figure 7 gives 384 tokens an image most of the gain of 1024 at a
# third of the cost, and 16 frames a clip; a clip may cost as much as four photos.
RETRIEVAL_IMAGE_TOKENS = 384
RETRIEVAL_VIDEO_TOKENS = 1536
RETRIEVAL_MAX_FRAMES = 16

# Slimmer than this the processors refuse an image; here its long side is squashed to this ratio instead.
_MAX_RATIO = 200
# Rounding to multiples of 32 can at most double the ratio of what `_MAX_RATIO` let through.
_MAX_FITTED_RATIO = 2 * _MAX_RATIO


@dataclass(frozen=True, slots=True)
class PixelBudget:
    """How pixels become visual tokens. Part of a vector space's identity: see `describe`.

    Image bounds are pixels of one image; video bounds are pixels of all sampled frames together, two frames
    making one layer of tokens. `fps` is the sampling rate, bounded by `min_frames` and `max_frames`.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    image_min_pixels: int
    image_max_pixels: int
    video_min_pixels: int
    video_max_pixels: int
    fps: float
    min_frames: int
    max_frames: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 0 < self.image_min_pixels <= self.image_max_pixels:
            raise InputError("The pixel budget of images needs 0 < minimum <= maximum.")
        if not 0 < self.video_min_pixels <= self.video_max_pixels:
            raise InputError("The pixel budget of videos needs 0 < minimum <= maximum.")
        if not (self.fps > 0 and 0 < self.min_frames <= self.max_frames):
            raise InputError("Video sampling needs fps > 0 and 0 < min_frames <= max_frames.")

    @property
    def factor(self) -> int:
        """Side in pixels of one visual token; every fitted side is a multiple of it."""
        return self.patch_size * self.merge_size

    def describe(self) -> dict[str, Any]:
        """The budget as JSON-able values, stable across runs: equal budgets, equal descriptions."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


def load_budget(folder: Path) -> PixelBudget:
    """Read a checkpoint's pixel settings, capped by the official limits and the retrieval defaults.

    Reads `preprocessor_config.json` and `video_preprocessor_config.json`, or one `processor_config.json` that
    holds both.

    Raises:
        CheckpointError: a file is missing or does not hold what it should.
    """
    combined = _read_json(folder / "processor_config.json") or {}
    image = _read_json(folder / "preprocessor_config.json") or combined.get("image_processor")
    video = _read_json(folder / "video_preprocessor_config.json") or combined.get("video_processor")
    if image is None:
        raise CheckpointError(
            f"{folder}: neither preprocessor_config.json nor a processor_config.json with an image_processor."
            " Download the checkpoint again."
        )
    try:
        return _budget(image, video if video is not None else {})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{folder}: the preprocessor settings are unusable ({error!r}).") from error


def fit_image_size(height: int, width: int, budget: PixelBudget) -> tuple[int, int]:
    """Height and width that an image of this size is resized to; sizes already fitted stay."""
    bounds = (budget.image_min_pixels, budget.image_max_pixels)
    return _smart_resize(height, width, frames=1, layers=1, bounds=bounds, factor=budget.factor)


def fit_frame_size(frames: int, height: int, width: int, budget: PixelBudget) -> tuple[int, int]:
    """Height and width that each of `frames` sampled frames is resized to; sizes already fitted stay."""
    step = budget.temporal_patch_size
    frames = max(frames, step)
    # Python's round (half to even) on purpose: the processors do the same.
    layers = round(frames / step) * step
    bounds = (budget.video_min_pixels, budget.video_max_pixels)
    return _smart_resize(height, width, frames=frames, layers=layers, bounds=bounds, factor=budget.factor)


def sample_indices(total: int, rate: float, *, fps: float, min_frames: int, max_frames: int) -> list[int]:
    """Which of `total` frames, shown at `rate` a second, are looked at.

    `fps` a second within the bounds, evenly spread, first and last included, as
    `Qwen3VLVideoProcessor.sample_frames` does.
    """
    wanted = int(total / rate * fps)
    count = min(max(wanted, min_frames), max_frames, total)
    return [int(i) for i in np.linspace(0, total - 1, count).round()]


def pair_times(times_s: NDArray[np.floating[Any]], budget: PixelBudget) -> list[float]:
    """The time stamp of each layer of frames: the mean of its first and last frame's times, in seconds."""
    step = budget.temporal_patch_size
    times = [float(t) for t in times_s]
    times += [times[-1]] * (-len(times) % step)
    return [(times[i] + times[i + step - 1]) / 2 for i in range(0, len(times), step)]


def to_patches(frames: NDArray[np.uint8], budget: PixelBudget) -> NDArray[np.float32]:
    """Cut fitted frames into normalised patches.

    Args:
        frames: uint8 [S, T, h, w, 3]; T is the temporal patch size, or 1 for a still image, which is then
            its own pair.
        budget: patch sizes, mean and std.

    Returns:
        float32 [S, N, 3 * temporal * patch * patch]; patches in merge order: the 2x2 patches of one visual
        token are neighbours, tokens run row by row.
    """
    patch, merge, step = budget.patch_size, budget.merge_size, budget.temporal_patch_size
    count, depth, height, width, channels = frames.shape
    # One multiply-add in float32, as the processors fuse rescaling and normalising.
    scale = np.float32(1 / 255) / np.asarray(budget.std, dtype=np.float32)
    shift = np.asarray(budget.mean, dtype=np.float32) / np.asarray(budget.std, dtype=np.float32)
    rows, columns = height // patch // merge, width // patch // merge
    cut = frames.reshape(count, depth, rows, merge, patch, columns, merge, patch, channels)
    # -> sample, token row, token column, patch row, patch column, channel, time, y, x
    cut = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    patches = np.empty((count, rows, columns, merge, merge, channels, step, patch, patch), dtype=np.float32)
    wide = (1, 1, 1, 1, 1, channels, 1, 1, 1)
    np.multiply(cut, scale.reshape(wide), out=patches)  # a depth of 1 is repeated over the pair
    patches -= shift.reshape(wide)
    return patches.reshape(count, rows * columns * merge * merge, channels * step * patch * patch)


def _smart_resize(
    height: int, width: int, *, frames: int, layers: int, bounds: tuple[int, int], factor: int
) -> tuple[int, int]:
    """`smart_resize` of the Qwen2-VL image and Qwen3-VL video processors, defined for every size.

    Beyond them: a size that already obeys the rules stays (so that fitting twice is fitting once), and sides
    too short or too unequal are brought into range instead of refused.
    """
    if height < 1 or width < 1:
        raise InputError(f"An image of {width}x{height} pixels has no content.")
    low, high = bounds
    if _is_fitted(height, width, frames=frames, layers=layers, bounds=bounds, factor=factor):
        return height, width
    shortest = max(height, width) / _MAX_RATIO
    tall: float = max(height, shortest)
    wide: float = max(width, shortest)
    new_height = round(tall / factor) * factor
    new_width = round(wide / factor) * factor
    if layers * new_height * new_width > high:
        shrink = math.sqrt(frames * tall * wide / high)
        new_height = max(factor, math.floor(tall / shrink / factor) * factor)
        new_width = max(factor, math.floor(wide / shrink / factor) * factor)
    elif layers * new_height * new_width < low:
        grow = math.sqrt(low / (frames * tall * wide))
        new_height = math.ceil(tall * grow / factor) * factor
        new_width = math.ceil(wide * grow / factor) * factor
    return new_height, new_width


def _is_fitted(
    height: int, width: int, *, frames: int, layers: int, bounds: tuple[int, int], factor: int
) -> bool:
    """Whether a size can be an outcome of the resize; an odd frame may be counted or not, as there."""
    if height % factor or width % factor:
        return False
    low, high = bounds
    area = height * width
    shortest = min(height, width)
    if max(height, width) > shortest * _MAX_FITTED_RATIO:
        return False
    small_enough = min(frames, layers) * area <= high or shortest == factor
    return small_enough and max(frames, layers) * area >= low


def _budget(image: Mapping[str, Any], video: Mapping[str, Any]) -> PixelBudget:
    patch, merge = int(image["patch_size"]), int(image["merge_size"])
    token = (patch * merge) ** 2
    temporal = int(image["temporal_patch_size"])
    image_min, image_max = _bounds(image, default=(OFFICIAL_MIN_TOKENS * token, OFFICIAL_MAX_TOKENS * token))
    image_min = min(image_min, OFFICIAL_MIN_TOKENS * token)
    image_max = min(image_max, OFFICIAL_MAX_TOKENS * token, RETRIEVAL_IMAGE_TOKENS * token)
    # A layer of tokens covers `temporal` frames, and video bounds count the pixels of every frame.
    video_caps = OFFICIAL_MIN_TOKENS * token, RETRIEVAL_VIDEO_TOKENS * token * temporal
    video_min, video_max = _bounds(video, default=video_caps)
    video_max = min(video_max, OFFICIAL_VIDEO_TOKENS * token * temporal, video_caps[1])
    fps = float(video.get("fps") or OFFICIAL_FPS)
    max_frames = int(video.get("max_frames") or OFFICIAL_MAX_FRAMES)
    if max_frames > OFFICIAL_MAX_FRAMES:
        # The published checkpoints ship the base model's generic video settings (2 fps, 768 frames); the
        # official embedding and reranking code overrides them by 1 fps and 64 frames.
        fps = min(fps, OFFICIAL_FPS)
    max_frames = min(max_frames, OFFICIAL_MAX_FRAMES, RETRIEVAL_MAX_FRAMES)
    return PixelBudget(
        patch_size=patch,
        merge_size=merge,
        temporal_patch_size=temporal,
        image_min_pixels=min(image_min, image_max),
        image_max_pixels=image_max,
        video_min_pixels=min(video_min, video_max),
        video_max_pixels=video_max,
        fps=fps,
        min_frames=min(int(video.get("min_frames") or 4), max_frames),
        max_frames=max_frames,
        mean=_triple(image.get("image_mean", (0.5, 0.5, 0.5))),
        std=_triple(image.get("image_std", (0.5, 0.5, 0.5))),
    )


def _bounds(settings: Mapping[str, Any], *, default: tuple[int, int]) -> tuple[int, int]:
    """Smallest and largest number of pixels; the files name them in two ways."""
    size = settings.get("size") or {}
    low = settings.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or default[0]
    high = settings.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or default[1]
    return int(low), int(high)


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file, or None when there is no such file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Download the checkpoint again.") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: is not a JSON object. Download the checkpoint again.")
    return raw
