"""Inputs: what is taken, what is refused, and how lists are read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.model.request import parse_request, parse_requests
from qvl_local.runtime.model.video import VideoFrames

FRAME = np.zeros((32, 32, 3), np.uint8)
FILM = np.zeros((4, 32, 32, 3), np.uint8)


def test_one_or_a_list():
    assert parse_request({"text": "a"}).texts == ("a",)
    assert parse_request({"text": ["a", "b"]}).texts == ("a", "b")
    assert parse_request({"image": "a.jpg"}).images == ("a.jpg",)
    assert len(parse_request({"image": [Path("a.jpg"), FRAME, Image.new("L", (4, 4))]}).images) == 3
    assert parse_request({"text": None, "image": None, "video": None}).texts == ()
    assert parse_request({}).images == ()


def test_a_list_of_pictures_is_one_film_and_a_list_of_films_is_several():
    assert parse_request({"video": "a.mp4"}).videos == ("a.mp4",)
    assert parse_request({"video": ["a.mp4", "b.mkv"]}).videos == ("a.mp4", "b.mkv")
    assert len(parse_request({"video": ["0.jpg", "1.JPG", "2.webp"]}).videos) == 1
    assert len(parse_request({"video": [Image.new("RGB", (4, 4)), FRAME]}).videos) == 1
    assert len(parse_request({"video": [[FRAME, FRAME], "b.mp4", FILM]}).videos) == 3
    assert len(parse_request({"video": VideoFrames(FILM, np.arange(4.0))}).videos) == 1
    assert len(parse_request({"video": FILM}).videos) == 1


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("two dogs", "must be a mapping"),
        ({"txt": "a"}, "unknown key 'txt'. Known keys: text, image, video"),
        ({"text": 3}, "text must be a string"),
        ({"text": ["a", 3]}, "text must be a string"),
        ({"image": 3}, "image must be a path"),
        ({"image": FILM}, "image must be a path"),
        ({"video": 3}, "video must be a path"),
        ({"video": FRAME}, "video must be a path"),
        ({"video": [[]]}, "video must be a path"),
        ({"instruction": 3}, "instruction must be a text"),
        ({"fps": 0}, "fps must be a positive number"),
        ({"fps": float("nan")}, "fps must be a positive number"),
        ({"fps": True}, "fps must be a positive number"),
        ({"max_frames": 0}, "max_frames must be a whole number"),
        ({"max_frames": 2.5}, "max_frames must be a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(raw, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")) as caught:
        parse_requests([{}, raw], name="input")
    assert str(caught.value).startswith("input 1")


@pytest.mark.parametrize("raw", ["text", b"text", {"text": "a"}, 3])
def test_a_single_input_in_place_of_a_list_is_refused(raw):
    with pytest.raises(InputError, match="Give a list of inputs"):
        parse_requests(raw, name="input")


def test_undecodable_bytes_in_a_text_become_question_marks():
    assert parse_request({"text": "a\udcffb", "instruction": "\ud800"}).texts == ("a?b",)


@pytest.mark.parametrize(
    ("frames", "times"),
    [
        (FRAME, np.zeros(1)),
        (FILM.astype(float), np.zeros(4)),
        (FILM, np.zeros(3)),
        (np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0)),
        (np.zeros((2, 4, 4, 4), np.uint8), np.zeros(2)),
    ],
)
def test_video_frames_check_their_shape(frames, times):
    with pytest.raises(InputError, match="Video frames"):
        VideoFrames(frames, times)
