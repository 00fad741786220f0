"""What is kept in memory of query pictures and renderings: bounded in number, bytes and time."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime.server.pictures import Pictures
from qvl_local.runtime.server.problems import NotFoundError
from qvl_local.runtime.server.renderings import Renderings, encode_jpeg

SMALL = np.zeros((4, 5, 3), np.uint8)


def test_a_picture_is_held_under_a_name_that_nobody_guesses() -> None:
    pictures = Pictures()
    first, second = pictures.add(SMALL), pictures.add(SMALL)
    assert first != second
    assert min(len(first), len(second)) >= 20
    assert pictures.get(first) is SMALL
    assert pictures.held_bytes == 2 * SMALL.nbytes


def test_the_one_that_was_not_used_longest_makes_room() -> None:
    for pictures in (Pictures(most=2), Pictures(most_bytes=2 * SMALL.nbytes)):
        names = [pictures.add(SMALL) for _ in range(2)]
        pictures.get(names[0])
        pictures.add(SMALL)
        assert pictures.get(names[0]) is SMALL
        with pytest.raises(NotFoundError, match="Send it again"):
            pictures.get(names[1])
        assert pictures.held_bytes == 2 * SMALL.nbytes


def test_one_that_is_larger_than_all_may_have_is_held_alone() -> None:
    pictures = Pictures(most_bytes=10)
    pictures.add(SMALL)
    name = pictures.add(SMALL)
    assert pictures.get(name) is SMALL
    assert pictures.held_bytes == SMALL.nbytes


def test_pictures_are_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("qvl_local.runtime.server.pictures.time.monotonic", lambda: now[0])
    pictures = Pictures(kept_s=60)
    name = pictures.add(SMALL)
    now[0] += 50
    assert pictures.get(name) is SMALL, "and is kept longer by that"
    now[0] += 50
    assert pictures.get(name) is SMALL
    now[0] += 61
    with pytest.raises(NotFoundError):
        pictures.get(name)
    assert pictures.held_bytes == 0


def test_a_rendering_is_made_once_and_goes_when_others_need_its_room() -> None:
    made: list[str] = []

    def make(name: str) -> bytes:
        made.append(name)
        return b"x" * 40

    renderings = Renderings(most_bytes=100)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert renderings.get(name, lambda name=name: make(name)) == b"x" * 40  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]


def test_a_rendering_is_the_picture() -> None:
    pixels = np.full((30, 20, 3), (200, 40, 40), np.uint8)
    with Image.open(BytesIO(encode_jpeg(pixels))) as image:
        assert (image.format, image.size) == ("JPEG", (20, 30))
        assert np.abs(np.asarray(image).astype(int) - pixels).max() < 12
