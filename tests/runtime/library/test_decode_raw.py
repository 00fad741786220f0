"""Decoding cameras' raw files: what is seen of them, what is known of them, and what hostile ones do."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime.errors import MediaAccessError, MediaError, MediaLimitError
from qvl_local.runtime.library.decode import DecodeLimits, DecodeTask, Description, Piece, decode_file
from qvl_local.runtime.library.probe import describe_raw
from qvl_local.runtime.model.image import read_image
from qvl_local.runtime.model.pixels import PixelBudget, load_budget
from qvl_local.runtime.model.raw_photo import RawPhoto, own_exif, read_raw

TINY = Path(__file__).parents[3] / "models" / "tiny" / "embedding"
RED, GREY = (200, 30, 30), (120, 120, 120)


@pytest.fixture(scope="module")
def budget() -> PixelBudget:
    return load_budget(TINY)


def decode(path: Path, budget: PixelBudget, **limits: Any) -> tuple[np.ndarray[Any, Any], Description]:
    piece, description = decode_file(DecodeTask(str(path), budget, DecodeLimits(**limits)))
    assert isinstance(piece, Piece)
    assert isinstance(description, Description)
    assert isinstance(piece.pixels, np.ndarray)
    return piece.pixels, description


def jpeg(pixels: np.ndarray[Any, Any], orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    content = buffer.getvalue()
    # As cameras write it: EXIF first, and no JFIF before it.
    return content if orientation is None else content[:2] + content[20:]


def red_top(width: int, height: int) -> np.ndarray[Any, Any]:
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2] = RED
    return pixels


def is_red_above(pixels: Any) -> bool:
    green = np.asarray(pixels)[..., 1].astype(float)
    third = len(green) // 3
    return bool(green[:third].mean() < 60 < 240 < green[-third:].mean())


def test_the_preview_is_what_is_seen_and_the_file_says_the_rest(
    tmp_path: Path, media: Any, budget: PixelBudget
) -> None:
    path = media.raw(tmp_path / "a.dng", RED, size=(640, 480), preview=(1200, 900), place=(38.7167, -9.1333))
    pixels, description = decode(path, budget)
    assert pixels.shape == (96, 128, 3)
    assert np.allclose(pixels.reshape(-1, 3).mean(axis=0), RED, atol=8)
    with Image.open(BytesIO(description.thumbnail)) as thumbnail:
        assert thumbnail.size == (640, 480)
        assert np.allclose(np.asarray(thumbnail).reshape(-1, 3).mean(axis=0), RED, atol=8)
    info = description.info
    assert (info.kind, info.width, info.height) == ("photo", 640, 480)
    assert (info.taken_at, info.camera) == (datetime(2024, 5, 31, 18, 2, 11), "Maker D1")
    assert (info.latitude, info.longitude) == (pytest.approx(38.7167), pytest.approx(-9.1333))


@pytest.mark.parametrize("preview", [None, (160, 120), b"\xff\xd8\xff no JPEG at all"])
def test_without_a_preview_worth_the_name_the_sensors_values_are_developed(
    tmp_path: Path, media: Any, budget: PixelBudget, preview: Any
) -> None:
    pixels, description = decode(
        media.raw(tmp_path / "a.dng", GREY, size=(640, 480), preview=preview), budget
    )
    assert pixels.shape == (96, 128, 3)
    assert np.ptp(pixels.reshape(-1, 3).mean(axis=0)) < 12
    with Image.open(BytesIO(description.thumbnail)) as thumbnail:
        assert thumbnail.size == (320, 240)
    assert (description.info.width, description.info.height) == (640, 480)
    assert description.info.taken_at == datetime(2024, 5, 31, 18, 2, 11)


@pytest.mark.parametrize(
    ("orientation", "preview"),
    [
        (1, jpeg(red_top(1200, 900))),
        (6, jpeg(np.rot90(red_top(900, 1200), 1))),  # as the sensor lay, with no word of it
        (6, jpeg(np.rot90(red_top(900, 1200), 1), 6)),
        (6, jpeg(np.rot90(red_top(900, 1200), 1), 1)),  # its own word is wrong
        (6, jpeg(red_top(900, 1200), 1)),  # turned by the camera
        (6, jpeg(red_top(900, 1200), 6)),  # turned by the camera, which says that it is to be turned
        (8, jpeg(np.rot90(red_top(900, 1200), 3))),
        (3, jpeg(np.rot90(red_top(1200, 900), 2))),
        (3, jpeg(np.rot90(red_top(1200, 900), 2), 3)),
        (3, jpeg(red_top(1200, 900), 1)),
    ],
)
def test_a_turned_photo_is_upright_whatever_its_preview_says(
    tmp_path: Path, media: Any, budget: PixelBudget, orientation: int, preview: bytes
) -> None:
    path = media.raw(tmp_path / "a.dng", size=(640, 480), preview=preview, orientation=orientation)
    pixels, description = decode(path, budget)
    size = (480, 640) if orientation in (6, 8) else (640, 480)
    assert (description.info.width, description.info.height) == size
    assert (pixels.shape[1] > pixels.shape[0]) == (size[0] > size[1])
    assert is_red_above(pixels)
    with Image.open(BytesIO(description.thumbnail)) as thumbnail:
        assert is_red_above(thumbnail)


def test_what_is_developed_is_upright(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    pixels, description = decode(media.raw(tmp_path / "a.dng", preview=None, orientation=6), budget)
    assert pixels.shape[0] > pixels.shape[1]
    assert (description.info.width, description.info.height) == (480, 640)


def test_a_photo_without_a_date_has_none(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    for preview in (None, (1200, 900)):
        _, description = decode(media.raw(tmp_path / "a.dng", preview=preview, taken=None), budget)
        assert description.info.taken_at is None


def test_metadata_that_only_the_decoder_can_read_counts(
    tmp_path: Path, media: Any, budget: PixelBudget
) -> None:
    path = media.raw(tmp_path / "a.dng", place=(38.7167, -9.1333))
    with path.open("rb") as file:
        photo = read_raw(file, path, max_pixels=10**7)
    info = describe_raw(replace(photo, exif=None))
    assert (info.taken_at, info.camera) == (datetime(2024, 5, 31, 18, 2, 11), "Maker D1")
    assert (info.latitude, info.longitude) == (None, None)  # LibRaw would put Lisbon into the east


def test_metadata_of_a_tiff_by_another_name_is_read(tmp_path: Path, media: Any) -> None:
    content = media.raw(tmp_path / "a.dng", preview=None, place=(38.7167, -9.1333)).read_bytes()
    for mark in (b"IIRO", b"IIU\0"):  # Olympus, Panasonic
        exif = own_exif(mark + content[4:])
        info = describe_raw(RawPhoto(np.zeros((1, 1, 3), np.uint8), 640, 480, exif, None, None))
        assert (info.taken_at, info.camera) == (datetime(2024, 5, 31, 18, 2, 11), "Maker D1")
        assert (info.latitude, info.longitude) == (pytest.approx(38.7167), pytest.approx(-9.1333))


def test_a_file_cut_short_is_shown_by_its_preview_and_else_an_error(
    tmp_path: Path, media: Any, budget: PixelBudget
) -> None:
    path = media.raw(tmp_path / "a.dng", RED)
    path.write_bytes(path.read_bytes()[:-200_000])
    pixels, _ = decode(path, budget)
    assert np.allclose(pixels.reshape(-1, 3).mean(axis=0), RED, atol=8)
    path = media.raw(tmp_path / "b.dng", RED, preview=None)
    whole = path.read_bytes()
    for kept in (len(whole) - 200_000, 1000, 300, 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(MediaError, match="damaged"):
            decode(path, budget)


@pytest.mark.parametrize("said", [(70_000, 70_000), (30_000, 30_000), (0, 0), (1, 1), (2**31, 2**31)])
@pytest.mark.parametrize("preview", [None, (1200, 900)])
def test_absurd_sizes_cost_nothing(
    tmp_path: Path, media: Any, budget: PixelBudget, said: tuple[int, int], preview: Any
) -> None:
    path = media.raw(tmp_path / "a.dng", preview=preview, said_size=said)
    with pytest.raises(MediaError):
        decode(path, budget)


def test_pixels_are_counted_before_anything_is_decoded(
    tmp_path: Path, media: Any, budget: PixelBudget
) -> None:
    path = media.raw(tmp_path / "a.dng")
    with pytest.raises(MediaLimitError, match="640x480 pixels"):
        decode(path, budget, photo_pixels=300_000)
    # A preview over the limit is none.
    _, description = decode(path, budget, photo_pixels=1_000_000)
    with Image.open(BytesIO(description.thumbnail)) as thumbnail:
        assert thumbnail.size == (320, 240)


def test_damaged_bytes_anywhere_are_an_error_or_a_picture(
    tmp_path: Path, media: Any, budget: PixelBudget
) -> None:
    path = media.raw(tmp_path / "a.dng", size=(64, 48), preview=(96, 72), place=(1.0, 2.0))
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(60):
        content = bytearray(whole)
        for at in rng.integers(0, 1200, 3):
            content[at] = rng.integers(0, 256)
        path.write_bytes(content)
        with suppress(MediaError):
            decode(path, budget)


def test_the_name_makes_a_tiff_a_raw_file_and_nothing_else_one(
    tmp_path: Path, media: Any, budget: PixelBudget
) -> None:
    (tmp_path / "a.nef").write_bytes(media.photo(tmp_path / "a.jpg", RED).read_bytes())
    pixels, description = decode(tmp_path / "a.nef", budget)  # a JPEG, whatever it is called
    assert np.allclose(pixels.reshape(-1, 3).mean(axis=0), RED, atol=8)
    assert (description.info.width, description.info.height) == (160, 120)
    (tmp_path / "b.nef").write_bytes(media.photo(tmp_path / "b.tiff", RED).read_bytes())
    with pytest.raises(MediaError, match="knows no raw file like it"):
        decode(tmp_path / "b.nef", budget)
    (tmp_path / "c.cr2").write_bytes(b"nothing that anybody reads" * 100)
    with pytest.raises(MediaError, match="knows no raw file like it"):
        decode(tmp_path / "c.cr2", budget)
    (tmp_path / "d.cr2").write_bytes(bytes(4096))
    with pytest.raises(MediaError, match="only zeros"):
        decode(tmp_path / "d.cr2", budget)


def test_a_raw_file_names_no_other_file(
    tmp_path: Path, media: Any, budget: PixelBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rawpy

    given: list[bytes] = []

    class Watched(rawpy.RawPy):
        """LibRaw, which could look for other files if it was told a name."""

        def open_file(self, path: str) -> None:
            pytest.fail("LibRaw was told a name")

        def open_buffer(self, fileobj: BinaryIO) -> None:
            given.append(fileobj.read())
            super().open_buffer(BytesIO(given[-1]))

    monkeypatch.setattr(rawpy, "RawPy", Watched)
    path = media.raw(tmp_path / "a.dng")
    decode(path, budget)
    read_image(path)
    assert given == [path.read_bytes()] * 2


def test_without_the_extra_the_reason_names_it(
    tmp_path: Path, media: Any, budget: PixelBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)  # as if it was not installed
    with pytest.raises(MediaAccessError, match=r"pip install 'qvl-local\[raw\]'"):
        decode(media.raw(tmp_path / "a.dng"), budget)


def test_a_model_reads_the_same_picture_from_a_name(tmp_path: Path, media: Any, budget: PixelBudget) -> None:
    path = media.raw(tmp_path / "a.DNG", RED)
    assert read_image(path).shape == (900, 1200, 3)
    fitted = read_image(path, budget=budget)
    assert fitted.shape == (96, 128, 3)
    assert np.abs(fitted.astype(int) - decode(path, budget)[0]).mean() < 2
    with pytest.raises(MediaLimitError):
        read_image(path, max_pixels=1000)
    with pytest.raises(MediaError, match="no such file"):
        read_image(tmp_path / "none.dng")
