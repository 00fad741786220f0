"""Films that another loader has read: tensors, and tensors with their metadata, as arrays with times.

qwen-vl-utils gives float tensors [F, 3, h, w] of values 0 to 255, alone or as (tensor, metadata). A tensor is
known by what it can do, so that no library of tensors is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .video import VideoFrames


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor, of torch or of anything that copies to the host as torch does."""
    return all(hasattr(value, name) for name in ("detach", "cpu", "shape"))


def is_loaded_video(value: Any) -> bool:
    """Whether a value is a tensor of frames, or one with metadata."""
    if isinstance(value, tuple) and len(value) == 2:
        frames, metadata = value
        return is_tensor(frames) and not is_tensor(metadata) and _field(metadata, "fps") is not None
    return is_tensor(value) and len(value.shape) == 4


def loaded_video(value: Any, *, name: str) -> VideoFrames | NDArray[np.uint8]:
    """Frames with their times, or uint8 [F, h, w, 3] where nothing is known of times.

    The metadata's `frames_indices` over its `fps` are the times in seconds.

    Raises:
        InputError: a tensor that is no film, or metadata that do not belong to it.
    """
    if not isinstance(value, tuple):
        return _frames(value, name)
    tensor, metadata = value
    frames = _frames(tensor, name)
    rate = float(_field(metadata, "fps"))
    numbers = _field(metadata, "frames_indices")
    places = np.arange(len(frames)) if numbers is None else np.asarray(numbers, dtype=np.float64)
    if rate <= 0 or places.shape != (len(frames),):
        raise InputError(f"{name}: a video's metadata do not belong to its {len(frames)} frames.")
    return VideoFrames(frames=frames, times_s=places / rate)


def _frames(tensor: Any, name: str) -> NDArray[np.uint8]:
    """[F, 3, h, w] or [F, h, w, 3], values 0 to 255 -> uint8 [F, h, w, 3]."""
    values: NDArray[Any] = np.asarray(tensor.detach().cpu())
    if values.ndim == 4 and values.shape[1] == 3:
        values = values.transpose(0, 2, 3, 1)
    if values.ndim != 4 or values.shape[3] != 3:
        raise InputError(f"{name}: a video's tensor must be [frames, 3, h, w], not {list(tensor.shape)}.")
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.min(initial=0) < -1 or values.max(initial=0) > 256:
        raise InputError(f"{name}: a video's tensor must hold values from 0 to 255.")
    whole = np.rint(values)
    if 0 < values.max(initial=0) <= 1 and not np.array_equal(whole, values):
        raise InputError(f"{name}: a video's tensor holds values up to 1. Multiply it by 255.")
    pixels: NDArray[np.uint8] = np.clip(whole, 0, 255).astype(np.uint8)
    return pixels


def _field(metadata: Any, field: str) -> Any:
    """A field of a mapping or of an object."""
    return metadata.get(field) if isinstance(metadata, Mapping) else getattr(metadata, field, None)
