"""From a file to what the model and the library need of it; what runs inside a decoding process.
 A photo yields one `Piece`, a video one for each scene as it goes, so that a film of any length passes
through little memory; then comes the `Description`. The first bytes decide what a file is; decoders get the
open file and the one format it may be, never a name, so that no file can point to another one or to the
network.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError, MediaLimitError
from ..model.pixels import PixelBudget, fit_image_size
from .formats import SNIFF_BYTES, Format, sniff
from .records import MediaInfo
from .scenes import SceneSettings
from .thumbnails import THUMBNAIL_SIDE, make_thumbnail

if TYPE_CHECKING:
    from ..model.video import VideoFrames


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a file may ask for. Pixels of a photo, pixels of a video's frame, scenes of a video."""

    photo_pixels: int = 200_000_000
    frame_pixels: int = 64_000_000
    scenes: int = 20_000


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """One file to decode for a model with this pixel budget."""

    path: str
    budget: PixelBudget
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    scenes: SceneSettings = field(default_factory=SceneSettings)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one vector is made of: the photo, uint8 [H, W, 3], or the frames of a scene, fitted to the budget.

    `strip` holds those frames as one JPEG, for reranking without the video.
    """

    t0_ms: int
    t1_ms: int
    pixels: NDArray[np.uint8] | VideoFrames
    strip: bytes | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of the whole file once it is read. `thumbnail` is a JPEG."""

    info: MediaInfo
    thumbnail: bytes


def decode_file(task: DecodeTask) -> Iterator[Piece | Description]:
    """Decode one photo or video: its pieces in order, then its description.

    Raises:
        MediaError: it cannot be read or is no picture or video.
        MediaLimitError: it is over a limit.
    """
    try:
        with Path(task.path).open("rb") as file:
            form = _form(file, task.path)
            if form.kind == "photo":
                yield from _decode_photo(file, form, task)
            else:
                from .film import decode_film

                yield from decode_film(file, form, task)
    except OSError as error:
        if error.errno is None:
            raise
        raise MediaError(task.path, f"the file cannot be read: {_why(error)}") from error


def _form(file: BinaryIO, path: str) -> Format:
    head = file.read(SNIFF_BYTES)
    file.seek(0)
    if not head:
        raise MediaError(path, "the file is empty")
    form = sniff(head)
    if form is None:
        if not head.strip(b"\0"):
            raise MediaError(path, "the file holds only zeros; it was probably not copied to its end")
        raise MediaError(path, "its content is no photo or video of a known format, whatever its name says")
    return form


def _decode_photo(file: BinaryIO, form: Format, task: DecodeTask) -> Iterator[Piece | Description]:
    from PIL import Image, UnidentifiedImageError

    from ..model.image import fit_image, to_rgb
    from .probe import describe_photo

    _prepare_pillow(form)
    # MPO: a JPEG with further pictures behind it, which phones write; the first one counts.
    openers = ["JPEG", "MPO"] if form.opener == "JPEG" else [form.opener]
    try:
        with Image.open(file, formats=openers) as image:
            _check_size(image.width, image.height, task)
            info = describe_photo(image)
            height, width = fit_image_size(image.height, image.width, task.budget)
            # Let the JPEG decoder halve the picture while twice of what is needed remains.
            longest = 2 * max(height, width, THUMBNAIL_SIDE)
            image.draft("RGB", (longest, longest))
            upright = to_rgb(image)
    except (MediaError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise MediaError(task.path, f"it begins like a {form.name} file but is damaged") from None
    except Exception as error:  # decoders raise anything for a hostile file
        raise MediaError(task.path, _why_damaged(form, error)) from error
    yield Piece(0, 0, fit_image(upright, task.budget))
    yield Description(info, make_thumbnail(Image.fromarray(upright)))


def _prepare_pillow(form: Format) -> None:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # ours is checked instead, before anything is decoded
    if form.opener == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()


def _check_size(width: int, height: int, task: DecodeTask) -> None:
    limit = task.limits.photo_pixels
    if width * height > limit:
        raise MediaLimitError(
            task.path, f"{width}x{height} pixels are more than the limit of {limit // 10**6} million"
        )


def _why_damaged(form: Format, error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    if "truncated" in text.lower():
        return f"the {form.name} file is cut short ({text})"
    return f"the {form.name} file is damaged ({type(error).__name__}: {text})"


def _why(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied"
    return (error.strerror or str(error)).lower()
