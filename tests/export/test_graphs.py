"""The two graphs and the numpy reference against transformers, on qvl-tiny and on other shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from qvl_local.export.checkpoint import EMBEDDINGS, Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.graph import Graph
from qvl_local.export.onnx_file import ElementType, Model, write_model
from qvl_local.export.recipe import PRECISIONS
from qvl_local.export.reference import DecoderInputs, VisionInputs, run_decoder, run_vision
from qvl_local.export.vision import build_vision
from qvl_local.runtime.model.positions import patch_positions, token_positions, token_rotary

SHAPES: dict[str, dict[str, Any]] = {
    "default": {},
    "vision heads of 72": {"vision_hidden": 144, "vision_heads": 2, "vision_intermediate": 150},
    "eight query heads a group": {"heads": 8, "kv_heads": 1, "head_dim": 16},
    "every head its own keys": {"heads": 3, "kv_heads": 3, "head_dim": 24, "hidden": 40},
    "untied head, bfloat16": {"tied": False, "dtype": "bfloat16"},
    "deepstack to the last decoder layer": {"layers": 3, "deepstack": (0, 1, 2)},
    "deepstack in another order of depth": {"vision_depth": 5, "deepstack": (4, 1)},
    "more deepstack than layers": {"layers": 2, "deepstack": (0, 1, 2)},
    "no deepstack": {"deepstack": ()},
    "one layer": {"layers": 1, "deepstack": (1,)},
}

Prompt = list[tuple[str, int] | tuple[str, int, int, int]]
BATCHES: dict[str, list[Prompt]] = {
    "text": [[("text", 9)]],
    "image": [[("text", 5), ("image", 1, 8, 12), ("text", 7)]],
    "several images": [[("text", 3), ("image", 1, 8, 6), ("text", 2), ("image", 1, 4, 10), ("text", 4)]],
    "video": [[("text", 4), ("video", 3, 6, 8), ("text", 6)]],
    "padded": [
        [("text", 4), ("video", 2, 6, 8), ("image", 1, 10, 6), ("text", 3)],
        [("text", 11)],
        [("image", 1, 14, 10), ("text", 4)],
    ],
}


@pytest.fixture(params=["tiny embedder", "tiny reranker", *SHAPES])
def folder(
    request: pytest.FixtureRequest, tiny: dict[str, Path], random_checkpoint: Callable[..., Path]
) -> Path:
    name: str = request.param
    if name.startswith("tiny"):
        return tiny[name.removeprefix("tiny ")]
    return random_checkpoint(**SHAPES[name])


def test_fp32_graphs_equal_transformers(folder: Path, oracle: Callable[[Path], Any], tmp_path: Path) -> None:
    checkpoint, model = Checkpoint(folder), oracle(folder)
    run = graph_runner(checkpoint, "fp32", tmp_path)
    for name, batch in BATCHES.items():
        _agree(pool(checkpoint, batch, run), transformers_pool(model, checkpoint, batch), 1e-4, 0.99999, name)


def test_numpy_reference_equals_transformers(folder: Path, oracle: Callable[[Path], Any]) -> None:
    checkpoint, model = Checkpoint(folder), oracle(folder)
    for name, batch in BATCHES.items():
        actual = pool(checkpoint, batch, reference_runner(checkpoint))
        _agree(actual, transformers_pool(model, checkpoint, batch), 1e-4, 0.99999, name)


@pytest.mark.parametrize("shape", ["default", "vision heads of 72", "untied head, bfloat16"])
def test_fp16_graphs_stay_within_their_tolerance(
    shape: str, random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = Checkpoint(random_checkpoint(**SHAPES[shape]))
    run = graph_runner(checkpoint, "fp16", tmp_path)
    tolerance = PRECISIONS["fp16"].tolerance
    for name, batch in BATCHES.items():
        expected = pool(checkpoint, batch, reference_runner(checkpoint))
        unit = [
            x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (pool(checkpoint, batch, run), expected)
        ]
        _agree(unit[0], unit[1], tolerance.max_abs_diff, tolerance.min_cosine, name)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("shape", ["default", "no deepstack", "one layer"])
def test_graphs_are_valid_onnx(
    shape: str, precision: str, random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = Checkpoint(random_checkpoint(**SHAPES[shape]))
    for build in (build_vision, build_decoder):
        write_model(build(checkpoint, PRECISIONS[precision].graph), tmp_path / "graph.onnx")
        onnx.checker.check_model(tmp_path / "graph.onnx")


def test_a_weight_used_twice_is_stored_once() -> None:
    graph = Graph("graph")
    shape = (4,)
    first = graph.weight("factors", ElementType.FLOAT, shape, lambda: np.ones(shape, np.float32))
    again = graph.weight("factors", ElementType.FLOAT, shape, lambda: np.ones(shape, np.float32))
    y = graph.op("Mul", [first, again], at="/y")
    model = graph.finish({"y": (y, ElementType.FLOAT, shape)})
    assert [weight.name for weight in model.weights] == ["factors"]
    assert model.nodes[0].inputs == ("factors", "factors")
    with pytest.raises(ValueError, match="factors: is FLOAT"):
        graph.weight("factors", ElementType.FLOAT16, shape, lambda: np.ones(shape, np.float16))


def test_inputs_and_outputs_are_as_the_session_contract_says(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = Checkpoint(random_checkpoint())
    for precision in PRECISIONS:
        vision = load(build_vision(checkpoint, PRECISIONS[precision].graph), tmp_path)
        decoder = load(build_decoder(checkpoint, PRECISIONS[precision].graph), tmp_path)
        assert {arg.name: arg.type for arg in vision.get_inputs()} == {
            "patches": "tensor(float)",
            "pos_idx": "tensor(int64)",
            "pos_w": "tensor(float)",
            "cos": "tensor(float)",
            "sin": "tensor(float)",
        }
        assert {arg.name: arg.type for arg in decoder.get_inputs()} == {
            "embeds": "tensor(float)",
            "cos": "tensor(float)",
            "sin": "tensor(float)",
            "deepstack": "tensor(float)",
            "last": "tensor(int64)",
        }
        outputs = [*vision.get_outputs(), *decoder.get_outputs()]
        assert [(arg.name, arg.type) for arg in outputs] == [
            ("features", "tensor(float)"),
            ("deepstack", "tensor(float)"),
            ("pooled", "tensor(float)"),
        ]


def test_text_alone_may_pass_one_zero_for_deepstack(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = Checkpoint(random_checkpoint(**SHAPES["deepstack to the last decoder layer"]))
    decoder = load(build_decoder(checkpoint, PRECISIONS["fp32"].graph), tmp_path)
    feeds = decoder_inputs(checkpoint, [[("text", 6)], [("text", 3)]], reference_runner(checkpoint)[0])
    full = decoder.run(None, asdict(feeds))[0]
    short = np.zeros((3, 1, 1, checkpoint.config.text.hidden_size), np.float32)
    assert np.array_equal(decoder.run(None, asdict(feeds) | {"deepstack": short})[0], full)


def test_a_row_does_not_feel_its_neighbours_or_its_padding(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = Checkpoint(random_checkpoint())
    run = graph_runner(checkpoint, "fp32", tmp_path)
    vision, decoder = run
    feeds = decoder_inputs(checkpoint, BATCHES["padded"], vision)
    together = decoder(feeds)
    rubbish = feeds.embeds.copy()
    for row, last in enumerate(feeds.last):
        rubbish[row, last + 1 :] = 1e3
    polluted = DecoderInputs(rubbish, feeds.cos, feeds.sin, feeds.deepstack, feeds.last)
    assert np.abs(decoder(polluted) - together).max() < 1e-5
    for row, last in enumerate(feeds.last):
        end = int(last) + 1
        one = DecoderInputs(
            embeds=feeds.embeds[row : row + 1, :end],
            cos=feeds.cos[row : row + 1, :end],
            sin=feeds.sin[row : row + 1, :end],
            deepstack=feeds.deepstack[:, row : row + 1, :end],
            last=feeds.last[row : row + 1],
        )
        assert np.abs(decoder(one)[0] - together[row]).max() < 1e-5


def test_nodes_are_named_like_paths(tiny: dict[str, Path]) -> None:
    checkpoint = Checkpoint(tiny["embedder"])
    decoder = build_decoder(checkpoint, PRECISIONS["fp32"].graph)
    vision = build_vision(checkpoint, PRECISIONS["fp32"].graph)
    names = [node.name for model in (decoder, vision) for node in model.nodes]
    assert len(names) == len(set(names))
    assert "/layers.3/self_attn/q_proj/MatMul" in names
    assert "/layers.0/self_attn/GroupQueryAttention" in names
    assert "/blocks.5/attn/MultiHeadAttention" in names


# ---- both sides of the comparison ----

Vision = Callable[[VisionInputs], dict[str, NDArray[np.float32]]]
Decoder = Callable[[DecoderInputs], NDArray[np.float32]]


def graph_runner(checkpoint: Checkpoint, precision: str, folder: Path) -> tuple[Vision, Decoder]:
    vision = load(build_vision(checkpoint, PRECISIONS[precision].graph), folder)
    decoder = load(build_decoder(checkpoint, PRECISIONS[precision].graph), folder)
    names = [arg.name for arg in vision.get_outputs()]
    return (
        lambda feeds: dict(zip(names, vision.run(names, asdict(feeds)))),
        lambda feeds: decoder.run(None, asdict(feeds))[0],
    )


def reference_runner(checkpoint: Checkpoint) -> tuple[Vision, Decoder]:
    return (
        lambda feeds: asdict(run_vision(checkpoint, [feeds])[0]),
        lambda feeds: run_decoder(checkpoint, [feeds])[0],
    )


def load(model: Model, folder: Path) -> Any:
    write_model(model, folder / f"{model.name}.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(folder / f"{model.name}.onnx"), options, providers=["CPUExecutionProvider"]
    )


def pool(checkpoint: Checkpoint, batch: list[Prompt], run: tuple[Vision, Decoder]) -> NDArray[np.float32]:
    return run[1](decoder_inputs(checkpoint, batch, run[0]))


def decoder_inputs(checkpoint: Checkpoint, batch: list[Prompt], vision: Vision) -> DecoderInputs:
    config = checkpoint.config
    rows = [tokens(checkpoint, prompt) for prompt in batch]
    longest = max(map(len, rows))
    ids = np.zeros((len(rows), longest), np.int64)
    positions = np.zeros((3, *ids.shape), np.int64)
    for row, (prompt, one) in enumerate(zip(batch, rows)):
        ids[row, : len(one)] = one
        visual = np.isin(one, [config.image_token_id, config.video_token_id])
        grids = [(p[2] // 2, p[3] // 2) for p in prompt if len(p) == 4 for _ in range(p[1])]
        positions[:, row, : len(one)] = token_positions(visual, grids)
    embeds = checkpoint.stored(EMBEDDINGS).rows(ids)
    levels, width = len(config.vision.deepstack_layers), config.text.hidden_size
    deepstack = np.zeros((levels, *embeds.shape), np.float32)
    is_visual = np.isin(ids, [config.image_token_id, config.video_token_id])
    if is_visual.any():
        seen = [vision(call) for call in vision_inputs(checkpoint, batch)]
        embeds[is_visual] = np.concatenate([one["features"].reshape(-1, width) for one in seen])
        for level in range(levels):
            deepstack[level, is_visual] = np.concatenate(
                [one["deepstack"][level].reshape(-1, width) for one in seen]
            )
    cos, sin = token_rotary(positions, config.text)
    return DecoderInputs(embeds, cos, sin, deepstack, np.array([len(one) - 1 for one in rows]))


def tokens(checkpoint: Checkpoint, prompt: Prompt) -> NDArray[np.int64]:
    """Ids as transformers 4.57 lays them out: every frame pair is a vision group of its own."""
    config = checkpoint.config
    generator = np.random.default_rng(len(prompt))
    ids: list[int] = []
    for part in prompt:
        if len(part) == 2:
            ids += generator.integers(1, 900, part[1]).tolist()
            continue
        kind, count, rows, columns = part
        token = config.image_token_id if kind == "image" else config.video_token_id
        for _ in range(count):
            stamp = [] if kind == "image" else generator.integers(1, 900, 3).tolist()
            ids += [*stamp, config.vision_start_token_id, *[token] * (rows * columns // 4)]
            ids.append(config.vision_end_token_id)
    return np.array(ids, np.int64)


def pixels(checkpoint: Checkpoint, part: tuple[str, int, int, int]) -> NDArray[np.float32]:
    kind, count, rows, columns = part
    generator = np.random.default_rng(rows * 100 + columns + (kind == "video"))
    return generator.uniform(-1, 1, (count, rows * columns, checkpoint.config.vision.patch_dim)).astype(
        np.float32
    )


def vision_inputs(checkpoint: Checkpoint, batch: list[Prompt]) -> list[VisionInputs]:
    calls = []
    for part in (part for prompt in batch for part in prompt if len(part) == 4):
        place = patch_positions(part[2], part[3], checkpoint.config.vision)
        calls.append(VisionInputs(pixels(checkpoint, part), place.index, place.weight, place.cos, place.sin))
    return calls


def transformers_pool(model: Any, checkpoint: Checkpoint, batch: list[Prompt]) -> NDArray[np.float32]:
    """The last token's state by transformers, from ids, grids and pixels alone."""
    rows = [tokens(checkpoint, prompt) for prompt in batch]
    longest = max(map(len, rows))
    feeds: dict[str, Any] = {
        "input_ids": torch.zeros(len(rows), longest, dtype=torch.long),
        "attention_mask": torch.zeros(len(rows), longest, dtype=torch.long),
    }
    for row, one in enumerate(rows):
        feeds["input_ids"][row, : len(one)] = torch.from_numpy(one)
        feeds["attention_mask"][row, : len(one)] = 1
    for kind, values, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        parts = [part for prompt in batch for part in prompt if part[0] == kind]
        if parts:
            flat = [
                pixels(checkpoint, part).reshape(-1, checkpoint.config.vision.patch_dim) for part in parts
            ]
            feeds[values] = torch.from_numpy(np.concatenate(flat))
            feeds[grid] = torch.tensor([part[1:] for part in parts])
    with torch.no_grad():
        model.model.rope_deltas = None
        states = model.model(**feeds, use_cache=False).last_hidden_state.numpy()
    return states[np.arange(len(rows)), [len(one) - 1 for one in rows]]


def _agree(
    actual: NDArray[np.float32], expected: NDArray[np.float32], difference: float, cosine: float, name: str
) -> None:
    assert actual.shape == expected.shape, name
    assert np.abs(actual - expected).max() <= difference, name
    norms = np.linalg.norm(actual, axis=-1) * np.linalg.norm(expected, axis=-1)
    assert (np.sum(actual * expected, axis=-1) / norms).min() >= cosine, name
