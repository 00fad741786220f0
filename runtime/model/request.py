"""What a caller hands in: `{"text": ..., "image": ..., "video": ...}` checked and put into one form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .conversation import from_conversation, is_conversation
from .image import ImageLike
from .loaded import is_loaded_video, loaded_video
from .video import VideoFrames

# A film: its file, frames with times, or frames alone.
VideoLike: TypeAlias = str | Path | VideoFrames | list[Any] | NDArray[np.uint8]

# An input as the public calls take it: a mapping with the keys of `parse_request`, or chat messages.
Input: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]

KEYS = ("text", "image", "video", "instruction", "fps", "max_frames")

# In a list given as a video, paths of pictures are its frames; any other path is a film of its own.
_PICTURE = re.compile(
    r"\.(jpe?g|png|gif|bmp|webp|tiff?|heic|heif|avif)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One input: any number of texts, images and videos, and how to look at them."""

    texts: tuple[str, ...] = ()
    images: tuple[ImageLike, ...] = ()
    videos: tuple[VideoLike, ...] = ()
    instruction: str | None = None
    fps: float | None = None
    max_frames: int | None = None


def parse_request(raw: Input, *, name: str = "an input") -> Request:
    """Check one input.

    Keys, all optional: `text` (a string or a list), `image` (a path, a Pillow image, uint8 [h, w, 3], or a
    list), `video` (a path, `VideoFrames`, uint8 [F, h, w, 3], a list of frames, a tensor [F, 3, h, w], a pair
    of a tensor and its metadata, or a list of those), `instruction`, `fps`, `max_frames`. A value of None
    means absent. Chat messages are taken, too; see `from_conversation`.

    Raises:
        InputError: an unknown key, or a value of the wrong kind; `name` says which input in the message.
    """
    if is_conversation(raw):
        raw = from_conversation(raw, name=name)
    if not isinstance(raw, Mapping):
        kind = type(raw).__name__
        raise InputError(f'{name}: must be a mapping such as {{"text": "two dogs"}}, not {kind}.')
    unknown = [key for key in raw if key not in KEYS]
    if unknown:
        raise InputError(f"{name}: unknown key {unknown[0]!r}. Known keys: {', '.join(KEYS)}.")
    instruction = raw.get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise InputError(f"{name}: instruction must be a text.")
    return Request(
        texts=_texts(raw.get("text"), name),
        images=_images(raw.get("image"), name),
        videos=_videos(raw.get("video"), name),
        instruction=None if instruction is None else _clean(instruction),
        fps=_positive(raw.get("fps"), f"{name}: fps"),
        max_frames=_count(raw.get("max_frames"), f"{name}: max_frames"),
    )


def parse_requests(raw: Iterable[Input], *, name: str) -> list[Request]:
    """Check a list of inputs; errors say "`name` 3"."""
    if isinstance(raw, (str, bytes, Mapping)) or not isinstance(raw, Iterable):
        raise InputError(
            f'Give a list of {name}s, such as [{{"text": "two dogs"}}], not {type(raw).__name__}.'
        )
    return [parse_request(one, name=f"{name} {i}") for i, one in enumerate(raw)]


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name}: text must be a string or a list of strings.")
    return tuple(_clean(text) for text in texts)


def _clean(text: str) -> str:
    """Lone surrogates, as in undecodable file names, have no tokens: they become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _images(value: Any, name: str) -> tuple[ImageLike, ...]:
    if value is None:
        return ()
    images = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(_is_image(image) for image in images):
        raise InputError(
            f"{name}: image must be a path, a Pillow image, a uint8 array [h, w, 3], or a list of those."
        )
    return images


def _videos(value: Any, name: str) -> tuple[VideoLike, ...]:
    if value is None:
        return ()
    videos: tuple[Any, ...] = (value,)
    is_list = isinstance(value, (list, tuple)) and not is_loaded_video(value)
    if is_list and not (value and _is_frame(value[0])):
        videos = tuple(value)
    videos = tuple(loaded_video(one, name=name) if is_loaded_video(one) else one for one in videos)
    if not all(_is_video(video) for video in videos):
        raise InputError(
            f"{name}: video must be a path, VideoFrames, a uint8 array [frames, h, w, 3], a list of frames, "
            "or a list of those."
        )
    return videos


def _is_frame(value: Any) -> bool:
    """Whether the first thing in a list given as a video is a frame of it."""
    if isinstance(value, (str, Path)):
        return _PICTURE.search(str(value)) is not None
    return _is_image(value)


def _is_image(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim in (2, 3)
    return isinstance(value, (str, Path)) or _is_pillow(value)


def _is_video(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_image(frame) for frame in value)
    if isinstance(value, np.ndarray):
        return value.ndim == 4
    return isinstance(value, (str, Path, VideoFrames))


def _is_pillow(value: Any) -> bool:
    """Without importing Pillow: whoever made the image has imported it."""
    return any(cls.__module__.startswith("PIL.") and cls.__name__ == "Image" for cls in type(value).__mro__)


def _positive(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < float("inf"):
        raise InputError(f"{name} must be a positive number.")
    return float(value)


def _count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a whole number above zero.")
    return value
