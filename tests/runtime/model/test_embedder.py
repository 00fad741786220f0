"""The embedder end to end, on exported bundles: transformers' vectors, batches, widths, laziness, errors."""

import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from qvl_local.runtime import Embedder
from qvl_local.runtime.errors import BundleError, InputError, MediaError
from qvl_local.runtime.model.bundle import open_bundle
from qvl_local.runtime.model.ort_engine import OrtEngine
from qvl_local.runtime.model.ort_session import SessionOptions
from qvl_local.runtime.model.pixels import fit_image_size
from qvl_local.runtime.model.video import VideoFrames


@pytest.fixture(scope="module")
def embedder():
    return Embedder.open("tiny", threads=1)


def test_a_brief_model_gives_the_same_vectors(embedder, picture):
    inputs = [{"text": "two dogs on a beach"}, {"image": picture(96, 128)}]
    brief = Embedder.open("tiny", threads=1, brief=True)
    assert np.abs(brief.embed(inputs) - embedder.embed(inputs)).max() <= 1e-5


@pytest.mark.parametrize(("precision", "entry"), [("fp32", "1"), ("int8", "0")])
def test_only_float32_weights_are_left_as_they_lie(embedder, precision, entry):
    part = replace(embedder.bundle.part("embedder"), decoder_precision=precision)
    manifest = replace(embedder.bundle.manifest, parts={"embedder": part})
    engine = OrtEngine(replace(embedder.bundle, manifest=manifest), "embedder", SessionOptions(brief=True))
    settings = engine.decoder()._session.get_session_options()
    assert settings.get_session_config_entry("session.disable_prepacking") == entry


def unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def assert_same(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-4
    assert (ours * theirs).sum(axis=-1).min() >= 0.99999


@pytest.fixture
def cases(picture, clip, tmp_path):
    """(input, what the oracle is given) for every kind of input, files among them."""
    photo, other, film, short = (
        picture(480, 640, 1),
        picture(200, 60, 2),
        clip(8, 96, 128, 3),
        clip(3, 70, 120, 4),
    )
    file = tmp_path / "photo.png"
    Image.fromarray(photo).save(file)
    frames = VideoFrames(film, np.arange(8) / 2)
    return [
        ({"text": "two dogs on a beach at night"}, {"texts": ["two dogs on a beach at night"]}),
        ({}, {}),
        (
            {"text": ["a", "狗 \U0001f415"], "instruction": "Find it"},
            {"texts": ["a", "狗 \U0001f415"], "instruction": "Find it."},
        ),
        ({"image": file}, {"images": [photo]}),
        ({"image": str(file), "text": "which?"}, {"images": [photo], "texts": ["which?"]}),
        (
            {"image": [photo, Image.fromarray(other), picture(32, 32)]},
            {"images": [photo, other, picture(32, 32)]},
        ),
        ({"video": frames}, {"films": [(film, 2.0)]}),
        ({"video": list(short), "fps": 4.0}, {"films": [(short, 4.0)]}),
        (
            {"text": "all", "image": [other, photo], "video": [frames, list(short)]},
            {"texts": ["all"], "images": [other, photo], "films": [(film, 2.0), (short, 2.0)]},
        ),
    ]


def by_oracle(oracle, given_):
    conversation = oracle.embedding_conversation(
        texts=given_.get("texts", ()),
        images=len(given_.get("images", ())),
        videos=len(given_.get("films", ())),
        **({"instruction": given_["instruction"]} if "instruction" in given_ else {}),
    )
    return unit(oracle.pooled(conversation, images=given_.get("images", ()), films=given_.get("films", ())))


def test_vectors_are_those_of_transformers_alone_and_in_a_batch(embedder, cases, tiny_embedding):
    theirs = np.stack([by_oracle(tiny_embedding, given_) for _, given_ in cases])
    together = embedder.embed([raw for raw, _ in cases])
    assert together.dtype == np.float32
    assert_same(together, theirs)
    alone = np.concatenate([embedder.embed([raw]) for raw, _ in cases])
    assert_same(alone, theirs)
    assert np.abs(alone - together).max() <= 1e-5


@pytest.mark.parametrize(
    "shape",
    [
        {
            "tied": False,
            "vision_hidden_size": 144,
            "vision_num_heads": 2,
            "vision_depth": 4,
            "vision_deepstack_visual_indexes": [0, 3],
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 32,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
        },
        {"vision_depth": 2, "vision_deepstack_visual_indexes": [1], "num_hidden_layers": 2, "seed": 5},
    ],
    ids=["vision head dim 72, untied", "one deepstack layer"],
)
def test_other_checkpoints_too(shape, cases, tmp_path, make_checkpoint, oracle_of):
    folder = make_checkpoint(tmp_path / "Some-Embedding", **shape)
    oracle = oracle_of(folder)
    ours = Embedder.open(folder, threads=1).embed([raw for raw, _ in cases])
    assert_same(ours, np.stack([by_oracle(oracle, given_) for _, given_ in cases]))


SIZES = st.tuples(st.integers(1, 200), st.integers(1, 200))
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(max_size=200),
        "image": st.lists(SIZES, max_size=2),
        "video": st.lists(st.tuples(st.integers(1, 6), SIZES), min_size=1, max_size=2),
        "instruction": st.sampled_from(["Find it", "Represent the picture."]),
    },
)


