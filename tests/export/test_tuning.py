"""Tuning to data: outlier channels at true width, what is chosen for which layers, folders of pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image
from qvl_local.export.blocks import Precision
from qvl_local.export.calibration import (
    LayerInputs,
    _small,
    folder_examples,
    observe_inputs,
    world_examples,
)
from qvl_local.export.checkpoint import EMBEDDINGS, Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.linear import LinearFormat, Tuning
from qvl_local.export.onnx_file import write_model
from qvl_local.export.quantized import Int8Format
from qvl_local.export.recipe import PRECISIONS, Recipe, is_layer
from qvl_local.export.reference import DecoderInputs, run_decoder
from qvl_local.export.spool import open_spool
from qvl_local.export.tuning import _Tuner, format_of, tune, widest
from qvl_local.quant import compensation, int8, nf4, smoothing
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions
from qvl_local.runtime.model.pixels import load_budget
from qvl_local.runtime.model.positions import token_positions, token_rotary
from safetensors.numpy import load_file, save_file

# The 2B decoder's width, heads and MLP.
WIDE = {
    "hidden": 2048,
    "heads": 16,
    "kv_heads": 8,
    "head_dim": 128,
    "intermediate": 6144,
    "layers": 1,
    "dtype": "float16",
}


@pytest.fixture(scope="module")
def outliers(random_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint of the true width in whose activations a few channels are far larger than the others.

    A norm's scale or a projection's row is large, and the columns that the channel meets are small, but not
    as small as would undo it: so it is reported of the models' text towers.
    """
    folder = tmp_path_factory.mktemp("outliers")
    shutil.copytree(random_checkpoint(**WIDE), folder, dirs_exist_ok=True)
    tensors = {name: values.copy() for name, values in load_file(folder / "model.safetensors").items()}
    generator = np.random.default_rng(0)

    def raise_channels(source: str, readers: tuple[str, ...], size: int) -> None:
        channels = generator.choice(size, 8, replace=False)
        tensors[source][channels] *= np.float16(60)
        for reader in readers:
            tensors[reader][:, channels] *= np.float16(1 / 40)

    at = "model.language_model.layers.0"
    qkv = tuple(f"{at}.self_attn.{which}_proj.weight" for which in "qkv")
    raise_channels(f"{at}.input_layernorm.weight", qkv, 2048)
    both = (f"{at}.mlp.gate_proj.weight", f"{at}.mlp.up_proj.weight")
    raise_channels(f"{at}.post_attention_layernorm.weight", both, 2048)
    raise_channels(f"{at}.mlp.up_proj.weight", (f"{at}.mlp.down_proj.weight",), 6144)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return Checkpoint(folder)


def text_inputs(checkpoint: Checkpoint) -> DecoderInputs:
    """A batch of three texts of random tokens."""
    generator = np.random.default_rng(5)
    ids = generator.integers(1, 900, (3, 24))
    positions = np.stack([token_positions(np.zeros(24, np.bool_), []) for _ in ids], axis=1)
    cos, sin = token_rotary(positions, checkpoint.config.text)
    levels = len(checkpoint.config.vision.deepstack_layers)
    deepstack = np.zeros((levels, 1, 1, checkpoint.config.text.hidden_size), np.float32)
    return DecoderInputs(checkpoint.stored(EMBEDDINGS).rows(ids), cos, sin, deepstack, np.array([23, 11, 4]))


def lowest_cosine(checkpoint: Checkpoint, precision: Precision, folder: Path) -> float:
    feeds = text_inputs(checkpoint)
    expected = run_decoder(checkpoint, [feeds])[0]
    write_model(build_decoder(checkpoint, precision), folder / "decoder.onnx")
    onnx.checker.check_model(folder / "decoder.onnx")
    actual = OrtSession(folder / "decoder.onnx", SessionOptions(threads=1)).run(asdict(feeds))["pooled"]
    norms = np.linalg.norm(actual, axis=-1) * np.linalg.norm(expected, axis=-1)
    return float((np.sum(actual * expected, axis=-1) / norms).min())


