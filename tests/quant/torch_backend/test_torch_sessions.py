"""The two torch sessions against the numpy reference: shapes of model, dresses of checkpoint, and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qvl_local.export.checkpoint import EMBEDDINGS, Checkpoint
from qvl_local.export.reference import DecoderInputs, VisionInputs, run_decoder, run_vision
from qvl_local.quant.torch_backend.load import Towers, load_towers
from qvl_local.quant.torch_backend.session import DecoderSession, VisionSession
from qvl_local.quant.torch_backend.weights import MappedWeights, read_answer_head
from qvl_local.runtime.errors import CheckpointError, ModelError, ModelMemoryError
from qvl_local.runtime.model.positions import patch_positions, token_rotary
from safetensors.numpy import load_file, save_file

CPU = torch.device("cpu")
SHAPES: dict[str, dict[str, Any]] = {
    "default": {},
    "vision heads of 72": {"vision_hidden": 144, "vision_heads": 2, "vision_intermediate": 150},
    "eight query heads a group": {"heads": 8, "kv_heads": 1, "head_dim": 16},
    "deepstack in another order of depth": {"vision_depth": 5, "deepstack": (4, 1)},
    "more deepstack than layers": {"layers": 2, "deepstack": (0, 1, 2)},
    "no deepstack": {"deepstack": ()},
}
DRESSES: dict[str, dict[str, Any]] = {
    "without the prefix": {"prefix": ""},
    "in shards": {"shards": 3},
    "rotary settings of transformers 5": {"rope": "5"},
    "untied head, bfloat16": {"tied": False, "dtype": "bfloat16"},
}


def vision_inputs(checkpoint: Checkpoint, *, images: int, rows: int, columns: int) -> VisionInputs:
    vision = checkpoint.config.vision
    place = patch_positions(rows, columns, vision)
    patches = np.random.default_rng(1).normal(size=(images, rows * columns, vision.patch_dim))
    return VisionInputs(patches.astype(np.float32), place.index, place.weight, place.cos, place.sin)


def decoder_inputs(checkpoint: Checkpoint, lengths: tuple[int, ...]) -> DecoderInputs:
    """Padded rows of random tokens and deepstack features."""
    text = checkpoint.config.text
    generator = np.random.default_rng(2)
    batch, longest = len(lengths), max(lengths)
    levels = len(checkpoint.config.vision.deepstack_layers)
    ids = generator.integers(0, text.vocab_size, (batch, longest))
    positions = np.cumsum(generator.integers(0, 2, (3, batch, longest)), axis=-1)
    cos, sin = token_rotary(positions, text)
    return DecoderInputs(
        embeds=checkpoint.float32(EMBEDDINGS)[ids],
        cos=cos,
        sin=sin,
        deepstack=generator.normal(size=(levels, batch, longest, text.hidden_size)).astype(np.float32),
        last=np.array(lengths) - 1,
    )


def load(folder: Path) -> Towers:
    return load_towers(folder, MappedWeights(folder), precision="fp32", device=CPU)


def open_sessions(folder: Path) -> tuple[VisionSession, DecoderSession]:
    towers = load(folder)
    return VisionSession(towers, CPU), DecoderSession(towers, CPU)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    if expected.size:
        assert np.abs(actual - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("options", [*SHAPES.values(), *DRESSES.values()], ids=[*SHAPES, *DRESSES])
def test_both_sessions_equal_the_reference(
    options: dict[str, Any], random_checkpoint: Callable[..., Path]
) -> None:
    folder = random_checkpoint(**options)
    checkpoint = Checkpoint(folder)
    vision, decoder = open_sessions(folder)

    images = vision_inputs(checkpoint, images=3, rows=6, columns=4)
    expected = run_vision(checkpoint, [images])[0]
    seen = vision.run(asdict(images))
    assert_close(seen["features"], expected.features)
    assert_close(seen["deepstack"], expected.deepstack)

    rows = decoder_inputs(checkpoint, (9, 4, 1))
    assert_close(decoder.run(asdict(rows))["pooled"], run_decoder(checkpoint, [rows])[0])


def test_text_alone_passes_one_zero_for_deepstack(random_checkpoint: Callable[..., Path]) -> None:
    folder = random_checkpoint()
    checkpoint = Checkpoint(folder)
    _, decoder = open_sessions(folder)
    feeds = asdict(decoder_inputs(checkpoint, (7, 3)))
    full = decoder.run(feeds | {"deepstack": np.zeros_like(feeds["deepstack"])})["pooled"]
    short = np.zeros((2, 1, 1, checkpoint.config.text.hidden_size), np.float32)
    assert np.array_equal(decoder.run(feeds | {"deepstack": short})["pooled"], full)


def test_read_only_inputs_are_taken(random_checkpoint: Callable[..., Path]) -> None:
    folder = random_checkpoint()
    feeds = asdict(decoder_inputs(Checkpoint(folder), (5,)))
    for values in feeds.values():
        values.flags.writeable = False
    assert open_sessions(folder)[1].run(feeds)["pooled"].shape == (1, 64)


@pytest.mark.parametrize("options", [{}, *DRESSES.values()], ids=["default", *DRESSES])
def test_rows_and_head_are_the_checkpoints(
    options: dict[str, Any], random_checkpoint: Callable[..., Path]
) -> None:
    folder = random_checkpoint(role="reranker", **options)
    checkpoint = Checkpoint(folder)
    weights = MappedWeights(folder)
    table = weights.rows(EMBEDDINGS)
    ids = np.array([3, 0, 17, 3])
    assert table.shape == (checkpoint.config.text.vocab_size, checkpoint.config.text.hidden_size)
    assert np.array_equal(table[ids], checkpoint.float32(EMBEDDINGS)[ids])
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    head = checkpoint.float32(checkpoint.head_name())
    expected = head[words["yes"]] - head[words["no"]]
    assert np.array_equal(read_answer_head(weights, folder, tied=checkpoint.config.text.tied_head), expected)


# ---- what goes wrong ----


@pytest.fixture
def copied(random_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(random_checkpoint(), tmp_path / "checkpoint"))


def test_a_missing_tensor_is_an_error(copied: Path) -> None:
    weights = copied / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.language_model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack language_model\.layers\.1\.mlp\.up_proj\.weight"):
        load(copied)


def test_a_tensor_of_another_shape_is_an_error(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["intermediate_size"] += 8
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match="the weights have other shapes than config"):
        load(copied)


def test_damaged_weights_are_an_error_that_names_the_file(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        load(copied)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        load(copied)


def test_an_index_that_leads_elsewhere_is_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.rename(copied.parent / "elsewhere.safetensors")
    index = {"weight_map": {"model.visual.patch_embed.proj.bias": "../elsewhere.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match="outside the folder"):
        load(copied)


class HungryLayer(torch.nn.Module):
    """Asks the real allocator for 256 TB."""

    def forward(self, x: torch.Tensor, **_options: Any) -> torch.Tensor:
        return x + torch.empty(1 << 46)[0]


class BrokenLayer(torch.nn.Module):
    """Fails as torch does on shapes that do not fit."""

    def forward(self, x: torch.Tensor, **_options: Any) -> torch.Tensor:
        return x @ torch.zeros(3, 5)


def test_memory_that_runs_out_is_told_apart_from_failures(random_checkpoint: Callable[..., Path]) -> None:
    folder = random_checkpoint()
    feeds = asdict(decoder_inputs(Checkpoint(folder), (5,)))
    towers = load(folder)
    session = DecoderSession(towers, CPU)
    towers.decoder.layers[1] = HungryLayer()
    with pytest.raises(ModelMemoryError, match="the decoder does not fit into the memory of cpu"):
        session.run(feeds)
    towers.decoder.layers[1] = BrokenLayer()
    with pytest.raises(ModelError, match="failed to run the decoder") as caught:
        session.run(feeds)
    assert not isinstance(caught.value, ModelMemoryError)
