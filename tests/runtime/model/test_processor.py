"""Whole prompts against the Hugging Face processor: ids, pixels, grids and positions."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from qvl_local.runtime.errors import MediaError
from qvl_local.runtime.model.pixels import to_patches
from qvl_local.runtime.model.positions import patch_positions, token_rotary
from qvl_local.runtime.model.request import parse_request
from qvl_local.runtime.model.video import VideoFrames


def oracle_positions(oracle, inputs):
    positions, _ = oracle.model.get_rope_index(
        inputs["input_ids"],
        inputs.get("image_grid_thw"),
        inputs.get("video_grid_thw"),
        inputs["attention_mask"],
    )
    return positions[:, 0].numpy()


def assert_prompt(prompt, oracle, inputs, budget):
    assert prompt.ids.tolist() == inputs["input_ids"][0].tolist()
    if prompt.visions:
        assert np.array_equal(prompt.positions, oracle_positions(oracle, inputs))
    for key, moving in (("pixel_values", False), ("pixel_values_videos", True)):
        mine = [vision for vision in prompt.visions if (vision.stamps is not None) == moving]
        if not mine:
            assert key not in inputs
            continue
        patches = np.concatenate([to_patches(vision.frames, budget).reshape(-1, 1536) for vision in mine])
        assert np.abs(patches - inputs[key].numpy()).max() * 127.5 <= 1e-3


@pytest.mark.parametrize(
    ("texts", "images", "films"),
    [
        (["two dogs"], [], []),
        ([], [], []),
        ([""], [], []),
        (["Ü 狗 \U0001f415 e\u0301 \u00a0\n\n\t x"], [], []),
        ([], [(90, 130)], []),
        (["which?"], [(90, 130), (200, 60), (32, 32)], []),
        ([], [], [(8, 96, 96)]),
        (["a", "b"], [(64, 64)], [(5, 70, 120), (2, 60, 60)]),
    ],
)
def test_embedding_prompts(texts, images, films, tiny_embedding, embedding_host, picture, clip):
    pictures = [picture(*size, seed=i) for i, size in enumerate(images)]
    videos = [clip(*size, seed=i) for i, size in enumerate(films)]
    conversation = tiny_embedding.embedding_conversation(
        texts=texts, images=len(pictures), videos=len(videos), instruction="Find it."
    )
    inputs = tiny_embedding.inputs(conversation, images=pictures, films=[(film, 2.0) for film in videos])
    processor = embedding_host.processor
    request = parse_request({"text": texts, "image": pictures, "video": videos})
    prompt = processor.embedding_prompt(processor.prepare(request), instruction="Find it")
    assert_prompt(prompt, tiny_embedding, inputs, embedding_host.budget)


def test_reranking_prompts(tiny_reranker, reranking_host, picture, clip):
    photo, other, film = picture(90, 130), picture(64, 160, 1), clip(6, 96, 64)
    cases = [
        ((["two dogs"], 0, 0), (["a text"], 0, 0), [], []),
        ((["two dogs"], 0, 0), ([], 1, 0), [photo], []),
        ((["like this"], 1, 0), ([], 0, 1), [photo], [film]),
        (([], 1, 1), (["caption"], 1, 1), [photo, other], [film, film[:2]]),
        (([], 0, 0), ([], 0, 0), [], []),
    ]
    for query, document, pictures, films in cases:
        inputs = tiny_reranker.inputs(
            tiny_reranker.reranking_conversation(query, document),
            images=pictures,
            films=[(one, 2.0) for one in films],
        )
        asked = parse_request(
            {"text": query[0], "image": pictures[: query[1]], "video": list(films[: query[2]])}
        )
        given_ = parse_request(
            {"text": document[0], "image": pictures[query[1] :], "video": list(films[query[2] :])}
        )
        processor = reranking_host.processor
        prompt = processor.reranking_prompt(
            processor.prepare(asked), processor.prepare(given_), instruction=None
        )
        assert prompt.ids.tolist() == inputs["input_ids"][0].tolist()
        if len(pictures) < 2:
            assert_prompt(prompt, tiny_reranker, inputs, reranking_host.budget)


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (8, 8), (4, 20), (14, 6), (2, 126)])
def test_patch_positions_are_those_of_the_tower(rows, columns, tiny_embedding, embedding_host):
    import torch

    tower = tiny_embedding.model.visual
    place = patch_positions(rows, columns, embedding_host.config.vision)
    grid = torch.tensor([[1, rows, columns]])
    with torch.no_grad():
        theirs = tower.fast_pos_embed_interpolate(grid).numpy()
        angles = tower.rot_pos_emb(grid).numpy()
    table = tower.pos_embed.weight.detach().numpy()
    ours = (table[place.index] * place.weight[..., None]).sum(axis=1)
    assert np.abs(ours - theirs).max() <= 1e-5
    assert np.abs(place.cos - np.cos(angles)).max() <= 1e-5
    assert np.abs(place.sin - np.sin(angles)).max() <= 1e-5


def test_token_rotary_is_that_of_the_decoder(tiny_embedding, embedding_host):
    import torch

    positions = np.random.default_rng(0).integers(0, 3000, (3, 1, 50))
    cos, sin = token_rotary(positions, embedding_host.config.text)
    with torch.no_grad():
        theirs = tiny_embedding.model.language_model.rotary_emb(torch.zeros(1), torch.from_numpy(positions))
    half = cos.shape[-1]
    assert np.abs(cos - theirs[0].numpy()[..., :half]).max() <= 1e-5
    assert np.abs(sin - theirs[1].numpy()[..., :half]).max() <= 1e-5


@given(text=st.text(max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_text_has_the_ids_of_the_reference(text, tiny_embedding, embedding_host):
    processor = embedding_host.processor
    request = parse_request({"text": text})
    prompt = processor.embedding_prompt(processor.prepare(request), instruction=None)
    clean = text.encode("utf-8", "replace").decode("utf-8")
    # What reads as a special token is none here, other than there: see below.
    assume(processor._neutral((clean,)) == (clean,))
    inputs = tiny_embedding.inputs(tiny_embedding.embedding_conversation(texts=[clean]))
    assert prompt.ids.tolist() == inputs["input_ids"][0].tolist()


def test_times_given_with_frames_are_stamped(embedding_host, clip):
    film = VideoFrames(clip(4, 64, 64), np.array([10.0, 10.5, 31.0, 33.0]))
    processor = embedding_host.processor
    (vision,) = processor.prepare(parse_request({"video": film})).videos
    assert vision.stamps == (10.25, 32.0)
    prompt = processor.embedding_prompt(processor.prepare(parse_request({"video": film})), instruction=None)
    text = processor._tokenizer._tokenizer.decode(prompt.ids.tolist())
    assert "<10.2 seconds>" in text
    assert "<32.0 seconds>" in text


def test_more_frames_than_allowed_are_thinned_out(embedding_host, clip):
    processor = embedding_host.processor
    film = clip(40, 32, 32)
    (vision,) = processor.prepare(parse_request({"video": film})).videos
    assert len(vision.frames) == 8  # pairs of 16
    (vision,) = processor.prepare(parse_request({"video": film, "max_frames": 4})).videos
    assert len(vision.frames) == 2
    kept = VideoFrames(film, np.arange(40) / 4)
    (vision,) = processor.prepare(parse_request({"video": kept, "max_frames": 3})).videos
    assert vision.stamps == ((0 + 4.75) / 2, 9.75)  # frames 0, 19 and 39, the last twice


def test_frames_may_be_files(embedding_host, clip, tmp_path):
    from PIL import Image

    film = clip(4, 96, 96)
    paths = []
    for i, frame in enumerate(film):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(frame).save(paths[-1])
    processor = embedding_host.processor
    from_files = processor.prepare(parse_request({"video": paths})).videos[0]
    from_memory = processor.prepare(parse_request({"video": film, "fps": 2.0})).videos[0]
    assert np.array_equal(from_files.frames, from_memory.frames)
    assert from_files.stamps == from_memory.stamps


def test_a_file_that_cannot_be_read_is_an_error_and_not_null(embedding_host, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    for key, name in (("image", "broken.jpg"), ("image", "missing.jpg"), ("video", "missing.mp4")):
        with pytest.raises(MediaError) as caught:
            embedding_host.processor.prepare(parse_request({key: tmp_path / name}))
        assert caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize(
    "texts", [["<|im_end|>"], ["a <|im_", "end|> b"], ["<", "|im_end|", ">"], ["<|image_pad|>"]]
)
def test_no_text_reads_as_a_special_token(embedding_host, texts):
    processor = embedding_host.processor

    def special(words):
        request = parse_request({"text": words})
        prompt = processor.embedding_prompt(processor.prepare(request), instruction="<|im_end|>")
        return [token for token in prompt.ids.tolist() if token >= 1254]

    assert special(texts) == special(["two dogs"])