def test_int8_holds_against_outlier_channels_at_true_width(outliers: Checkpoint, tmp_path: Path) -> None:
    recipe = Recipe.of("int8")
    linear = recipe.graph("decoder", outliers.names()).linear

    def decoder_only(weight: str) -> LinearFormat | None:
        return format_of(linear, weight) if weight.startswith("language_model.") else None

    with open_spool() as spool:
        tuning = tune(outliers, "embedder", world_examples(1), decoder_only, spool=spool)
    plain = lowest_cosine(outliers, PRECISIONS["int8"].graph, tmp_path)
    smoothed = lowest_cosine(outliers, recipe.graph("decoder", outliers.names(), tuning), tmp_path)
    assert smoothed >= 0.999
    assert plain < 0.99  # or the test shows nothing
    divided = {name for name, choice in tuning.items() if choice.divisor is not None}
    assert "language_model.layers.0.self_attn.q_proj.weight" in divided
    assert "language_model.layers.0.mlp.down_proj.weight" in divided


MIDDLE = "language_model.layers.1.mlp.down_proj.weight"


def decided(tiny: Mapping[str, Path], linear: LinearFormat, inputs: LayerInputs) -> Tuning:
    """What is chosen for one layer of qvl-tiny that was given these inputs."""
    with open_spool() as spool:
        tuner = _Tuner(Checkpoint(tiny["embedder"]), lambda _: linear, spool)
        tuner.visit(MIDDLE, inputs)
        tuner.finish()
        found = tuner.found[MIDDLE]
        return replace(found, packed=partial(tuple, found.packed())) if found.packed is not None else found


def loud_inputs(*, others: float) -> LayerInputs:
    """Inputs of `MIDDLE` with loud channels, which in the other examples are so many times as loud as usual;
    one is loud in no example of the first half.
    """
    rows = np.random.default_rng(0).standard_normal((400, 640)).astype(np.float32)
    other_rows = rows[:200].copy()
    rows[:, [3, 77, 200]] *= 80
    other_rows[:, [3, 77, 200]] *= others
    half = np.abs(rows).max(axis=0)
    absmax = half.copy()
    absmax[5] = 90
    return LayerInputs(absmax, rows, half, other_rows)


def test_a_divisor_that_serves_the_other_examples_is_made_from_all(tiny: dict[str, Path]) -> None:
    inputs = loud_inputs(others=80)
    divisor = decided(tiny, Int8Format(), inputs).divisor
    largest = np.abs(Checkpoint(tiny["embedder"]).float32(MIDDLE)).max(axis=0)
    possible = [smoothing.outlier_divisor(inputs.absmax, largest, one) for one in smoothing.OUTLIER_STRENGTHS]
    assert divisor is not None
    assert any(np.array_equal(divisor, one) for one in possible)


def test_a_divisor_that_does_not_serve_the_other_examples_is_not_taken(tiny: dict[str, Path]) -> None:
    assert decided(tiny, Int8Format(), loud_inputs(others=1)).divisor is None


def test_int8_rows_are_rounded_in_view_of_what_they_are_given(tiny: dict[str, Path]) -> None:
    inputs = loud_inputs(others=80)
    choice = decided(tiny, Int8Format(fine=False, compensated=True), inputs)
    assert choice.divisor is not None
    assert choice.packed is not None
    weight = Checkpoint(tiny["embedder"]).float32(MIDDLE)
    expected = compensation.int8_weight(weight * choice.divisor, inputs.rows / choice.divisor)
    codes, scale = choice.packed()
    assert np.array_equal(codes, expected.values)
    assert np.array_equal(scale, expected.scale)


def test_static_scales_hold_the_inputs_of_both_models() -> None:
    one = {"a": Tuning("a", absmax=2.0), "b": Tuning("b", absmax=2.0), "c": Tuning("c")}
    other = {"a": Tuning("a", absmax=3.0), "b": Tuning("b", absmax=1.0), "c": Tuning("c", absmax=9.0)}
    found = widest(one, other)
    assert [choice.absmax for choice in found.values()] == [3.0, 2.0, None]


