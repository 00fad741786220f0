"""config.json in both dialects, and what is refused."""

import json
from dataclasses import replace

import pytest
from qvl_local.runtime.errors import CheckpointError
from qvl_local.runtime.model.config import load_config, parse_config


@pytest.fixture
def raw(tiny_folder):
    return json.loads((tiny_folder / "embedding" / "config.json").read_text(encoding="utf-8"))


def test_tiny_is_read_in_full(tiny_folder):
    config = load_config(tiny_folder / "embedding")
    assert (config.text.hidden_size, config.text.num_heads, config.text.num_kv_heads) == (256, 4, 2)
    assert (config.text.rope_theta, config.text.mrope_section) == (100_000.0, (12, 10, 10))
    assert (config.vision.head_dim, config.vision.grid_side, config.vision.patch_dim) == (32, 16, 1536)
    assert config.vision.deepstack_layers == (1, 3, 4)
    assert config.text.tied_head


def test_the_dialect_of_transformers_5_says_the_same(raw):
    old = parse_config(raw, source="old")
    text = raw["text_config"]
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    assert parse_config(raw, source="new") == old


def test_what_may_be_left_out(raw):
    expected = parse_config(raw, source="x")
    del raw["text_config"]["rms_norm_eps"]
    del raw["vision_config"]["in_channels"]
    del raw["tie_word_embeddings"]
    assert parse_config(raw, source="x") == expected
    del raw["text_config"]["tie_word_embeddings"]
    assert parse_config(raw, source="x") == replace(expected, text=replace(expected.text, tied_head=False))


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        (None, "model_type", "qwen2_vl", "model_type is 'qwen2_vl', not 'qwen3_vl'"),
        ("text_config", "hidden_size", None, "x: "),
        ("text_config", "num_key_value_heads", 3, "4 heads cannot share 3 kv heads"),
        ("text_config", "head_dim", 128, "does not cover head_dim 128"),
        ("vision_config", "out_hidden_size", 128, "do not have the decoder's width"),
        ("vision_config", "num_heads", 3, "does not divide into its heads"),
        ("vision_config", "deepstack_visual_indexes", [1, 6], "outside the vision tower"),
    ],
)
def test_contradictions_are_named(raw, part, key, value, message):
    (raw if part is None else raw[part])[key] = value
    with pytest.raises(CheckpointError, match=message):
        parse_config(raw, source="x")


@pytest.mark.parametrize("key", ["rope_theta", "vocab_size", "num_hidden_layers"])
def test_missing_entries_are_named(raw, key):
    del raw["text_config"][key]
    with pytest.raises(CheckpointError, match=f"x: lacks '{key}'"):
        parse_config(raw, source="x")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        load_config(tmp_path)
