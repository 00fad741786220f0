"""Exports of real checkpoints: what a bundle holds, what is shared, and that a wrong graph is never kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from qvl_local.export import cache, linear
from qvl_local.export.cache import export_into_cache
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.onnx_file import ElementType
from qvl_local.export.pipeline import export_bundle, name_sources
from qvl_local.export.recipe import PRECISIONS, LayerRule, Recipe
from qvl_local.runtime.errors import BundleError, CheckpointError, InputError, ParityError
from qvl_local.runtime.model.bundle import Bundle, Role, open_bundle, verify_files
from qvl_local.runtime.model.checkpoints import Checkpoint as Source
from safetensors.numpy import load_file, save_file


@pytest.fixture(scope="module")
def pair(tiny: dict[str, Path]) -> dict[Role, Source]:
    return {
        "embedder": Source(path=tiny["embedder"], name="tiny/embedding"),
        "reranker": Source(path=tiny["reranker"], name="tiny/reranker"),
    }


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def bundle(
    request: pytest.FixtureRequest, pair: dict[Role, Source], tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    output = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(pair, output, recipe=Recipe.of(request.param))
    return open_bundle(output)


def single(folder: Path, role: Role = "embedder") -> dict[Role, Source]:
    return {role: Source(path=folder, name=folder.name)}


# ---- what a bundle holds ----


def test_the_manifest_lists_every_file_with_its_hash(bundle: Bundle) -> None:
    files = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()}
    assert set(bundle.manifest.files) == files - {"qvl.json"}
    assert verify_files(bundle) == []


def test_a_pair_is_laid_out_as_a_hugging_face_repository(bundle: Bundle) -> None:
    precision = bundle.part("embedder").decoder_precision
    for name in (
        "README.md",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "preprocessor_config.json",
        "modules.json",
        "1_Pooling/config.json",
        f"onnx/vision_encoder_{precision}.onnx",
        f"onnx/embedder_{precision}.onnx",
        f"onnx/reranker_{precision}.onnx",
        f"embed_tokens_{precision}.bin",
        "token_head.npy",
        "reranker/config.json",
        "reranker/tokenizer.json",
        "parity.npz",
    ):
        assert name in bundle.manifest.files
    assert bundle.part("embedder").folder == "."
    assert bundle.part("reranker").folder == "reranker"


def test_parity_is_in_the_manifest_and_within_its_tolerance(bundle: Bundle) -> None:
    tolerance = PRECISIONS[bundle.part("embedder").decoder_precision].tolerance
    assert [figure.role for figure in bundle.manifest.parity] == ["embedder", "reranker"]
    for figure in bundle.manifest.parity:
        assert figure.max_abs_diff_allowed == tolerance.max_abs_diff
        assert 0 <= figure.max_abs_diff <= tolerance.max_abs_diff
        assert 1.0000001 >= figure.min_cosine >= tolerance.min_cosine


def test_recorded_inputs_are_small(bundle: Bundle) -> None:
    assert bundle.manifest.files["parity.npz"].size < 1_000_000


def test_the_token_table_is_raw_and_exact(bundle: Bundle, pair: dict[Role, Source]) -> None:
    table = bundle.part("embedder").table
    stored = np.fromfile(bundle.file(table.file), dtype=np.dtype(table.dtype).newbyteorder("<"))
    expected = Checkpoint(pair["embedder"].path).float32("language_model.embed_tokens.weight")
    assert np.array_equal(stored.reshape(table.rows, table.columns).astype(np.float32), expected)


def test_the_head_is_what_yes_weighs_more_than_no(bundle: Bundle, tiny: dict[str, Path]) -> None:
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(tiny["reranker"] / "tokenizer.json")).get_vocab()
    tensors = load_file(tiny["reranker"] / "model.safetensors")
    rows = tensors["model.language_model.embed_tokens.weight"].astype(np.float32)
    head = np.load(bundle.path / "token_head.npy")
    assert head.dtype == np.float32
    assert np.array_equal(head, rows[vocabulary["yes"]] - rows[vocabulary["no"]])


def test_an_untied_head_is_read_from_its_own_tensor(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = random_checkpoint(role="reranker", tied=False, dtype="bfloat16")
    export_bundle(single(folder, "reranker"), tmp_path / "bundle", recipe=Recipe())
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = Checkpoint(folder).float32("lm_head.weight")
    expected = rows[tokenizer.token_to_id("yes")] - rows[tokenizer.token_to_id("no")]
    assert np.array_equal(np.load(tmp_path / "bundle" / "token_head.npy"), expected)


def test_nothing_but_the_bundle_is_left(bundle: Bundle) -> None:
    assert [path.name for path in bundle.path.parent.iterdir()] == [bundle.path.name]


def test_exports_are_reproducible(pair: dict[Role, Source], tmp_path: Path) -> None:
    manifests = [export_bundle(pair, tmp_path / name, recipe=Recipe()) for name in ("one", "two")]
    assert manifests[0] == manifests[1]


def test_the_card_names_base_models_licence_recipe_and_parity(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_checkpoint(), tmp_path / "checkpoint"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    source: dict[Role, Source] = {"embedder": Source(path=folder, name="Some/Embedding", revision="abc123")}
    export_bundle(source, tmp_path / "bundle", recipe=Recipe.of("fp16"))
    card = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "\nbase_model:\n- Some/Embedding\n" in card
    assert "\nlicense: apache-2.0\n" in card
    assert "| embedder | Some/Embedding | abc123 | fp16 | fp16 | 64 |" in card
    assert "| embedder | " in card.split("parity.npz")[1]


def test_the_fusion_weight_comes_along(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_checkpoint(role="reranker"), tmp_path / "checkpoint"))
    (folder / "qvl_fusion.json").write_text('{"weight": 15}')
    manifest = export_bundle(single(folder, "reranker"), tmp_path / "bundle", recipe=Recipe())
    assert manifest.fusion == {"cosine_weight": 15.0}


@pytest.mark.parametrize("text", ["{}", "[]", '{"weight": "much"}', '{"weight": NaN}', "no"])
def test_a_damaged_fusion_weight_is_refused(
    random_checkpoint: Callable[..., Path], tmp_path: Path, text: str
) -> None:
    folder = Path(shutil.copytree(random_checkpoint(role="reranker"), tmp_path / "checkpoint"))
    (folder / "qvl_fusion.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"qvl_fusion\.json"):
        export_bundle(single(folder, "reranker"), tmp_path / "bundle", recipe=Recipe())


# ---- sharing ----


def test_equal_towers_and_tables_are_stored_once(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    first = random_checkpoint()
    second = Path(shutil.copytree(random_checkpoint(role="reranker"), tmp_path / "second"))
    tensors = load_file(second / "model.safetensors")
    tensors["model.language_model.layers.0.mlp.up_proj.weight"] *= 1.1
    save_file(tensors, second / "model.safetensors")
    sources = single(first) | single(second, "reranker")
    manifest = export_bundle(sources, tmp_path / "bundle", recipe=Recipe())
    embedder, reranker = manifest.parts["embedder"], manifest.parts["reranker"]
    assert embedder.vision == reranker.vision
    assert embedder.table == reranker.table
    assert embedder.decoder != reranker.decoder
    hashes = [record.sha256 for name, record in manifest.files.items() if name.endswith("_data")]
    assert len(hashes) == len(set(hashes)) == 3


def test_different_towers_and_tables_stay_apart(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    sources = single(random_checkpoint()) | single(random_checkpoint(role="reranker", seed=1), "reranker")
    manifest = export_bundle(sources, tmp_path / "bundle", recipe=Recipe())
    assert manifest.parts["reranker"].vision == "onnx/reranker_vision_encoder_fp32.onnx"
    assert manifest.parts["reranker"].table.file == "reranker/embed_tokens_fp32.bin"
    assert manifest.parts["embedder"].vision == "onnx/vision_encoder_fp32.onnx"


def test_a_pair_of_different_widths(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    other = random_checkpoint(role="reranker", hidden=80, vision_depth=4, deepstack=(1, 2, 3), layers=4)
    manifest = export_bundle(
        single(random_checkpoint()) | single(other, "reranker"), tmp_path / "bundle", recipe=Recipe()
    )
    assert manifest.parts["reranker"].dims == 80


def test_a_reranker_alone_lives_at_the_root(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    manifest = export_bundle(
        single(random_checkpoint(role="reranker"), "reranker"), tmp_path / "bundle", recipe=Recipe()
    )
    assert set(manifest.parts) == {"reranker"}
    assert manifest.parts["reranker"].folder == "."
    assert "modules.json" not in manifest.files


# ---- recipes ----


def test_towers_may_have_different_precisions(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    manifest = export_bundle(
        single(random_checkpoint()),
        tmp_path / "bundle",
        recipe=Recipe(vision="fp32", decoder="fp16", dims=32),
    )
    part = manifest.parts["embedder"]
    assert (part.vision, part.decoder) == ("onnx/vision_encoder_fp32.onnx", "onnx/embedder_fp16.onnx")
    assert (part.table.dtype, part.dims) == ("float16", 32)


def test_an_unknown_precision_is_an_input_error() -> None:
    with pytest.raises(InputError, match="'fp8'"):
        Recipe.of("fp8")


@pytest.mark.parametrize("dims", [0, -4, 65])
def test_dims_beyond_the_model_are_refused(
    random_checkpoint: Callable[..., Path], tmp_path: Path, dims: int
) -> None:
    with pytest.raises(InputError, match=str(dims)):
        export_bundle(single(random_checkpoint()), tmp_path / "bundle", recipe=Recipe.of("fp32", dims=dims))
    assert not any(tmp_path.iterdir())


def test_weights_beyond_float16_are_refused_by_name(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_checkpoint(), tmp_path / "checkpoint"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.language_model.layers.0.mlp.up_proj.weight"][3, 5] = 7e4
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.up_proj\.weight reaches 7e\+04"):
        export_bundle(single(folder), tmp_path / "bundle", recipe=Recipe.of("fp16"))
    export_bundle(single(folder), tmp_path / "bundle", recipe=Recipe.of("fp32"))


def test_weights_that_are_not_numbers_are_refused_by_name(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_checkpoint(), tmp_path / "checkpoint"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.visual.blocks.1.attn.proj.bias"][3] = np.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"visual\.blocks\.1\.attn\.proj\.bias holds infinite or undefined"
    ):
        export_bundle(single(folder), tmp_path / "bundle", recipe=Recipe())
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-weight", "int4", "nf4"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_matrices_that_are_not_numbers_are_refused_by_name(
    random_checkpoint: Callable[..., Path], tmp_path: Path, precision: str, value: float
) -> None:
    folder = Path(shutil.copytree(random_checkpoint(), tmp_path / "checkpoint"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.language_model.layers.0.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, folder / "model.safetensors")
    # Without calibration, whose inputs would be no numbers either.
    recipe = replace(Recipe.of(precision), calibrated=())
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.up_proj\.weight holds infinite or undef"):
        export_bundle(single(folder), tmp_path / "bundle", recipe=recipe)


def test_a_rule_that_fits_no_layer_is_refused(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    rules = (LayerRule("language_model.*.down_proj", "fp16"), LayerRule("language_model.layer.0.*", "fp16"))
    recipe = Recipe(vision="nf4", decoder="nf4", layers=rules)
    with pytest.raises(InputError, match=r"'language_model\.layer\.0\.\*' fits no layer.* named like lang"):
        export_bundle(single(random_checkpoint()), tmp_path / "bundle", recipe=recipe)
    assert not any(tmp_path.iterdir())


def test_a_tokenizer_without_the_answers_cannot_rerank(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_checkpoint(role="reranker"), tmp_path / "checkpoint"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["maybe"] = tokenizer["model"]["vocab"].pop("yes")
    tokenizer["model"]["merges"] = [
        merge for merge in tokenizer["model"]["merges"] if "".join(merge) != "yes"
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(CheckpointError, match="lacks the token 'yes'"):
        export_bundle(single(folder, "reranker"), tmp_path / "bundle", recipe=Recipe())


# ---- parity is not optional ----


def test_a_weight_that_changes_on_the_way_stops_the_export(
    random_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = linear.transposed

    def damaged(matrix: NDArray[Any]) -> NDArray[Any]:
        result = real(matrix)
        if matrix.shape == (96, 64):  # gate and up projections of the decoder
            result[5] += 0.05
        return result

    monkeypatch.setattr(linear, "transposed", damaged)
    with pytest.raises(ParityError, match="differs from its checkpoint"):
        export_bundle(single(random_checkpoint()), tmp_path / "bundle", recipe=Recipe())
    assert not any(tmp_path.iterdir())


def test_a_vision_tower_that_changes_on_the_way_stops_the_export(
    random_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvl_local.export.vision.LAYER_NORM_EPSILON", 1e-2)
    with pytest.raises(ParityError, match="differs from its checkpoint"):
        export_bundle(single(random_checkpoint()), tmp_path / "bundle", recipe=Recipe())


# ---- the interface ----


def test_progress_goes_through_all_stages(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    heard: list[tuple[str, float]] = []
    export_bundle(
        single(random_checkpoint()),
        tmp_path / "bundle",
        recipe=Recipe(),
        progress=lambda stage, done: heard.append((stage, done)),
    )
    assert list(dict.fromkeys(stage for stage, _ in heard)) == ["reading", "writing", "checking", "finishing"]
    assert all(0 <= done <= 1 for _, done in heard)
    written = [done for stage, done in heard if stage == "writing"]
    assert written == sorted(written)
    assert written[-1] == pytest.approx(1.0)


def test_an_export_into_the_cache_is_kept(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "key"
    checkpoints: dict[Role, Path] = {"embedder": random_checkpoint()}
    for _ in range(2):
        export_into_cache(checkpoints, folder, names={"embedder": "random"}, precision="fp32")
        times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert open_bundle(folder).part("embedder").source.name == "random"
    export_into_cache(checkpoints, folder, names={"embedder": "random"}, precision="fp32")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times


@pytest.mark.parametrize(("without_vnni", "stored"), [(True, ElementType.UINT8), (False, ElementType.INT8)])
def test_int8_in_the_cache_lies_as_this_processor_takes_it(
    without_vnni: bool,
    stored: ElementType,
    random_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "is_known_without_vnni", lambda: without_vnni)
    checkpoints: dict[Role, Path] = {"embedder": random_checkpoint()}
    export_into_cache(checkpoints, tmp_path / "cached", names={"embedder": "random"}, precision="int8")
    export_bundle(single(random_checkpoint()), tmp_path / "own", recipe=Recipe.of("int8"))
    cached, own = open_bundle(tmp_path / "cached"), open_bundle(tmp_path / "own")
    for bundle, kind in ((cached, stored), (own, ElementType.INT8)):
        graph = onnx.load(bundle.file(bundle.part("embedder").decoder), load_external_data=False).graph
        kinds = {one.name: one.data_type for one in graph.initializer}
        assert kinds["language_model.layers.1.mlp.up_proj.weight"] == kind
    # The same vectors: a library that was indexed with one can be searched with the other.
    assert cached.revision == own.revision


def test_folders_are_given_roles_by_name(tmp_path: Path) -> None:
    first, second = tmp_path / "Qwen3-VL-Reranker-2B", tmp_path / "Qwen3-VL-Embedding-2B"
    roles = name_sources([first, second])
    assert {role: source.path for role, source in roles.items()} == {"reranker": first, "embedder": second}
    assert list(name_sources([tmp_path / "a", tmp_path / "b"])) == ["embedder", "reranker"]
    for wrong in ([], [first, first], [first, second, second]):
        with pytest.raises(InputError):
            name_sources(wrong)


def test_nothing_to_export_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to export"):
        export_bundle({}, tmp_path / "bundle", recipe=Recipe())


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    random_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(BundleError, match=r"the bundle needs [1-9]\d*\.\d MB and 0\.0 MB are free"):
        export_bundle(single(random_checkpoint()), tmp_path / "bundle", recipe=Recipe())
    assert not any(tmp_path.iterdir())
