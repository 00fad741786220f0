"""Writes a HEIC photograph: one HEVC picture in the boxes of the HEIF format (ISO/IEC 23008-12).

PyAV brings an HEVC encoder but no HEIF muxer, and pillow-heif would bring a second copy of that encoder, of
20 MB. So the picture is encoded into an MP4 in memory, whose decoder configuration and sample are the very
bytes that HEIF wants, and wrapped here. Knows nothing of EXIF but its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import QvlError

if TYPE_CHECKING:
    from av import VideoStream

_ENCODER = "libx265"
_QUALITY = "20"  # constant rate factor, 0 to 51, lower is better; about JPEG 90
_IMAGE, _EXIF = 1, 2  # item numbers inside the file
# Where a sample's decoder configuration lies in the MP4, and what precedes the boxes inside each container.
_CONFIGURATION = ("moov", "trak", "mdia", "minf", "stbl", "stsd", "hvc1", "hvcC")
_HEADER = {"stsd": 8, "hvc1": 78}


def encode_heic(pixels: NDArray[np.uint8], *, exif: bytes) -> bytes:
    """A HEIC file of `pixels`, uint8 [H, W, 3] with even sides.

    exif: as `PIL.Image.Exif.tobytes` gives it, with its `Exif` mark of six bytes in front.

    Raises:
        QvlError: this build of PyAV has no HEVC encoder.
    """
    configuration, sample = _encode(pixels)
    height, width = pixels.shape[:2]
    # The offset tells how far the TIFF header is behind the mark.
    exif_item = struct.pack(">I", 6) + exif
    file_type = _box("ftyp", b"heic", struct.pack(">I", 0), b"mif1", b"heic")
    sizes = (len(sample), len(exif_item))
    # The location table holds offsets that depend on the size of the box around it, which they do not change.
    start = len(file_type) + len(_meta(configuration, width, height, sizes, 0)) + 8
    meta = _meta(configuration, width, height, sizes, start)
    return file_type + meta + _box("mdat", sample, exif_item)


def _encode(pixels: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """The `hvcC` box and the one sample of the picture, encoded alone."""
    import av

    if _ENCODER not in av.codecs_available:
        raise QvlError("This PyAV cannot encode HEIC. Install the wheel: pip install --force-reinstall av")
    target = BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = cast("VideoStream", container.add_stream(_ENCODER, rate=1))
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        # One thread and no frame to wait for: the same bytes on every machine.
        stream.options = {"crf": _QUALITY, "x265-params": "log-level=none:pools=none:frame-threads=1:info=0"}
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            # x265 leaves the decoding time of a film of one frame undefined.
            packet.pts = packet.dts = 0
            container.mux(packet)
    mp4 = target.getvalue()
    configuration = _find(mp4, _CONFIGURATION)
    sample = next(body for kind, body in _boxes(mp4) if kind == "mdat")
    return _box("hvcC", configuration), sample


def _meta(configuration: bytes, width: int, height: int, sizes: tuple[int, int], start: int) -> bytes:
    image_size, exif_size = sizes
    handler = _full_box("hdlr", bytes(4), b"pict", bytes(13))
    primary = _full_box("pitm", struct.pack(">H", _IMAGE))
    items = _full_box(
        "iinf", struct.pack(">H", 2), _item(_IMAGE, b"hvc1", flags=0), _item(_EXIF, b"Exif", flags=1)
    )
    about = _box("cdsc", struct.pack(">HHH", _EXIF, 1, _IMAGE))
    shape = _full_box("ispe", struct.pack(">II", width, height))
    # sRGB primaries (1) and transfer (13), BT.601 matrix (6) in limited range: what swscale makes of RGB.
    colour = _box("colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 0))
    # The decoder configuration is essential (0x80), size and colour are told besides.
    properties = struct.pack(">IHBBBB", 1, _IMAGE, 3, 0x80 | 1, 2, 3)
    described = _box("iprp", _box("ipco", configuration, shape, colour), _full_box("ipma", properties))
    places = struct.pack(
        ">BBH" "HHHII" "HHHII", 0x44, 0, 2,
        _IMAGE, 0, 1, start, image_size, _EXIF, 0, 1, start + image_size, exif_size,
    )  # fmt: skip
    return _full_box(
        "meta", handler, primary, items, _full_box("iref", about), described, _full_box("iloc", places)
    )


def _item(number: int, kind: bytes, *, flags: int) -> bytes:
    # Version 2 has the item's type; flag 1 hides an item that is not to be shown.
    return _full_box("infe", struct.pack(">HH", number, 0), kind, bytes(1), version=2, flags=flags)


def _box(kind: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8) + kind.encode() + body


def _full_box(kind: str, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)


def _boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The boxes that lie one behind the other in `data`: kind and body."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        header = 8
        if size == 1:  # a size of 64 bits follows the kind
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        yield data[at + 4 : at + 8].decode("latin-1"), data[at + header : at + size]
        at += max(size, 8)


def _find(data: bytes, path: tuple[str, ...]) -> bytes:
    """The body of the box at `path`."""
    for kind in path:
        data = next(body for found, body in _boxes(data) if found == kind)[_HEADER.get(kind, 0) :]
    return data