@given(raws=st.lists(INPUTS, min_size=2, max_size=4))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_batches_equal_singles(raws, embedder):
    def noise(*shape):
        return np.random.default_rng(shape).integers(0, 256, (*shape, 3)).astype(np.uint8)

    made = []
    for raw in raws:
        one = dict(raw)
        if "image" in one:
            one["image"] = [noise(*size) for size in one["image"]]
        if "video" in one:
            one["video"] = [noise(count, *size) for count, size in one["video"]]
        made.append(one)
    together = embedder.embed(made)
    alone = np.concatenate([embedder.embed([one]) for one in made])
    assert np.abs(together - alone).max() <= 1e-5
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() <= 1e-5


def test_waves_equal_one_batch(embedder, picture, monkeypatch):
    inputs = [{"image": picture(60 + 9 * i, 90, i)} for i in range(5)] + [{"text": "a"}, {"text": "b c d"}]
    together = embedder.embed(inputs)
    monkeypatch.setattr("qvl_local.runtime.model.loading.VISUAL_TOKENS_A_WAVE", 20)
    monkeypatch.setattr("qvl_local.runtime.model.encoder.TOKENS_A_RUN", 64)
    monkeypatch.setattr("qvl_local.runtime.model.encoder.PATCHES_A_RUN", 64)
    assert np.abs(embedder.embed(inputs) - together).max() <= 1e-5
    assert np.abs(embedder.embed(iter(inputs)) - together).max() <= 1e-5


def test_fewer_dimensions_are_a_prefix_normalised_again(embedder):
    full = embedder.embed([{"text": "two dogs"}])
    assert full.shape == (1, embedder.dims) == (1, embedder.max_dims)
    for dims in (1, 32, 64, 256):
        short = embedder.embed([{"text": "two dogs"}], dims=dims)
        assert short.shape == (1, dims)
        assert np.allclose(short, unit(full[:, :dims]), atol=1e-6)


@pytest.mark.parametrize("dims", [0, -1, 257, 2.0, True, "64"])
def test_impossible_widths_are_refused(embedder, dims):
    with pytest.raises(InputError, match="from 1 to 256"):
        embedder.embed([{"text": "a"}], dims=dims)


def test_no_input_gives_no_rows(embedder):
    assert embedder.embed([]).shape == (0, 256)


