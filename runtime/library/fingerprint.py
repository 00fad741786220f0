"""What a picture looks like, in a kilobyte: for finding copies of it that differ in size, format and quality.

A fingerprint is the picture's luminance at 32 x 32, whatever its shape. Its hash is 64 bits of the cosine
transform of that: is each of the lowest frequencies above their median? (C. Zauner, Implementation and
Benchmarking of Perceptual Image Hash Functions, 2010.) A film has the fingerprints of a few of its frames,
with their times.

They are made of the previews, never of files, and kept there by content.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .previews import Previews
from .thumbnails import DAMAGED, open_thumbnail, split_strip

SIDE = 32
VERSION = 1
"""Of the way in which fingerprints are made; another one makes them anew."""

FRAMES = 8
"""Frames of a film that are looked at, spread evenly over it."""

_FREQUENCIES = 8
_PIXELS = SIDE * SIDE


@dataclass(frozen=True, slots=True)
class Print:
    """A picture, or a frame at `t_ms` of a film. `luma`: uint8 [32, 32]."""

    t_ms: int
    luma: NDArray[np.uint8]


def fingerprint(kind: str | None, content_hash: bytes, duration_s: float | None, previews: Previews) -> bytes:
    """The prints of an item as bytes, for `read_prints`; empty where there is nothing to see of it."""
    if kind == "video":
        return _written(_of_film(content_hash, duration_s or 0.0, previews))
    thumbnail = previews.thumbnail(content_hash)
    if not thumbnail:
        return b""
    try:
        with open_thumbnail(thumbnail) as image:
            return _written([Print(0, luma(image))])
    except DAMAGED:
        return b""


def luma(image: Image.Image) -> NDArray[np.uint8]:
    """A picture's luminance at 32 x 32: uint8 [32, 32]."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def read_prints(stored: bytes) -> list[Print]:
    """The prints of an item, in order of time."""
    size = 4 + _PIXELS
    return [
        Print(
            struct.unpack_from("<i", stored, at)[0],
            np.frombuffer(stored, np.uint8, _PIXELS, at + 4).reshape(SIDE, SIDE),
        )
        for at in range(0, len(stored) - size + 1, size)
    ]


def hashes(lumas: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint8 [n, 32, 32] -> uint64 [n]."""
    basis = _cosines()
    hashed = np.empty(len(lumas), np.uint64)
    for start in range(0, len(lumas), 4096):
        block = lumas[start : start + 4096].astype(np.float32)
        low = np.einsum("ui,nij,vj->nuv", basis, block, basis, optimize=True).reshape(len(block), -1)
        # The first one is the mean brightness, which says nothing of what is to be seen.
        above = low > np.median(low[:, 1:], axis=1, keepdims=True)
        hashed[start : start + 4096] = np.packbits(above, axis=1).view(np.uint64)[:, 0]
    return hashed


def _cosines() -> NDArray[np.float32]:
    """The first rows of the DCT-II, float32 [8, 32]."""
    angles = np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(_FREQUENCIES)[:, None]
    cosines: NDArray[np.float32] = np.cos(angles).astype(np.float32)
    return cosines


def _of_film(content_hash: bytes, duration_s: float, previews: Previews) -> list[Print]:
    """Frames of the scenes' strips that lie nearest to evenly spread times."""
    prints: dict[int, Print] = {}
    decoded: dict[int, tuple[NDArray[np.uint8], NDArray[np.float64]]] = {}
    for number in range(FRAMES):
        wanted = (number + 0.5) / FRAMES * duration_s * 1000
        strip = previews.strip_around(content_hash, round(wanted))
        if strip is None:
            continue
        if strip.t0_ms not in decoded:
            try:
                frames = split_strip(strip.jpeg, len(strip.times_s))
            except DAMAGED:
                continue
            decoded = {strip.t0_ms: (frames, np.array(strip.times_s) * 1000 + strip.t0_ms)}
        frames, times = decoded[strip.t0_ms]
        at = int(np.argmin(np.abs(times - wanted)))
        t_ms = round(times[at])
        prints[t_ms] = Print(t_ms, luma(Image.fromarray(frames[at])))
    return [prints[t_ms] for t_ms in sorted(prints)]


def _written(prints: list[Print]) -> bytes:
    return b"".join(struct.pack("<i", one.t_ms) + one.luma.tobytes() for one in prints)
