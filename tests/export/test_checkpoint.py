"""Checkpoints in every dress, exact values, and damage that is named."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from qvl_local.export.checkpoint import EMBEDDINGS, HEAD, Checkpoint
from qvl_local.runtime.errors import CheckpointError
from qvl_local.runtime.model.tensor_names import canonical_name
from safetensors.numpy import load_file, save_file

Q_PROJ = "language_model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(random_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(random_checkpoint(), tmp_path / "checkpoint"))


def rename(folder: Path, change: Callable[[str], str]) -> None:
    file = folder / "model.safetensors"
    save_file({change(name): values for name, values in load_file(file).items()}, file)


def contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {name: checkpoint.float32(name).tobytes() for name in checkpoint.names()}


def text_only(name: str) -> str:
    """The decoder's tensors as the bare decoder and older versions name them."""
    return name.replace("model.language_model.", "model.")


@pytest.mark.parametrize(
    "dress",
    [
        pytest.param(lambda name: name.removeprefix("model."), id="no prefix"),
        pytest.param(lambda name: "model." + name, id="prefix twice"),
        pytest.param(text_only, id="decoder under model."),
        pytest.param(lambda name: text_only(name).removeprefix("model."), id="bare decoder"),
        pytest.param(
            lambda name: name.removeprefix("model.").replace("language_model.", "language_model.model."),
            id="model inside language_model",
        ),
    ],
)
def test_tensor_names_in_every_dress(
    dress: Callable[[str], str], folder: Path, random_checkpoint: Callable[..., Path]
) -> None:
    rename(folder, dress)
    plain = Checkpoint(random_checkpoint())
    dressed = Checkpoint(folder)
    assert dressed.names() == plain.names()
    assert contents(dressed) == contents(plain)
    assert dressed.content_hash() == plain.content_hash()


def test_canonical_names_of_a_head() -> None:
    assert canonical_name("lm_head.weight") == "lm_head.weight"
    assert canonical_name("model.lm_head.weight") == "lm_head.weight"
    assert canonical_name("language_model.lm_head.weight") == "lm_head.weight"


def test_shards_hold_the_same_checkpoint(random_checkpoint: Callable[..., Path]) -> None:
    sharded = random_checkpoint(shards=3)
    assert not (sharded / "model.safetensors").exists()
    assert Checkpoint(sharded).content_hash() == Checkpoint(random_checkpoint()).content_hash()


def test_one_file_wins_over_a_stale_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "gone.safetensors"}}')
    assert Q_PROJ in Checkpoint(folder)


def test_both_dialects_of_rope(random_checkpoint: Callable[..., Path]) -> None:
    assert Checkpoint(random_checkpoint(rope="5")).config == Checkpoint(random_checkpoint()).config


def test_content_hash_changes_with_one_bit(folder: Path, random_checkpoint: Callable[..., Path]) -> None:
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    assert Checkpoint(folder).content_hash() != Checkpoint(random_checkpoint()).content_hash()


def test_content_hash_covers_settings_names_types_and_shapes(folder: Path) -> None:
    file, last = folder / "model.safetensors", "model.visual.pos_embed.weight"
    tensors = load_file(file)
    values = tensors.pop(last)
    hashes = [Checkpoint(folder).content_hash()]
    for name, stored in (
        ("model.visual.pos_embed2.weight", values),
        (last, values.reshape(values.shape[::-1])),
        (last, values.view(np.float16)),
        (last, values.view(np.float16).view(ml_dtypes.bfloat16)),
    ):
        save_file({**tensors, name: stored}, file)
        hashes.append(Checkpoint(folder).content_hash())
    settings = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(settings + "\n", encoding="utf-8")
    hashes.append(Checkpoint(folder).content_hash())
    assert len(set(hashes)) == 6


