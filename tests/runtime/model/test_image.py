"""Every dress in which a picture comes, as real files made on the spot."""

import errno
import io
import os
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, features
from pillow_heif import register_heif_opener
from qvl_local.runtime.errors import InputError, MediaError, MediaLimitError
from qvl_local.runtime.model.image import fit_image, read_image, to_rgb
from qvl_local.runtime.model.pixels import load_budget


@pytest.fixture
def budget(tiny_folder):
    return load_budget(tiny_folder / "embedding")


@pytest.fixture
def save(tmp_path):
    def save(image, name, **options):
        path = tmp_path / name
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image.save(path, **options)
        return path

    return save


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "a.gif"])
def test_lossless_formats_come_back_exactly(save, name):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30] = (255, 0, 0)
    pixels[20:, 30:] = (0, 0, 255)
    options = {"lossless": True} if name.endswith("webp") else {}
    assert np.array_equal(read_image(save(pixels, name, **options)), pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.heic", "a.avif"])
def test_lossy_formats_come_back_nearly(save, name):
    if name.endswith("heic"):
        register_heif_opener()
    if name.endswith("avif") and not features.check("avif"):
        pytest.fail("this Pillow cannot write AVIF")
    pixels = np.zeros((64, 96, 3), np.uint8) + np.linspace(0, 200, 96).astype(np.uint8)[None, :, None]
    read = read_image(save(pixels, name, quality=95)).astype(int)
    assert read.shape == pixels.shape
    assert np.abs(read - pixels).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(save, orientation):
    upright = np.zeros((48, 80, 3), np.uint8)
    upright[:16, :16] = (255, 255, 255)  # a white corner at the top left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(upright, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(np.ascontiguousarray(stored), "turned.png", exif=exif)
    assert np.array_equal(read_image(path), upright)


def test_transparency_lies_on_white(save):
    layered = np.zeros((32, 32, 4), np.uint8)
    layered[:, :16] = (255, 0, 0, 255)
    read = read_image(save(layered, "alpha.png"))
    assert read[0, 0].tolist() == [255, 0, 0]
    assert read[0, -1].tolist() == [255, 255, 255]
    grey = Image.fromarray(layered).convert("LA")
    assert read_image(save(grey, "grey.png"))[0, -1].tolist() == [255, 255, 255]


def test_palette_with_transparent_colour(save):
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.putpixel((0, 0), 0)
    read = read_image(save(image, "palette.png", transparency=0))
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[1, 1].tolist() == [200, 10, 20]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "LAB", "HSV"])
def test_other_colour_modes_become_rgb(save, mode):
    grey = Image.new("L", (40, 30), 0)
    grey.paste(255, (0, 0, 20, 30))
    if mode == "LAB":
        image = Image.merge("LAB", [grey, Image.new("L", grey.size, 128), Image.new("L", grey.size, 128)])
    else:
        image = grey.convert(mode if mode in ("1", "L") else "RGB").convert(mode)
    read = read_image(save(image, "mode.tiff")) if mode != "HSV" else to_rgb(image)
    assert read.shape == (30, 40, 3)
    assert read[0, 0].min() > 220
    assert read[0, -1].max() < 35


def test_cmyk_jpeg(save):
    image = Image.new("RGB", (64, 64), (250, 20, 20)).convert("CMYK")
    red, green, blue = read_image(save(image, "press.jpg", quality=95))[30, 30]
    assert red > 200
    assert green < 80
    assert blue < 80


def test_sixteen_bits_are_scaled_not_clipped(save):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    path = save(np.tile(ramp, (40, 1)), "deep.png")
    read = read_image(path)[0, :, 0].astype(int)
    assert np.abs(read - ramp / 257).max() <= 1
    floats = (np.tile(np.linspace(0, 1, 64), (40, 1))).astype(np.float32)
    assert np.abs(read_image(save(floats, "float.tiff"))[0, :, 0] - np.linspace(0, 255, 64)).max() <= 1


def test_animation_gives_its_first_frame(save):
    first, second = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("RGB", (40, 40), (0, 255, 0))
    path = save(first, "moving.gif", save_all=True, append_images=[second])
    assert read_image(path)[5, 5].tolist() == [255, 0, 0]


def test_one_pixel_and_a_panorama_are_fitted(save, budget):
    assert fit_image(read_image(save(np.zeros((1, 1, 3), np.uint8), "dot.png")), budget).shape == (64, 64, 3)
    wide = read_image(save(np.zeros((20, 20_000, 3), np.uint8), "wide.png"), budget=budget)
    assert wide.shape[0] == 32
    assert wide.shape[1] % 32 == 0