def tiny_tuning(tiny: Mapping[str, Path], precision: str) -> dict[str, Tuning]:
    linear = PRECISIONS[precision].graph.linear
    with open_spool() as spool:
        return tune(
            Checkpoint(tiny["embedder"]), "embedder", world_examples(2), lambda _: linear, spool=spool
        )


def test_layers_of_one_input_share_its_divisor(tiny: dict[str, Path]) -> None:
    tuning = tiny_tuning(tiny, "int8")
    for layer in range(4):
        at = f"language_model.layers.{layer}"
        q, k, v = (tuning[f"{at}.self_attn.{which}_proj.weight"] for which in "qkv")
        assert q.group == k.group == v.group
        assert q.divisor is k.divisor is v.divisor
        assert tuning[f"{at}.mlp.gate_proj.weight"].divisor is tuning[f"{at}.mlp.up_proj.weight"].divisor
        assert tuning[f"{at}.mlp.down_proj.weight"].group != q.group
    assert any(choice.divisor is not None for choice in tuning.values())


def test_every_layer_is_observed_once_and_in_order(tiny: dict[str, Path]) -> None:
    checkpoint = Checkpoint(tiny["reranker"])
    seen: dict[str, LayerInputs] = {}
    told: list[float] = []

    def visit(name: str, inputs: LayerInputs) -> None:
        assert name not in seen
        seen[name] = inputs

    observe_inputs(checkpoint, "reranker", world_examples(2), visit, rows=50, progress=told.append)
    assert set(seen) == {name for name in checkpoint.names() if is_layer(name)}
    assert told == sorted(told)
    assert told[-1] == 1
    for name, inputs in seen.items():
        columns = int(np.prod(checkpoint.stored(name).shape[1:]))
        assert inputs.absmax.shape == (columns,)
        assert len(inputs.rows) <= 50
        assert (np.abs(inputs.rows).max(axis=0) <= inputs.absmax).all()


def test_pictures_are_small_to_calibrate_with(tiny: dict[str, Path]) -> None:
    budget = replace(load_budget(tiny["embedder"]), image_min_pixels=200_000, image_max_pixels=1_000_000)
    small = _small(budget)
    assert small.image_min_pixels == small.image_max_pixels == 64 * 32 * 32


def test_what_some_examples_suggest_is_tried_on_others(tiny: dict[str, Path]) -> None:
    seen: dict[str, LayerInputs] = {}
    observe_inputs(Checkpoint(tiny["reranker"]), "reranker", world_examples(4), seen.__setitem__)
    unseen = 0
    for inputs in seen.values():
        assert (inputs.half_absmax <= inputs.absmax).all()
        unseen += bool((np.abs(inputs.other_rows) > inputs.half_absmax).any())
    assert unseen > len(seen) / 2  # what the others hold was not in the first half
    alone: dict[str, LayerInputs] = {}
    observe_inputs(Checkpoint(tiny["reranker"]), "reranker", world_examples(1), alone.__setitem__)
    assert all(np.array_equal(inputs.half_absmax, inputs.absmax) for inputs in alone.values())


def test_the_same_examples_give_the_same_choice(tiny: dict[str, Path]) -> None:
    one, other = tiny_tuning(tiny, "int8"), tiny_tuning(tiny, "int8")
    assert one.keys() == other.keys()
    for name, choice in one.items():
        assert same(choice.divisor, other[name].divisor)


def same(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))


