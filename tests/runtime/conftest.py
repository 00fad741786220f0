"""What tests of the runtime share: a maker of real photos and videos, and qvl-tiny as a bundle."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Colour = tuple[int, int, int]


class MediaMaker:
    """Writes media files of known content. Pictures are a colour with a texture that `seed` decides."""

    def pixels(
        self, colour: Colour = (180, 40, 40), *, size: tuple[int, int] = (160, 120), seed: int = 0
    ) -> NDArray[np.uint8]:
        """uint8 [h, w, 3] for a size of (width, height)."""
        width, height = size
        texture = np.random.default_rng(seed).integers(-20, 20, (height, width, 1))
        return np.clip(np.asarray(colour) + texture, 0, 255).astype(np.uint8)

    def photo(
        self,
        path: Path,
        colour: Colour = (180, 40, 40),
        *,
        size: tuple[int, int] = (160, 120),
        seed: int = 0,
        exif: Image.Exif | None = None,
    ) -> Path:
        """A photo in the format of its extension."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in {".heic", ".heif"}:
            from pillow_heif import register_heif_opener

            register_heif_opener()
        image = Image.fromarray(self.pixels(colour, size=size, seed=seed))
        if exif is None:
            image.save(path)
        else:
            image.save(path, exif=exif)
        return path

    def video(
        self,
        path: Path,
        scenes: Sequence[tuple[Colour, float]] = (((180, 40, 40), 3.0),),
        *,
        size: tuple[int, int] = (160, 120),
        fps: int = 12,
        codec: str | None = None,
        keyframe_every: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Path:
        """A video of coloured scenes with a moving square, in the container of its extension."""
        path.parent.mkdir(parents=True, exist_ok=True)
        codecs = {".webm": "libvpx", ".avi": "mpeg4"}
        with av.open(str(path), "w") as container:
            container.metadata.update(metadata or {})
            stream = container.add_stream(codec or codecs.get(path.suffix, "libx264"), rate=fps)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.options = {"preset": "ultrafast", "deadline": "realtime", "cpu-used": "8"}
            if keyframe_every is not None:
                stream.codec_context.gop_size = keyframe_every
            count = 0
            for colour, seconds in scenes:
                still = self.pixels(colour, size=size, seed=count)
                for _ in range(round(seconds * fps)):
                    pixels = still.copy()
                    x = (4 * count) % (size[0] - 20)
                    pixels[40:60, x : x + 20] = 255
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts = count
                    frame.time_base = Fraction(1, fps)
                    container.mux(stream.encode(frame))
                    count += 1
            container.mux(stream.encode())
        return path

    def raw(
        self,
        path: Path,
        colour: Colour = (180, 40, 40),
        *,
        size: tuple[int, int] = (640, 480),
        preview: tuple[int, int] | bytes | None = (1200, 900),
        orientation: int = 1,
        taken: str | None = "2024:05:31 18:02:11",
        place: tuple[float, float] | None = None,
        said_size: tuple[int, int] | None = None,
    ) -> Path:
        """A raw file, as a DNG: uncompressed values of a Bayer sensor, and a JPEG of a size, or these bytes.

        `said_size`: what it says of its size, whatever it holds.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(preview, tuple):
            buffer = BytesIO()
            Image.fromarray(self.pixels(colour, size=preview)).save(buffer, "JPEG", quality=90)
            preview = buffer.getvalue()
        path.write_bytes(_dng(colour, size, said_size or size, preview, orientation, taken, place))
        return path

    def sound(self, path: Path, *, seconds: float = 0.5) -> Path:
        """A file of sound alone."""
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=44100)
            for start in range(0, round(44100 * seconds), 1024):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
                frame.sample_rate = 44100
                frame.pts = start
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path


_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL = 1, 2, 3, 4, 5, 10
_CODES = {_BYTE: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I", _SRATIONAL: "i"}
_Tag = tuple[int, int, bytes | Sequence[int]]


def _dng(
    colour: Colour,
    size: tuple[int, int],
    said_size: tuple[int, int],
    preview: bytes | None,
    orientation: int,
    taken: str | None,
    place: tuple[float, float] | None,
) -> bytes:
    """The bytes of a DNG (Adobe's specification 1.4): without a preview one directory, else one below it."""
    red, green, blue = (round((part / 255) ** 2.2 * 60_000) for part in colour)
    mosaic = np.full(size[::-1], green, "<u2")
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = red, blue
    identity = [n for row in range(3) for column in range(3) for n in (int(row == column), 1)]
    main: list[_Tag] = [
        (271, _ASCII, b"Maker\0"),
        (272, _ASCII, b"Maker D1\0"),
        (274, _SHORT, [orientation]),
        (50706, _BYTE, [1, 4, 0, 0]),  # DNGVersion
        (50708, _ASCII, b"Maker D1\0"),  # UniqueCameraModel
        (50721, _SRATIONAL, identity),  # ColorMatrix1
        (50728, _RATIONAL, [1, 1] * 3),  # AsShotNeutral
    ]
    sensor: list[_Tag] = [
        (254, _LONG, [0]),
        *_picture_tags(said_size, 32803, [16], 1),
        (33421, _SHORT, [2, 2]),  # CFARepeatPatternDim
        (33422, _BYTE, [0, 1, 1, 2]),  # CFAPattern: red, green; green, blue
        (50717, _LONG, [65_535]),  # WhiteLevel
    ]
    exif: list[_Tag] = [] if taken is None else [(36867, _ASCII, taken.encode() + b"\0")]
    at = dict.fromkeys(("exif", "gps", "sensor", "preview", "mosaic"), 0)
    content = b""
    for _ in range(2):  # the second time all offsets are known
        content = b"II*\0" + struct.pack("<I", 8)
        here = [*main]
        if exif:
            here.append((34665, _LONG, [at["exif"]]))
        if place is not None:
            here.append((34853, _LONG, [at["gps"]]))
        values = [*sensor, (273, _LONG, [at["mosaic"]]), (279, _LONG, [mosaic.nbytes])]
        if preview is None:
            here += values
        else:
            here += [(254, _LONG, [1]), *_picture_tags(_size_of(preview), 6, [8, 8, 8], 7)]
            here += [(273, _LONG, [at["preview"]]), (279, _LONG, [len(preview)])]
            here.append((330, _LONG, [at["sensor"]]))
        content += _directory(here, len(content))
        parts = {"exif": exif, "gps": _gps(place), "sensor": [] if preview is None else values}
        for name, tags in parts.items():
            at[name] = len(content)
            content += _directory(tags, len(content)) if tags else b""
        for name, body in (("preview", preview or b""), ("mosaic", mosaic.tobytes())):
            at[name] = len(content)
            content += body + b"\0" * (len(body) % 2)
    return content


def _picture_tags(size: tuple[int, int], colours: int, bits: list[int], compression: int) -> list[_Tag]:
    return [
        (256, _LONG, [size[0]]),
        (257, _LONG, [size[1]]),
        (258, _SHORT, bits),
        (259, _SHORT, [compression]),
        (262, _SHORT, [colours]),
        (277, _SHORT, [len(bits)]),
        (278, _LONG, [size[1]]),
    ]


def _size_of(jpeg: bytes) -> tuple[int, int]:
    try:
        with Image.open(BytesIO(jpeg)) as image:
            return image.size
    except OSError:
        return 1200, 900


def _gps(place: tuple[float, float] | None) -> list[_Tag]:
    if place is None:
        return []
    tags: list[_Tag] = []
    for number, (degrees, sides) in enumerate(zip(place, (b"NS", b"EW"))):
        side = sides[degrees < 0 :][:1] + b"\0"
        parts = [round(abs(degrees) * 10_000), 10_000, 0, 1, 0, 1]
        tags += [(1 + 2 * number, _ASCII, side), (2 + 2 * number, _RATIONAL, parts)]
    return tags


def _directory(tags: list[_Tag], at: int) -> bytes:
    """A TIFF directory that begins at an offset, with what does not fit into it behind it."""
    table, behind = struct.pack("<H", len(tags)), b""
    end = at + 2 + 12 * len(tags) + 4
    for tag, kind, value in sorted(tags, key=lambda one: one[0]):
        raw = value if isinstance(value, bytes) else struct.pack(f"<{len(value)}{_CODES[kind]}", *value)
        count = len(value) // 2 if kind in (_RATIONAL, _SRATIONAL) else len(value)
        table += struct.pack("<HHI", tag, kind, count)
        table += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", end + len(behind))
        behind += raw + b"\0" * (len(raw) % 2) if len(raw) > 4 else b""
    return table + bytes(4) + behind


@pytest.fixture(scope="session")
def media() -> MediaMaker:
    return MediaMaker()


@pytest.fixture(scope="session")
def tiny_bundle() -> str:
    """The bundle folder of qvl-tiny, exported once."""
    from qvl_local.runtime.model.resolve import resolve

    return str(resolve("tiny").path)