def test_a_bad_file_is_an_error_with_its_path(embedder, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff not really")
    with pytest.raises(MediaError) as caught:
        embedder.embed([{"text": "fine"}, {"image": bad}])
    assert caught.value.path == str(bad)


def test_a_text_of_100_000_characters_gives_a_vector(embedder):
    (row,) = embedder.embed([{"text": "two dogs " * 11_111}])
    assert abs(float(np.linalg.norm(row)) - 1) < 1e-5


def test_small_pictures_made_elsewhere_give_the_same_vector(embedder, picture):
    from qvl_local.runtime.model.image import fit_image
    from qvl_local.runtime.model.video import fit_frames

    photo = picture(700, 500)
    small = fit_image(photo, embedder.budget)
    assert small.shape[:2] == fit_image_size(700, 500, embedder.budget)
    film = VideoFrames(np.stack([photo] * 5), np.arange(5) / 2)
    rows = embedder.embed(
        [{"image": photo}, {"image": small}, {"video": film}, {"video": fit_frames(film, embedder.budget)}]
    )
    assert np.abs(rows[0] - rows[1]).max() <= 1e-6
    assert np.abs(rows[2] - rows[3]).max() <= 1e-6


def test_the_space_tells_models_and_budgets_apart(embedder):
    from dataclasses import replace

    assert embedder.space == Embedder.open("tiny").space
    smaller = Embedder.open("tiny", pixels=replace(embedder.budget, image_max_pixels=4096))
    assert smaller.space != embedder.space
    assert smaller.budget.image_max_pixels == 4096


def test_the_space_tells_chat_templates_apart(embedder, tmp_path):
    folder = shutil.copytree(embedder.bundle.path, tmp_path / "bundle")
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("assistant", "Assistant"), encoding="utf-8")
    other = Embedder.open(folder).space
    assert {key for key, value in other.items() if value != embedder.space[key]} == {"template"}


def test_unloading_is_only_a_pause(picture):
    embedder = Embedder.open("tiny", threads=1)
    first = embedder.embed([{"image": picture(64, 64)}])
    embedder.unload()
    assert np.array_equal(embedder.embed([{"image": picture(64, 64)}]), first)


def test_a_text_loads_no_more_than_it_needs(embedder):
    embedder.embed([{"text": "warm"}])  # the bundle and the rendered frame are in the cache now
    code = """
        import sys
        from qvl_local.runtime import Embedder
        assert "numpy" not in sys.modules or "onnxruntime" not in sys.modules
        embedder = Embedder.open("tiny", threads=1)
        assert "onnxruntime" not in sys.modules
        embedder.embed([{"text": "two dogs"}])
        heavy = {"PIL", "av", "jinja2", "torch", "transformers", "huggingface_hub", "pi_heif"}
        loaded = heavy & set(sys.modules)
        assert not loaded, loaded
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_text_never_opens_the_vision_graph(tmp_path, embedder, picture):
    shutil.copytree(embedder.bundle.path, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    graph = bundle.file(bundle.part("embedder").vision)
    graph.write_bytes(b"\xff" * graph.stat().st_size)
    damaged = Embedder.open(tmp_path / "bundle", threads=1)
    assert np.array_equal(damaged.embed([{"text": "a"}]), embedder.embed([{"text": "a"}]))
    with pytest.raises(BundleError, match="cannot be loaded"):
        damaged.embed([{"image": picture(64, 64)}])


def test_says_how_many_tokens_each_input_took(embedder, tiny_embedding):
    texts = ["two dogs", "two dogs on a beach at night", ""]
    counted = embedder.embed_counted([{"text": text} for text in texts], dims=64)
    conversations = [tiny_embedding.embedding_conversation(texts=[text]) for text in texts]
    expected = [tiny_embedding.inputs(conversation)["input_ids"].shape[1] for conversation in conversations]
    assert list(counted.tokens) == expected
    assert np.array_equal(counted.vectors, embedder.embed([{"text": text} for text in texts], dims=64))
