"""Thumbnails and strips of frames."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime.library.thumbnails import (
    DAMAGED,
    STRIP_PIXELS,
    make_strip,
    make_thumbnail,
    open_thumbnail,
    split_strip,
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1600, 1200), (320, 240)), ((300, 200), (300, 200)), ((20000, 20), (320, 1)), ((1, 1), (1, 1))],
)
def test_a_thumbnail_fits_and_is_never_larger(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    with Image.open(BytesIO(make_thumbnail(image))) as made:
        assert (made.format, made.size) == ("JPEG", expected)
        assert np.allclose(np.asarray(made).reshape(-1, 3).mean(axis=0), (200, 100, 50), atol=4)
    assert image.size == size


def test_a_strip_gives_its_frames_back(media: Any) -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    smooth = [np.asarray(Image.fromarray(media.pixels(c, size=(16, 8))).resize((96, 64), 3)) for c in colours]
    frames = np.stack(smooth)
    again = split_strip(make_strip(frames), 3)
    assert again.shape == frames.shape
    assert again.dtype == np.uint8
    # Fully saturated neighbours would bleed into each other with subsampled colour.
    assert np.abs(again.astype(int) - frames).mean() < 2
    assert np.abs(again.astype(int) - frames).max() < 40


def test_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        make_strip(np.zeros((70, 1000, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        make_strip(np.zeros((11, 2000, 1500, 3), np.uint8))


def jpeg_of(width: int, height: int) -> bytes:
    """A small picture whose header claims another size: how it decodes does not matter."""
    buffer = BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    content = buffer.getvalue()
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[at + 4 :]


@pytest.mark.parametrize("size", [(20_000, 15_000), (641, 16), (16, 641)])
def test_a_thumbnail_of_another_size_is_none_of_ours(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
        open_thumbnail(jpeg_of(*size))
    assert open_thumbnail(jpeg_of(640, 200)).size == (640, 200)


@pytest.mark.parametrize(("size", "count"), [((20_000, 15_000), 3), ((16, 16), 0), ((16, 16), 3)])
def test_a_strip_of_another_size_is_none_of_ours(size: tuple[int, int], count: int) -> None:
    with pytest.raises(DAMAGED):
        split_strip(jpeg_of(*size), count)
    assert STRIP_PIXELS < 20_000 * 15_000