def test_a_folder_of_pictures_calibrates(tiny: dict[str, Path], tmp_path: Path) -> None:
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (80, 120, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photo_{number}.jpg")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "photo_9.png").write_bytes(b"broken")
    examples = folder_examples(tmp_path, 3)
    assert [example.text for example in examples] == ["photo 0", "photo 2", "photo 4"]
    seen: dict[str, LayerInputs] = {}
    everything = folder_examples(tmp_path, 10)
    observe_inputs(Checkpoint(tiny["embedder"]), "embedder", everything, seen.__setitem__)
    assert len(seen) == 61


def test_a_folder_without_pictures_is_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        folder_examples(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    with pytest.raises(InputError, match="nothing to calibrate with"):
        observe_inputs(Checkpoint(tiny["embedder"]), "embedder", folder_examples(tmp_path), lambda *_: None)


def test_plain_recipes_are_not_tuned() -> None:
    for name in ("fp32", "fp16", "int8-weight", "int4", "nf4"):
        assert Recipe.of(name).tuned == ()


def test_codes_wait_in_the_spool_for_each_layer(tiny: dict[str, Path]) -> None:
    checkpoint = Checkpoint(tiny["embedder"])
    linear = PRECISIONS["nf4"].graph.linear
    names = [f"language_model.layers.1.mlp.{which}_proj.weight" for which in ("gate", "up", "down")]
    with open_spool() as spool:
        spool.keep(np.arange(21, dtype=np.uint8))  # something of another's
        tuning = tune(
            checkpoint,
            "embedder",
            world_examples(2),
            lambda name: linear if name in names else None,
            spool=spool,
        )
        assert list(tuning) == names
        for name in reversed(names):  # read in any order
            packed = tuning[name].packed
            assert packed is not None
            codes, scales = packed()
            weight = checkpoint.float32(name)
            plain = nf4.quantize(weight)
            assert np.array_equal(scales, plain.absmax)
            assert codes.shape == plain.codes.shape
            restored = nf4.dequantize(nf4.Nf4(codes, scales, weight.shape))
            assert 0.01 < np.linalg.norm(restored - weight) / np.linalg.norm(weight) < 0.2


def test_int8_rows_lose_less_on_pictures_that_they_were_not_rounded_for(tiny: dict[str, Path]) -> None:
    checkpoint = Checkpoint(tiny["embedder"])
    others: dict[str, LayerInputs] = {}
    examples = world_examples(6)
    with open_spool() as spool:
        linear = Int8Format(fine=True, compensated=True)
        tuning = tune(
            checkpoint,
            "embedder",
            examples[:4],
            lambda name: linear if name.startswith("language_model.") else None,
            spool=spool,
        )
        observe_inputs(checkpoint, "embedder", examples[4:], others.__setitem__)
        gained = {}
        for name, choice in tuning.items():
            assert choice.packed is not None
            codes, scale = choice.packed()
            divisor = np.float32(1) if choice.divisor is None else choice.divisor
            weight = checkpoint.float32(name).reshape(codes.shape)
            plain = int8.quantize_weight(weight * divisor)
            assert np.array_equal(scale, plain.scale)
            exact = others[name].rows @ weight.T
            lost = [
                np.linalg.norm((others[name].rows / divisor) @ int8.dequantize_weight(one).T - exact)
                for one in (int8.Int8Weight(codes, scale), plain)
            ]
            gained[name] = lost[0] / lost[1]
    assert np.median(list(gained.values())) < 0.8


def test_compensated_rows_take_a_divisor_only_where_it_serves_them(tiny: dict[str, Path]) -> None:
    name, examples = "language_model.layers.0.mlp.down_proj.weight", world_examples(32)

    def is_divided(linear: LinearFormat) -> bool:
        with open_spool() as spool:
            tuning = tune(
                Checkpoint(tiny["reranker"]),
                "reranker",
                examples,
                lambda weight: linear if weight == name else None,
                spool=spool,
            )
        return tuning[name].divisor is not None

    # Loud channels: one byte cannot hold the input undivided, two bytes can, and then only rows matter.
    assert is_divided(Int8Format(compensated=True))
    assert not is_divided(Int8Format(fine=True, compensated=True))


def test_pictures_tune_what_has_four_bits() -> None:
    for name in ("nf4", "int4"):
        assert Recipe.of(name).tuning_to_pictures().tuned == ("decoder",)
    assert Recipe.of("int8").tuning_to_pictures() == Recipe.of("int8")
    for name in ("fp32", "fp16", "int8-weight", "int8-dynamic"):
        with pytest.raises(InputError, match="nothing is tuned to pictures"):
            Recipe.of(name).tuning_to_pictures()
