"""Quantized bundles of qvl-tiny: parity, what the manifest says, and the ecosystem's int8 beside ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.export.calibration import world_examples
from qvl_local.export.checkpoint import EMBEDDINGS, Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.dynamic import quantize_dynamically
from qvl_local.export.onnx_file import write_model
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import PRECISIONS, Recipe
from qvl_local.runtime.model.bundle import Bundle, open_bundle
from qvl_local.runtime.model.checkpoints import Checkpoint as Source
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions
from qvl_local.runtime.model.positions import token_positions, token_rotary
from qvl_local.runtime.model.verify import verify_bundle


@pytest.fixture(scope="module")
def exported(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """A bundle of the embedder at a precision, made once."""
    made: dict[str, Bundle] = {}

    def get(precision: str) -> Bundle:
        if precision not in made:
            folder = tmp_path_factory.mktemp("bundles") / precision
            source = Source(path=tiny["embedder"], name="tiny/embedding")
            export_bundle({"embedder": source}, folder, recipe=Recipe.of(precision))
            made[precision] = open_bundle(folder)
        return made[precision]

    return get


@pytest.mark.parametrize("precision", ["int8", "int8-weight", "int4", "nf4"])
def test_a_bundle_passes_parity_and_says_what_it_is(
    precision: str, exported: Callable[[str], Bundle]
) -> None:
    bundle = exported(precision)
    part = bundle.part("embedder")
    assert (part.decoder_precision, part.table.dtype) == (precision, "float16")
    assert part.vision_precision == ("int8" if precision == "int8" else "int8-weight")
    assert part.calibration == ("sample world" if precision == "int8" else None)
    fine = {f"language_model.layers.{layer}.mlp.down_proj" for layer in range(4)}
    fine |= {f"visual.blocks.{block}.mlp.linear_fc2" for block in range(6)} | {"visual.patch_embed.proj"}
    mergers = ["visual.merger", *(f"visual.deepstack_merger_list.{level}" for level in range(3))]
    fine |= {f"{merger}.linear_fc{number}" for merger in mergers for number in (1, 2)}
    assert part.exceptions == (dict.fromkeys(fine, "int8-fine") if precision == "int8" else {})
    assert all(finding.ok for finding in verify_bundle(bundle))
    weights = bundle.file(part.decoder + "_data").stat().st_size
    parameters = 4 * (256 * 256 * 2 + 256 * 128 * 2 + 3 * 256 * 640)
    assert weights * 8 / parameters < {"int8": 8.5, "int8-weight": 8.6, "int4": 5.3, "nf4": 4.8}[precision]


def test_the_safe_recipe_moves_no_score_far(tiny: dict[str, Path], tmp_path: Path) -> None:
    source = Source(path=tiny["reranker"], name="tiny/reranker")
    drifts = {}
    for name in ("int8", "int8-safe"):
        bundle = tmp_path / name
        manifest = export_bundle(
            {"reranker": source}, bundle, recipe=Recipe.of(name), examples=world_examples(8)
        )
        drifts[name] = manifest.parity[0].max_abs_diff
    part = manifest.parts["reranker"]
    assert (part.vision_precision, part.decoder_precision) == ("fp16", "int8-fine")
    kept = {f"language_model.layers.{layer}.self_attn.{which}_proj" for layer in range(4) for which in "qkvo"}
    assert part.exceptions == dict.fromkeys(kept, "fp16")
    assert drifts["int8-safe"] < 0.003 < drifts["int8"]


def test_nf4_is_tuned_when_pictures_are_given(
    tiny: dict[str, Path], exported: Callable[[str], Bundle], tmp_path: Path
) -> None:
    source = Source(path=tiny["embedder"], name="tiny/embedding")
    recipe = Recipe.of("nf4").tuning_to_pictures()
    export_bundle({"embedder": source}, tmp_path / "tuned", recipe=recipe, examples=world_examples(2))
    tuned, plain = open_bundle(tmp_path / "tuned"), exported("nf4")
    assert tuned.part("embedder").calibration == "2 own pictures"
    decoder, vision = (
        f"{name}_data" for name in (plain.part("embedder").decoder, plain.part("embedder").vision)
    )
    assert tuned.manifest.files[decoder] != plain.manifest.files[decoder]
    assert tuned.manifest.files[vision] == plain.manifest.files[vision]


def test_bundles_of_other_weights_are_other_vector_spaces(exported: Callable[[str], Bundle]) -> None:
    assert len({exported(precision).revision for precision in ("int8", "int8-weight", "nf4")}) == 3


def test_outlier_tokens_cost_less_than_in_the_ecosystems_int8(tiny: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny["embedder"])
    write_model(build_decoder(checkpoint, PRECISIONS["fp32"].graph), tmp_path / "fp32.onnx")
    write_model(build_decoder(checkpoint, PRECISIONS["int8"].graph), tmp_path / "int8.onnx")
    write_model(build_decoder(checkpoint, PRECISIONS["fp32"].graph), tmp_path / "dynamic.onnx")
    quantize_dynamically(tmp_path / "dynamic.onnx")
    feeds = loud_token(checkpoint)
    expected, ours, theirs = (
        OrtSession(tmp_path / f"{name}.onnx", SessionOptions(threads=1)).run(feeds)["pooled"]
        for name in ("fp32", "int8", "dynamic")
    )
    assert cosine(ours, expected) > cosine(theirs, expected)
    assert cosine(ours, expected) > 0.995


def loud_token(checkpoint: Checkpoint) -> dict[str, NDArray[np.generic]]:
    """A text of random tokens, the second of which is far louder than the others in two channels."""
    text = checkpoint.config.text
    embeds = checkpoint.stored(EMBEDDINGS).rows(np.random.default_rng(0).integers(1, 900, (1, 32)))
    embeds[0, 1, 5] = 40 * np.abs(embeds).max()
    embeds[0, 1, 77] = -30 * np.abs(embeds).max()
    positions = token_positions(np.zeros(32, np.bool_), [])[:, None]
    cos, sin = token_rotary(positions, text)
    levels = len(checkpoint.config.vision.deepstack_layers)
    return {
        "embeds": embeds,
        "cos": cos,
        "sin": sin,
        "deepstack": np.zeros((levels, 1, 1, text.hidden_size), np.float32),
        "last": np.array([31]),
    }


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b)))