def test_a_fitted_picture_passes_unchanged(picture, budget):
    fitted = fit_image(picture(300, 400), budget)
    assert np.array_equal(fit_image(fitted, budget), fitted)
    assert np.array_equal(fit_image(Image.fromarray(fitted), budget), fitted)


def test_draft_is_close_to_exact(save, picture, budget):
    path = save(picture(1200, 1600), "big.jpg", quality=95)
    exact = read_image(path, budget=budget).astype(int)
    draft = read_image(path, budget=budget, draft=True).astype(int)
    assert exact.shape == draft.shape
    assert 0 < np.abs(exact - draft).mean() < 2


def test_draft_minds_the_orientation(save, picture, budget):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(picture(1600, 800), "tall.jpg", exif=exif)
    draft = read_image(path, budget=budget, draft=True)
    assert draft.shape == read_image(path, budget=budget).shape
    assert draft.shape[1] > draft.shape[0]


def test_too_many_pixels_are_refused_before_decoding(save):
    path = save(np.zeros((100, 100, 3), np.uint8), "bomb.png")
    with pytest.raises(MediaLimitError, match=r"bomb\.png: 100x100 pixels are more than the limit of 9,999"):
        read_image(path, max_pixels=9_999)


def test_pillows_own_limit_is_neither_used_nor_changed(save, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(np.zeros((32, 32, 3), np.uint8), "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (32, 32, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_broken_files_say_so_by_name(tmp_path, save, picture):
    whole = save(picture(300, 300), "whole.jpg").read_bytes()
    png = save(picture(64, 64), "whole.png").read_bytes()
    broken = {
        "truncated.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "text.jpg": b"this is no picture",
        "truncated.png": png[: len(png) // 2],
        "flipped.png": png[:40] + b"\xff" * 20 + png[60:],
    }
    for name, content in broken.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(MediaError) as caught:
            read_image(path)
        assert caught.value.path == str(path)
        assert "\n" not in caught.value.reason
    with pytest.raises(MediaError, match="no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(MediaError, match=r"[Dd]irectory|[Pp]ermission"):
        read_image(tmp_path)


def test_a_wrong_extension_does_not_matter(tmp_path, picture):
    buffer = io.BytesIO()
    Image.fromarray(picture(40, 50)).save(buffer, "PNG")
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(buffer.getvalue())
    assert np.array_equal(read_image(path), picture(40, 50))


def test_any_file_name_will_do(tmp_path, save, picture):
    content = save(picture(40, 40), "plain.png").read_bytes()
    names = ["\U0001f415.png".encode(), b"-rf.png"]
    if os.name == "posix":
        names += [b"new\nline.png", b"http:a.png"]
    if sys.platform == "linux":
        names.append(b"invalid-\xff.png")
    for name in names:
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(content)
        assert read_image(str(path)).shape == (40, 40, 3)


def test_arrays_of_another_kind_are_refused():
    for array in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError):
            to_rgb(array)
    assert to_rgb(np.zeros((4, 5), np.uint8)).shape == (4, 5, 3)
    assert to_rgb(np.zeros((4, 5, 1), np.uint8)).shape == (4, 5, 3)
    assert (to_rgb(np.zeros((4, 5, 4), np.uint8)) == 255).all()


def test_a_broken_exif_block_does_not_cost_the_picture(save, picture):
    pixels = picture(48, 64)
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x12\x01\x03\x00\xff\xff\xff\x7f\x06\x00\x00\x00"
    read = read_image(save(pixels, "odd.jpg", exif=exif, quality=95))
    assert np.abs(read.astype(int) - pixels).mean() < 10


def test_phones_that_store_several_pictures_in_a_jpeg(save, picture, budget):
    first, second = Image.fromarray(picture(900, 1200, 1)), Image.fromarray(picture(900, 1200, 2))
    path = save(first, "phone.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    exact = read_image(path, budget=budget).astype(int)
    assert np.abs(read_image(path, budget=budget, draft=True).astype(int) - exact).mean() < 2
    assert np.abs(fit_image(first, budget).astype(int) - exact).mean() < 3


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_the_system_refuses_is_told_like_everywhere(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))  # whoever runs the tests may be allowed everything

    monkeypatch.setattr("qvl_local.runtime.model.image._open", refuse)
    with pytest.raises(MediaError) as refused:
        read_image(tmp_path / "a.jpg")
    assert refused.value.reason == "the file cannot be read: permission denied"
