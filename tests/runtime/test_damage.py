"""What is said of broken files: one wording for one kind of damage, whatever format and decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime.damage import damage, is_cut_short
from qvl_local.runtime.errors import MediaError
from qvl_local.runtime.library.decode import DecodeTask, Description, decode_file
from qvl_local.runtime.model.pixels import PixelBudget, load_budget

TINY = Path(__file__).parents[2] / "models" / "tiny" / "embedding"
CUT = "the {} is cut short: its end is missing; copy it again from where it came from"
DAMAGED = "the {} is damaged; copy it again from where it came from, or save it anew with another program"
PICTURES = ("jpg", "png", "gif", "webp", "bmp", "tif", "heic", "avif")


@pytest.fixture(scope="module")
def budget() -> PixelBudget:
    return load_budget(TINY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, media: Any) -> Callable[[str], bytes]:
    folder = tmp_path_factory.mktemp("whole")
    # Noise does not compress: the file is long enough to be cut anywhere.
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    from pillow_heif import register_heif_opener

    register_heif_opener()
    for kind in PICTURES:
        Image.fromarray(pixels).save(folder / f"a.{kind}")
    media.video(folder / "a.mp4", [((200, 30, 30), 2)])
    return lambda kind: (folder / f"a.{kind}").read_bytes()


def reason(path: Path, budget: PixelBudget) -> str:
    with pytest.raises(MediaError) as caught:
        list(decode_file(DecodeTask(str(path), budget)))
    assert caught.value.path == str(path)
    return caught.value.reason


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_a_picture_that_was_cut_short(
    tmp_path: Path, whole: Any, budget: PixelBudget, kind: str, part: float
) -> None:
    content = whole(kind)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content[: max(40, int(part * len(content)))])
    assert reason(path, budget) == CUT.format("picture")


@pytest.mark.parametrize("part", [0.01, 0.5])
def test_a_film_whose_end_did_not_arrive(
    tmp_path: Path, whole: Any, budget: PixelBudget, part: float
) -> None:
    content = whole("mp4")
    path = tmp_path / "a.mp4"
    path.write_bytes(content[: max(40, int(part * len(content)))])
    assert reason(path, budget) == CUT.format("video")


@pytest.mark.parametrize("kind", ["jpg", "gif"])
def test_a_picture_with_wrong_bytes_in_it(tmp_path: Path, whole: Any, budget: PixelBudget, kind: str) -> None:
    content = bytearray(whole(kind))
    at = 200 if kind == "jpg" else 900  # where a JPEG has its tables, and a GIF its pixels
    content[at : at + 700] = np.random.default_rng(1).bytes(700)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    assert reason(path, budget) == DAMAGED.format("picture")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty: nothing was copied into it; copy it again from where it came from"),
        (
            b"\0" * 9000,
            "the file holds only zeros, as when copying broke off; copy it again from where it came",
        ),
    ],
)
def test_nothing_but_a_name(tmp_path: Path, budget: PixelBudget, content: bytes, said: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert reason(path, budget).startswith(said)


@pytest.mark.parametrize("kind", [*PICTURES, "mp4"])
@pytest.mark.parametrize("behind", [b"", b"something that an editor wrote behind it"])
def test_whole_files_are_not_cut_short(
    tmp_path: Path, whole: Any, budget: PixelBudget, kind: str, behind: bytes
) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(whole(kind) + (b"" if kind in ("mp4", "heic", "avif", "gif") else behind))
    assert isinstance(list(decode_file(DecodeTask(str(path), budget)))[-1], Description)
    assert not is_cut_short(path)
    assert damage(path, OSError("whatever a decoder says")) == DAMAGED.format("picture")


@pytest.mark.parametrize(
    "content",
    [b"", b"RIFF", b"\0\0\0\1ftypheic", b"II*\0", b"\x89PNG\r\n\x1a\n", b"\0\0\0\0ftyp", b"anything at all"],
)
def test_any_bytes_get_an_answer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert damage(tmp_path / "a").startswith("the picture is ")
    assert damage(tmp_path / "gone", ValueError("Truncated data"), what="video") == CUT.format("video")
    assert damage(tmp_path / "gone") == DAMAGED.format("picture")
