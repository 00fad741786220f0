"""Writes pixels as the files that cameras make: JPEG and HEIC with EXIF, MP4 with dates and places.

Knows formats and metadata, nothing of scenes. Every file appears at its path complete or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import LibraryStorageError, QvlError

if TYPE_CHECKING:
    from av import VideoStream

JPEG_QUALITY = 90

# How to store a picture that a viewer turns upright by its EXIF orientation.
_STORED = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
# H.264 encoders that builds of PyAV may carry, the wheel's first; MPEG-4 part 2 where there is none.
_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "mpeg4")

# EXIF 2.32 tag numbers.
_MAKE, _MODEL, _ORIENTATION, _DATE = 0x010F, 0x0110, 0x0112, 0x0132
_EXIF, _DATE_TAKEN, _DATE_DIGITIZED = 0x8769, 0x9003, 0x9004
_GPS, _LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 0x8825, 1, 2, 3, 4


def write_photo(
    path: Path,
    pixels: NDArray[np.uint8],
    *,
    taken_at: datetime,
    latitude: float,
    longitude: float,
    make: str,
    model: str,
    orientation: int = 1,
) -> None:
    """Writes `pixels`, uint8 [H, W, 3], as HEIC where the name ends in .heic (in any case), else as JPEG.

    orientation: EXIF 1, 3, 6 or 8; the file is stored turned so that a viewer that obeys it shows `pixels`.
    Raises LibraryStorageError where the file cannot be written.
    """
    exif = _make_exif(taken_at, latitude, longitude, make, model, orientation)
    image = Image.fromarray(pixels)
    turn = _STORED[orientation]
    if turn is not None:
        image = image.transpose(turn)
    part = _part(path)
    try:
        if path.suffix.lower() == ".heic":
            from .heic import encode_heic

            part.write_bytes(encode_heic(np.asarray(image), exif=exif.tobytes()))
        else:
            image.save(part, "JPEG", quality=JPEG_QUALITY, exif=exif)
        part.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def write_clip(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    size: int,
    fps: int,
    taken_at: datetime,
    latitude: float,
    longitude: float,
    make: str,
    model: str,
) -> None:
    """Writes frames, each uint8 [size, size, 3], as an MP4 with H.264. `size` must be even.

    The date is written as local time with an unknown zone taken for UTC. Raises LibraryStorageError where
    the file cannot be written and QvlError where this PyAV has no encoder.
    """
    import av

    encoder = next((name for name in _ENCODERS if name in av.codecs_available), None)
    if encoder is None:
        raise QvlError(
            f"{path}: this PyAV has no H.264 encoder. Install the wheel: pip install --force-reinstall av"
        )
    part = _part(path)
    try:
        # Cameras of the QuickTime family write their tags under names of their own, which this flag allows.
        with av.open(
            str(part), "w", format="mp4", options={"movflags": "use_metadata_tags+faststart"}
        ) as container:
            date = f"{taken_at:%Y-%m-%dT%H:%M:%S}"
            place = f"{latitude:+08.4f}{longitude:+09.4f}/"
            container.metadata.update(
                {
                    "creation_time": date + ".000000Z",
                    "com.apple.quicktime.creationdate": date + "+0000",
                    "com.apple.quicktime.location.ISO6709": place,
                    "com.apple.quicktime.make": make,
                    "com.apple.quicktime.model": model,
                }
            )
            stream = cast("VideoStream", container.add_stream(encoder, rate=Fraction(fps)))
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1  # the same bytes on every machine
            if encoder == "libx264":
                stream.options = {"crf": "23", "preset": "veryfast"}
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        part.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _make_exif(
    taken_at: datetime, latitude: float, longitude: float, make: str, model: str, orientation: int
) -> Image.Exif:
    date = f"{taken_at:%Y:%m:%d %H:%M:%S}"
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL], exif[_DATE] = make, model, date
    exif[_ORIENTATION] = orientation
    exif[_EXIF] = {_DATE_TAKEN: date, _DATE_DIGITIZED: date}
    exif[_GPS] = {
        _LATITUDE_REF: "N" if latitude >= 0 else "S",
        _LATITUDE: _degrees(latitude),
        _LONGITUDE_REF: "E" if longitude >= 0 else "W",
        _LONGITUDE: _degrees(longitude),
    }
    return exif


def _degrees(value: float) -> tuple[float, float, float]:
    """Degrees, minutes and seconds, as EXIF wants them."""
    seconds = round(abs(value) * 3600, 2)
    return seconds // 3600, seconds % 3600 // 60, round(seconds % 60, 2)


def _part(path: Path) -> Path:
    """Where a file is written before it is complete; hidden, so that no scanner takes it for media."""
    return path.with_name(f".{path.name}.part")


def _cannot_write(path: Path, error: OSError) -> LibraryStorageError:
    return LibraryStorageError(
        f"{path}: cannot be written ({error.strerror or error}). Free some space or choose another folder."
    )
