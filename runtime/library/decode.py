"""From a file to what the model and the library need of it; what runs inside a decoding process.

A photo yields one `Piece`, a video one for each scene as it goes, so that a film of any length passes
through little memory; then comes the `Description`. The first bytes decide what a file is; decoders get the
open file and the one format it may be, never a name, so that no file can point to another one or to the
network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaAccessError, MediaLimitError
from ..model.pixels import PixelBudget, fit_image_size
from ..reasons import unread_file
from .formats import Format
from .photo import damage_named, open_photo, read_format, shrink_early
from .records import MediaInfo
from .scenes import SceneSettings
from .thumbnails import LARGE_SIDE, THUMBNAIL_SIDE, make_thumbnail

if TYPE_CHECKING:
    from ..model.video import VideoFrames


def nothing() -> None:
    """Called where nobody wants to be told."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a file may ask for. Pixels of a photo, pixels of a video's frame, scenes of a video.

    A film may take `film_s` seconds, and `film_pace` more for each second of it that was read: a file of few
    bytes can hold days of decoding.
    """

    photo_pixels: int = 200_000_000
    frame_pixels: int = 64_000_000
    scenes: int = 20_000
    film_s: float = 60.0
    film_pace: float = 6.0

    @property
    def parts(self) -> int:
        """What a file yields at most: its scenes and its description."""
        return self.scenes + 1


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


def decode_file(task: DecodeTask, beat: Callable[[], None] = nothing) -> Iterator[Piece | Description]:
    """Decode one photo or video: its pieces in order, then its description.

    `beat` is called now and then while a film is read, which may take long between two pieces.

    Raises:
        MediaAccessError: the system refuses it.
        MediaError: it is damaged, or no picture or video.
        MediaLimitError: it is over a limit.
    """
    try:
        with Path(task.path).open("rb") as file:
            form = read_format(file, task.path)
            if form.opener == "RAW":
                yield from _decode_raw(file, task)
            elif form.kind == "photo":
                yield from _decode_photo(file, form, task)
            else:
                from .film import decode_film

                yield from decode_film(file, form, task, beat)
    except OSError as error:
        if error.errno is None:
            raise
        raise MediaAccessError(task.path, unread_file(error)) from error


def _decode_photo(file: BinaryIO, form: Format, task: DecodeTask) -> Iterator[Piece | Description]:
    from PIL import Image

    from ..model.image import fit_image, to_rgb
    from .probe import describe_photo

    Image.MAX_IMAGE_PIXELS = None  # in this process; our own limit is checked before anything is decoded
    with damage_named(task.path), open_photo(file, form) as image:
        _check_size(image.width, image.height, task)
        info = describe_photo(image)
        height, width = fit_image_size(image.height, image.width, task.budget)
        shrink_early(image, max(height, width, THUMBNAIL_SIDE))
        upright = to_rgb(image)
    yield Piece(0, 0, fit_image(upright, task.budget))
    # A JPEG is quickly made into a larger preview when one is asked for. A HEIC takes ten times as long, so
    # that its larger one is kept now.
    side = THUMBNAIL_SIDE if form.opener == "JPEG" else LARGE_SIDE
    yield Description(info, make_thumbnail(Image.fromarray(upright), side=side))


def _decode_raw(file: BinaryIO, task: DecodeTask) -> Iterator[Piece | Description]:
    from PIL import Image

    from ..model.image import fit_image
    from ..model.raw_photo import read_raw
    from .probe import describe_raw

    Image.MAX_IMAGE_PIXELS = None  # as above
    photo = read_raw(file, task.path, max_pixels=task.limits.photo_pixels, draft=task.budget)
    yield Piece(0, 0, fit_image(photo.pixels, task.budget))
    yield Description(describe_raw(photo), make_thumbnail(Image.fromarray(photo.pixels), side=LARGE_SIDE))


def _check_size(width: int, height: int, task: DecodeTask) -> None:
    limit = task.limits.photo_pixels
    if width * height > limit:
        raise MediaLimitError(
            task.path, f"{width}x{height} pixels are more than the limit of {limit // 10**6} million"
        )
