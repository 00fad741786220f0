"""Small pictures kept for showing and for reranking: thumbnails, and the frames of a scene as one strip."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

THUMBNAIL_SIDE = 320
"""The long side of a thumbnail, in pixels."""

LARGE_SIDE = 640
"""The same for screens with two pixels to the point, and for formats that take long to decode again."""

STRIP_PIXELS = 32_000_000
"""The most pixels of a strip: twice what the models' own limit on a video comes to."""

DAMAGED = (OSError, SyntaxError, ValueError)
"""What reading one of these pictures raises when its bytes are damaged, or were never ours."""

_THUMBNAIL_QUALITY = 80
_STRIP_QUALITY = 92
_JPEG_SIDE = 65_500  # libjpeg's limit is 65,535


def make_thumbnail(image: Image.Image, *, side: int = THUMBNAIL_SIDE) -> bytes:
    """A JPEG of at most `side` pixels a side from an upright RGB image, never enlarged."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return _jpeg(small, _THUMBNAIL_QUALITY, "4:2:0")


def make_strip(frames: NDArray[np.uint8]) -> bytes:
    """The frames of a scene, uint8 [F, H, W, 3], one below the other in a JPEG without chroma subsampling."""
    count, height, width, _ = frames.shape
    if count * height > _JPEG_SIDE or width > _JPEG_SIDE or count * height * width > STRIP_PIXELS:
        raise ValueError(f"{count} frames of {width}x{height} do not fit into one JPEG")
    strip = np.ascontiguousarray(frames).reshape(count * height, width, 3)
    return _jpeg(Image.fromarray(strip), _STRIP_QUALITY, "4:4:4")


def open_thumbnail(jpeg: bytes) -> Image.Image:
    """One of our own thumbnails, upright and RGB; nothing is decoded yet.

    Raises one of `DAMAGED`, as does reading the pixels.
    """
    image = _open(jpeg)
    if max(image.size) > LARGE_SIDE:
        raise ValueError(f"a thumbnail of {image.width}x{image.height} pixels")
    return image


def split_strip(strip: bytes, count: int) -> NDArray[np.uint8]:
    """The `count` frames of a strip: uint8 [F, H, W, 3]. Raises one of `DAMAGED`."""
    with _open(strip) as image:
        if count < 1 or image.width * image.height > STRIP_PIXELS:
            raise ValueError(f"a strip of {count} frames and {image.width}x{image.height} pixels")
        pixels = np.asarray(image.convert("RGB"))
    return pixels.reshape(count, pixels.shape[0] // count, pixels.shape[1], 3)


def _open(jpeg: bytes) -> Image.Image:
    """The header of a JPEG that a decoder, which may have been taken over, made of somebody's file.

    `Image.open` would first import the decoders of all common formats, which takes longer than this; but
    then nobody else looks at the size, which decides on the memory that decoding takes.
    """
    return JpegImageFile(BytesIO(jpeg))


def _jpeg(image: Image.Image, quality: int, subsampling: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()
