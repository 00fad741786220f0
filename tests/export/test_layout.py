"""Two models on one decoder: what is shared, how exactly, how small, and when it is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.export.layout import AskedLayout, known_layout
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import Recipe
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.model.bundle import Bundle, Manifest, Role, open_bundle
from qvl_local.runtime.model.checkpoints import Checkpoint as Source
from qvl_local.runtime.model.onnx_graph import read_graph
from qvl_local.runtime.model.ort_engine import OrtEngine
from qvl_local.runtime.model.ort_session import SessionOptions
from qvl_local.runtime.model.session import Array
from qvl_local.runtime.model.verify import verify_bundle
from safetensors.numpy import load_file, save_file

RANK = 3


@pytest.fixture(scope="module")
def pair(tiny: dict[str, Path]) -> dict[Role, Source]:
    return {
        "embedder": Source(path=tiny["embedder"], name="tiny/embedding"),
        "reranker": Source(path=tiny["reranker"], name="tiny/reranker"),
    }


@pytest.fixture(scope="module")
def bundles(pair: dict[Role, Source], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """qvl-tiny in nf4: as it comes, with two decoders, and the embedder alone."""
    folder = tmp_path_factory.mktemp("layouts")
    recipe = Recipe.of("nf4")
    export_bundle(pair, folder / "shared", recipe=recipe)
    export_bundle(pair, folder / "separate", recipe=recipe, layout="separate")
    export_bundle({"embedder": pair["embedder"]}, folder / "alone", recipe=recipe)
    return {path.name: open_bundle(path) for path in sorted(folder.iterdir())}


def random_pair(
    random_checkpoint: Callable[..., Path],
    folder: Path,
    change: Callable[[dict[str, NDArray[Any]]], None],
    **shape: Any,
) -> dict[Role, Source]:
    """An embedder, and a reranker that is the same but for `change` to its tensors."""
    first = random_checkpoint(**shape)
    second = Path(shutil.copytree(random_checkpoint(role="reranker", **shape), folder / "reranker"))
    tensors = load_file(second / "model.safetensors")
    change(tensors)
    save_file(tensors, second / "model.safetensors")
    return {
        "embedder": Source(path=first, name="embedder"),
        "reranker": Source(path=second, name="reranker"),
    }


def fine_tune(tensors: dict[str, NDArray[Any]], rank: int = RANK) -> None:
    """Add an update of this rank to every matrix that LoRA would train."""
    generator = np.random.default_rng(7)
    for name, values in tensors.items():
        if any(f".{kind}_proj.weight" in name for kind in ("q", "k", "v", "gate", "up", "down")):
            rows, columns = values.shape
            update = generator.standard_normal((rows, rank)) @ generator.standard_normal((rank, columns))
            tensors[name] = (values.astype(np.float32) + 0.02 * update).astype(values.dtype)


def size(manifest: Manifest) -> int:
    return sum(record.size for record in manifest.files.values())


def feeds(bundle: Bundle) -> dict[str, Array]:
    """A padded batch of two rows for the decoder."""
    generator = np.random.default_rng(0)
    width = bundle.part("embedder").table.columns
    angle = generator.standard_normal((2, 9, 32), dtype=np.float32)
    return {
        "embeds": generator.standard_normal((2, 9, width), dtype=np.float32),
        "cos": np.cos(angle),
        "sin": np.sin(angle),
        "deepstack": generator.standard_normal((3, 2, 9, width), dtype=np.float32),
        "last": np.array([8, 5], np.int64),
    }


def pooled(bundle: Bundle, role: Role, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
    return OrtEngine(bundle, role, SessionOptions(threads=1)).decoder().run(inputs)["pooled"]


# ---- qvl-tiny, quantized ----


def test_a_quantized_pair_shares_its_decoder_unless_told_otherwise(bundles: dict[str, Bundle]) -> None:
    shared, separate = bundles["shared"].manifest, bundles["separate"].manifest
    assert (shared.layout, separate.layout) == ("shared", "separate")
    assert shared.parts["embedder"].decoder == shared.parts["reranker"].decoder == "onnx/decoder_nf4.onnx"
    assert (shared.parts["embedder"].adapter, shared.parts["reranker"].adapter) == (0.0, 1.0)
    assert separate.parts["embedder"].decoder != separate.parts["reranker"].decoder
    assert separate.parts["embedder"].adapter is None
    assert separate.adapters is None


def test_the_manifest_says_how_well_the_adapters_fit(bundles: dict[str, Bundle]) -> None:
    record = bundles["shared"].manifest.adapters
    assert record is not None
    # Two LoRA updates of rank 8 on six matrices of each of four layers.
    assert record.matrices == 24
    assert 12 <= record.rank <= 16
    assert 0 < record.noise < 1e-3
    assert record.error < 1.1 * record.noise + 1e-3


def test_the_card_speaks_of_adapters(bundles: dict[str, Bundle]) -> None:
    cards = {name: (one.path / "README.md").read_text(encoding="utf-8") for name, one in bundles.items()}
    assert "One decoder serves both models: adapters of rank 1" in cards["shared"]
    assert "One decoder" not in cards["separate"]


def test_both_models_pass_parity_on_one_decoder(bundles: dict[str, Bundle]) -> None:
    assert [figure.role for figure in bundles["shared"].manifest.parity] == ["embedder", "reranker"]
    findings = verify_bundle(bundles["shared"])
    assert all(finding.ok for finding in findings), findings


def test_the_embedder_computes_the_same_in_every_layout(bundles: dict[str, Bundle]) -> None:
    inputs = feeds(bundles["shared"])
    expected = pooled(bundles["alone"], "embedder", inputs)
    for name in ("shared", "separate"):
        assert np.array_equal(pooled(bundles[name], "embedder", inputs), expected)
    # So vectors of all three belong to one space.
    assert len({bundle.revision for bundle in bundles.values()}) == 1


def test_the_switch_makes_another_model_of_the_decoder(bundles: dict[str, Bundle]) -> None:
    inputs = feeds(bundles["shared"])
    embedder = pooled(bundles["shared"], "embedder", inputs)
    assert np.abs(pooled(bundles["shared"], "reranker", inputs) - embedder).max() > 0.1


def test_a_shared_pair_is_hardly_larger_than_one_model(bundles: dict[str, Bundle]) -> None:
    alone = size(bundles["alone"].manifest)
    assert size(bundles["shared"].manifest) <= 1.15 * alone
    assert size(bundles["separate"].manifest) > 1.15 * alone


# ---- other precisions and pairs ----


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_floating_point_shares_only_when_asked(
    pair: dict[Role, Source], tmp_path: Path, precision: str
) -> None:
    manifest = export_bundle(pair, tmp_path / "bundle", recipe=Recipe.of(precision), layout="shared")
    assert manifest.layout == "shared"
    assert manifest.adapters is not None
    # float16 factors, and two checkpoints that were rounded apart.
    assert max(figure.max_abs_diff for figure in manifest.parity) < 1e-3


def test_a_pair_of_bfloat16_checkpoints_is_shared(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    sources = random_pair(
        random_checkpoint, tmp_path, fine_tune, dtype="bfloat16", hidden=128, head_dim=32, intermediate=160
    )
    manifest = export_bundle(sources, tmp_path / "bundle", recipe=Recipe.of("int8-weight"))
    assert manifest.layout == "shared"
    assert manifest.adapters is not None
    assert manifest.adapters.rank == RANK


def test_equal_decoders_need_no_adapters(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    sources = random_pair(random_checkpoint, tmp_path, lambda tensors: None)
    manifest = export_bundle(sources, tmp_path / "bundle", recipe=Recipe.of("int8-weight"))
    assert (manifest.layout, manifest.adapters) == ("shared", None)
    assert manifest.parts["reranker"].adapter is None
    bundle = open_bundle(tmp_path / "bundle")
    assert "adapter" not in read_graph(bundle.file(bundle.part("reranker").decoder)).inputs


def full_rank(tensors: dict[str, NDArray[Any]]) -> None:
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    values = tensors[name]
    noise = np.random.default_rng(1).standard_normal(values.shape, dtype=np.float32)
    tensors[name] = (values + np.float32(0.1) * noise).astype(values.dtype)


def other_norm(tensors: dict[str, NDArray[Any]]) -> None:
    tensors["model.language_model.layers.0.input_layernorm.weight"] *= np.float32(1.01)


def other_layer(tensors: dict[str, NDArray[Any]]) -> None:
    tensors["model.language_model.layers.2.self_attn.o_proj.weight"] *= np.float32(1.01)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (full_rank, r"layers\.1\.mlp\.up_proj\.weight differs by more than rank \d+ "),
        (other_norm, r"layers\.0\.input_layernorm\.weight differs, and is not the weight of a product"),
        (other_layer, r"layers\.2\.self_attn\.o_proj\.weight differs by more than rank \d+ "),
    ],
)
def test_what_adapters_cannot_express_gets_two_decoders(
    random_checkpoint: Callable[..., Path],
    tmp_path: Path,
    change: Callable[[dict[str, NDArray[Any]]], None],
    reason: str,
) -> None:
    sources = random_pair(random_checkpoint, tmp_path, change)
    manifest = export_bundle(sources, tmp_path / "bundle", recipe=Recipe.of("int8-weight"))
    assert manifest.layout == "separate"
    assert manifest.layout_reason is not None
    with pytest.raises(InputError, match=f"{reason}.*--layout separate"):
        export_bundle(sources, tmp_path / "other", recipe=Recipe.of("int8-weight"), layout="shared")
    assert not (tmp_path / "other").exists()


def test_adapters_nearly_as_large_as_a_decoder_give_way_to_two(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    shape = {"hidden": 128, "head_dim": 32, "intermediate": 160}
    sources = random_pair(random_checkpoint, tmp_path, partial(fine_tune, rank=9), **shape)
    manifest = export_bundle(sources, tmp_path / "bundle", recipe=Recipe.of("int8-weight"))
    assert manifest.layout == "separate"
    assert str(manifest.layout_reason).startswith("adapters would take ")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"layers": 4}, "the configurations of the two decoders differ"),
        ({"deepstack": (2,)}, "their vision towers feed different numbers of layers"),
    ],
)
def test_models_of_different_shapes_get_two_decoders(
    other: dict[str, Any], reason: str, random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    sources: dict[Role, Source] = {
        "embedder": Source(path=random_checkpoint(), name="embedder"),
        "reranker": Source(path=random_checkpoint(role="reranker", **other), name="reranker"),
    }
    manifest = export_bundle(sources, tmp_path / "bundle", recipe=Recipe.of("int8-weight"))
    assert manifest.layout_reason == reason


def test_one_model_alone_cannot_share(pair: dict[Role, Source], tmp_path: Path) -> None:
    alone: dict[Role, Source] = {"embedder": pair["embedder"]}
    with pytest.raises(InputError, match="takes an embedder and a reranker"):
        export_bundle(alone, tmp_path / "bundle", recipe=Recipe(), layout="shared")


def test_an_unknown_layout_is_refused() -> None:
    expected: AskedLayout = "shared"
    assert known_layout("shared") == expected
    with pytest.raises(InputError, match="Choose one of: auto, shared, separate"):
        known_layout("both")


# ---- equal weights of two decoders ----


@pytest.mark.parametrize("precision", ["fp16", "int8-weight"])
def test_equal_weights_of_two_decoders_are_stored_once(
    pair: dict[Role, Source], tmp_path: Path, precision: str
) -> None:
    manifest = export_bundle(pair, tmp_path / "bundle", recipe=Recipe.of(precision), layout="separate")
    bundle = Bundle(tmp_path / "bundle", manifest)
    files = {
        role: {
            name.removesuffix(".codes"): weight.location
            for name, weight in read_graph(bundle.file(bundle.part(role).decoder)).weights.items()
            if weight.location is not None
        }
        for role in manifest.parts
    }
    own, other = f"reranker_{precision}.onnx_data", f"embedder_{precision}.onnx_data"
    shared = {name for name, place in files["reranker"].items() if place == other}
    assert set(files["embedder"].values()) == {other}
    assert {name for name, place in files["reranker"].items() if place == own}
    for layer in range(4):
        at = f"language_model.layers.{layer}"
        assert any(name.startswith(f"{at}.self_attn.o_proj") for name in shared)
        assert f"{at}.input_layernorm.weight" in shared
        assert not any(name.startswith(f"{at}.mlp.up_proj") for name in shared)