def test_content_hash_reports_progress(random_checkpoint: Callable[..., Path]) -> None:
    fractions: list[float] = []
    Checkpoint(random_checkpoint()).content_hash(fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


# ---- exact values ----


def test_every_bfloat16_is_widened_exactly(folder: Path) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    replace_tensor(folder, "model.language_model.norm.weight", bits)
    values = Checkpoint(folder).float32("language_model.norm.weight")
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert values.dtype == np.float32
    assert np.array_equal(values.view(np.uint32), expected.view(np.uint32))


def test_float16_is_widened_exactly(folder: Path) -> None:
    bits = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    replace_tensor(folder, "model.language_model.norm.weight", bits)
    assert np.array_equal(Checkpoint(folder).float32("language_model.norm.weight"), bits.astype(np.float64))


def test_float32_is_a_view_of_the_file(random_checkpoint: Callable[..., Path]) -> None:
    values = Checkpoint(random_checkpoint()).float32(Q_PROJ)
    assert isinstance(values, np.memmap)
    assert not values.flags.writeable


def test_rows_are_those_of_the_whole_table(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = Checkpoint(random_checkpoint(dtype="bfloat16"))
    rows = checkpoint.stored(EMBEDDINGS).rows(np.array([[3, 0], [1279, 3]]))
    assert np.array_equal(rows, checkpoint.float32(EMBEDDINGS)[[[3, 0], [1279, 3]]])


# ---- heads ----


def test_a_tied_head_is_the_embedding_table(random_checkpoint: Callable[..., Path]) -> None:
    assert Checkpoint(random_checkpoint(tied=True)).head_name() == EMBEDDINGS


def test_a_separate_head_is_used(random_checkpoint: Callable[..., Path]) -> None:
    assert Checkpoint(random_checkpoint(tied=False)).head_name() == HEAD


def test_a_separate_head_that_is_absent_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing from model\.safetensors"):
        Checkpoint(folder).head_name()


# ---- damage ----


def test_a_missing_tensor_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model." + Q_PROJ]
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder).float32(Q_PROJ)
    assert Q_PROJ in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor .*q_proj.* has shape \[128, 64\]"):
        Checkpoint(folder).stored(Q_PROJ, (64, 64))


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.999])
def test_a_cut_file_is_named(folder: Path, kept: float) -> None:
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    file.write_bytes(raw[: int(kept * len(raw)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*(cut short|is not a safetensors file)"):
        Checkpoint(folder)


def edit_header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the JSON header in place, padded to its old length so that offsets stay true."""
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    start = raw[8 + length :]
    file.write_bytes(struct.pack("<Q", len(text)) + text + start)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dtype", "I8", "is stored as I8"),
        ("dtype", "F8_E4M3", "is stored as F8_E4M3"),
        ("dtype", "BF16", "which is not"),
        ("shape", [1, 2, 3], "which is not"),
        ("shape", [-128, -64], "damaged"),
        ("shape", "wide", "damaged"),
        ("data_offsets", [5], "damaged"),
        ("data_offsets", [9, 3], "damaged"),
        ("data_offsets", [1 << 40, (1 << 40) + 128 * 64 * 4], "cut short"),
    ],
)
def test_a_header_that_lies_is_named(folder: Path, key: str, value: Any, message: str) -> None:
    edit_header(folder, lambda header: header["model." + Q_PROJ].update({key: value}))
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint(folder)
    assert "model.safetensors" in str(caught.value)
    assert Q_PROJ in str(caught.value)


def test_a_header_that_is_not_json(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"{no!" + bytes(64))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its header cannot be read"):
        Checkpoint(folder)


def test_a_missing_shard_is_named(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_checkpoint(shards=3), tmp_path / "checkpoint"))
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors: missing"):
        Checkpoint(folder)


def test_a_tensor_absent_from_its_shard_is_named(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_checkpoint(shards=2), tmp_path / "checkpoint"))
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["model.extra"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors: tensor model\.extra is"):
        Checkpoint(folder)


def test_an_index_that_leaves_the_folder_is_refused(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_checkpoint(shards=2), tmp_path / "checkpoint"))
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["model.extra"] = "../model.safetensors"
    index.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="outside the folder"):
        Checkpoint(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', '{"other": {}}'])
def test_a_damaged_index_is_named(random_checkpoint: Callable[..., Path], tmp_path: Path, text: str) -> None:
    folder = Path(shutil.copytree(random_checkpoint(shards=2), tmp_path / "checkpoint"))
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: cannot be read"):
        Checkpoint(folder)


def test_other_formats_are_not_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        Checkpoint(folder)


def test_a_vocabulary_without_tokenizer_json_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("")
    with pytest.raises(
        CheckpointError, match=r"no tokenizer\.json; vocab\.json with merges\.txt is not enough"
    ):
        Checkpoint(folder)


def test_a_path_that_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a folder"):
        Checkpoint(tmp_path / "nothing")


def replace_tensor(folder: Path, name: str, values: Any) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    assert name in tensors
    save_file(tensors | {name: values}, file)
