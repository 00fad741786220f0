"""Chat messages as inputs, in the form of qwen-vl-utils, and what its own loader returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from qvl_local.runtime import Embedder, Reranker
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.model.request import parse_request, parse_requests
from qvl_local.runtime.model.video import VideoFrames
from qwen_vl_utils import process_vision_info


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


@pytest.fixture(scope="module")
def embedder():
    return Embedder.open("tiny", threads=1)


@pytest.fixture
def files(picture, tmp_path):
    """A picture file whose name needs quoting in an address."""
    path = tmp_path / "a dog.png"
    Image.fromarray(picture(96, 128, 1)).save(path)
    return path


def test_messages_become_inputs():
    request = parse_request(
        [
            {
                "role": "system",
                "content": [{"type": "text", "text": "Find "}, {"type": "text", "text": "it"}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "one"},
                    {"type": "image", "image": "file:///photos/a%20dog.jpg"},
                    {"type": "video", "video": "clip.mp4", "fps": 2.0, "max_frames": 8},
                    {"type": "image_url", "image_url": {"url": "b.jpg"}},
                    {"type": "video", "video": ["0.jpg", "1.jpg"], "sample_fps": 2.0},
                    {"type": "text", "text": "two"},
                ],
            },
        ]
    )
    assert request.texts == ("one", "two")
    assert request.images == ("/photos/a dog.jpg", "b.jpg")
    assert request.videos == ("clip.mp4", ["0.jpg", "1.jpg"])
    assert (request.instruction, request.fps, request.max_frames) == ("Find it", 2.0, 8)


@pytest.mark.parametrize(
    "raw",
    [
        [{"role": "user", "content": "two dogs"}],
        {"role": "user", "content": "two dogs"},
        {"content": [{"type": "text", "text": "two dogs"}]},
        [{"type": "text", "text": "two dogs"}],
        {"type": "text", "text": "two dogs"},
    ],
)
def test_a_conversation_a_message_or_its_parts(raw):
    assert parse_request(raw).texts == ("two dogs",)
    assert parse_requests([raw, {"text": "two dogs"}], name="input")[0].texts == ("two dogs",)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (user({"type": "audio", "audio": "a.mp3"}), "must hold a text, an image or a video, not 'audio'"),
        (user({"type": "image", "text": "a"}), "must hold a text, an image or a video, not 'image'"),
        ([{"role": "assistant", "content": "yes"}], "role 'assistant' is nothing to embed"),
        ([{"role": "system", "content": [{"type": "image", "image": "a.jpg"}]}], "must be text alone"),
        ([{"role": "user", "content": 3}], "content must be a text or a list of parts"),
        (user({"type": "image", "image": "a.jpg", "max_pixels": 9}), "the option 'max_pixels' of the image"),
        (user({"type": "video", "video": "a.mp4", "nframes": 4}), "the option 'nframes' of the video"),
        (
            user({"type": "image", "image": "https://a.example/b.jpg"}),
            "is an address, and nothing is fetched",
        ),
        (
            user(
                {"type": "video", "video": "a.mp4", "fps": 1}, {"type": "video", "video": "b.mp4", "fps": 2}
            ),
            "different fps",
        ),
        (user({"type": "text", "text": 3}), "text must be a string"),
        ([[{"type": "text", "text": "a"}]], "must be a mapping"),
    ],
)
def test_what_a_conversation_may_not_say(raw, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")) as caught:
        parse_request(raw, name="input 7")
    assert str(caught.value).startswith("input 7: ")


def test_messages_embed_as_the_same_input_does(embedder, files, clip):
    film = clip(4, 64, 96, 3)
    frames = [Image.fromarray(frame) for frame in film]
    messages = [
        {"role": "system", "content": "Find it."},
        *user(
            {"type": "video", "video": frames, "sample_fps": 4.0},
            {"type": "image", "image": files.as_uri()},
            {"type": "text", "text": "at night"},
        ),
    ]
    ours = {"text": "at night", "image": files, "video": frames, "fps": 4.0, "instruction": "Find it."}
    vectors = embedder.embed([messages, ours])
    assert np.array_equal(vectors[0], vectors[1])


def test_what_process_vision_info_returns_embeds_as_the_files_do(embedder, files, clip):
    # Of the fitted size, so that neither loader resizes; qwen-vl-utils would make small films larger.
    film = clip(6, 64, 128, 3)
    frames = [Image.fromarray(frame) for frame in film]
    messages = user(
        {"type": "image", "image": str(files)},
        {"type": "video", "video": frames, "sample_fps": 4.0, "min_pixels": 64 * 64},
    )
    images, videos = process_vision_info(messages, image_patch_size=16, return_video_metadata=True)
    assert isinstance(videos[0], tuple)
    expected = embedder.embed([{"image": files, "video": VideoFrames(film, np.arange(6) / 4)}])
    assert np.array_equal(embedder.embed([{"image": images, "video": videos}]), expected)
    assert np.array_equal(embedder.embed([{"image": images[0], "video": videos[0]}]), expected)

    _, bare, settings = process_vision_info(messages, image_patch_size=16, return_video_kwargs=True)
    assert isinstance(bare[0], torch.Tensor)
    given = {"image": images, "video": bare, "fps": settings["fps"][0]}
    assert np.array_equal(embedder.embed([given]), expected)


def test_times_come_from_the_metadata():
    tensor = torch.zeros(4, 3, 64, 96)
    metadata = {"fps": 25.0, "frames_indices": [0, 50, 100, 150], "total_num_frames": 151}
    (video,) = parse_request({"video": (tensor, metadata)}).videos
    assert video.times_s.tolist() == [0.0, 2.0, 4.0, 6.0]
    assert video.frames.shape == (4, 64, 96, 3)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ((torch.zeros(4, 3, 8, 8), {"fps": 2.0, "frames_indices": [0, 1]}), "do not belong to its 4 frames"),
        (torch.zeros(4, 8, 8, 1), r"must be \[frames, 3, h, w\], not \[4, 8, 8, 1\]"),
        (torch.full((2, 3, 8, 8), 300.0), "from 0 to 255"),
        (torch.full((2, 3, 8, 8), 0.5), "values up to 1"),
        (torch.zeros(3, 8, 8), "video must be a path"),
    ],
)
def test_tensors_that_are_no_film_are_refused(video, message):
    with pytest.raises(InputError, match=message):
        parse_request({"video": video})


def test_the_reranker_takes_messages_too(files):
    reranker = Reranker.open("tiny", threads=1)
    plain = reranker.logits({"text": "a dog"}, [{"image": files}])
    assert np.array_equal(
        reranker.logits(
            user({"type": "text", "text": "a dog"}), [user({"type": "image", "image": str(files)})]
        ),
        plain,
    )
