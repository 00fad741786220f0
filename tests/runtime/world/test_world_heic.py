"""The HEIC writer, read back by a decoder that is not ours."""

from __future__ import annotations

from importlib import import_module
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime.world.heic import encode_heic


@pytest.mark.parametrize("reader", ["pi_heif", "pillow_heif"])
@pytest.mark.parametrize("size", [(64, 64), (96, 128), (768, 512)])
def test_colours_size_and_exif_come_back(reader: str, size: tuple[int, int]) -> None:
    height, width = size
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 1))
    pixels = (ramp * np.array([1.0, 0.5, 0.2])).astype(np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "Solano"
    read = import_module(reader).open_heif(BytesIO(encode_heic(pixels, exif=exif.tobytes()))).to_pillow()
    assert read.size == (width, height)
    assert read.getexif()[0x010F] == "Solano"
    assert np.abs(np.asarray(read.convert("RGB")).astype(int) - pixels).mean() < 2


def test_the_same_picture_gives_the_same_bytes_every_time() -> None:
    """The encoder leaves a time undefined, which once failed about every third picture."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    assert len({encode_heic(pixels, exif=b"") for _ in range(30)}) == 1
