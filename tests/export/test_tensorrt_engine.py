"""TensorRT engines of a portable bundle: built, found again, run. TensorRT and CUDA are fakes (conftest)."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qvl_local.desktop.cli import run
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import Recipe
from qvl_local.export.tensorrt_engine import EngineSettings, build_engines
from qvl_local.runtime import Embedder, Reranker
from qvl_local.runtime.errors import (
    BundleError,
    InputError,
    MissingExtraError,
    ModelError,
    ModelMemoryError,
)
from qvl_local.runtime.model import tensorrt_place
from qvl_local.runtime.model.bundle import Bundle, open_bundle
from qvl_local.runtime.model.checkpoints import Checkpoint as Source
from qvl_local.runtime.model.config import load_config
from qvl_local.runtime.model.encoder import PATCHES_A_RUN, TOKENS_A_RUN
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions
from qvl_local.runtime.model.pixels import load_budget
from qvl_local.runtime.model.positions import patch_positions
from qvl_local.runtime.model.tensorrt_place import EngineMachine, EnginePlace
from qvl_local.runtime.model.tensorrt_profiles import RunLimits, decoder_profiles, vision_profiles
from qvl_local.runtime.model.tensorrt_session import TensorrtSession


@pytest.fixture(scope="module")
def exported(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """qvl-tiny as a portable bundle; engines are built into copies."""
    sources = {role: Source(path=folder, name=role) for role, folder in tiny.items()}
    folder = tmp_path_factory.mktemp("portable") / "bundle"
    export_bundle(sources, folder, recipe=Recipe.of("fp32", flavour="portable"))  # type: ignore[arg-type]
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The bundle with nothing built, and an empty cache."""
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).symlink_to(path)
    return open_bundle(folder)


# ---- building ----


def test_every_graph_is_built_once_and_found_again(bundle: Bundle, fake_tensorrt: Any) -> None:
    built = build_engines(bundle)
    names = ["vision_encoder_fp32.onnx", "embedder_fp32.onnx", "reranker_fp32.onnx"]
    assert fake_tensorrt.built == names  # the vision tower, which both share, once
    assert not any(one.reused for one in built)
    assert all(one.file.is_relative_to(bundle.path / "engines") for one in built)
    assert all(one.reused for one in build_engines(bundle))
    assert len(fake_tensorrt.built) == 3
    record = json.loads(built[1].file.with_suffix(".json").read_text())
    assert record["gpu"] == "NVIDIA Fake 4090"
    assert (record["driver"], record["compute_capability"]) == ("580.65.06", "8.9")


def test_a_change_of_settings_builds_again_in_the_same_place(bundle: Bundle, fake_tensorrt: Any) -> None:
    first = build_engines(bundle)
    second = build_engines(bundle, EngineSettings(limits=RunLimits(tokens=2048)))
    assert [one.file for one in first] == [one.file for one in second]
    assert [one.reused for one in second] == [True, False, False]


@pytest.mark.parametrize(
    "change",
    [{"gpu": "another"}, {"driver": "581.0"}, {"tensorrt": "11.4"}, {"compute_capability": "9.0"}],
)
def test_engines_of_another_card_driver_or_version_lie_elsewhere(
    bundle: Bundle, change: dict[str, str], fake_tensorrt: Any
) -> None:
    machine = EngineMachine.here("10.15.1")
    graph = bundle.part("embedder").decoder
    mine = EnginePlace.of(bundle, graph, machine)
    other = EnginePlace.of(bundle, graph, replace(machine, **change))
    assert mine.target() != other.target()
    assert mine.target() != EnginePlace.of(bundle, bundle.part("reranker").decoder, machine).target()


def test_an_engine_of_other_weights_lies_elsewhere(bundle: Bundle, fake_tensorrt: Any) -> None:
    machine, graph = EngineMachine.here("10.15.1"), bundle.part("embedder").decoder
    files = dict(bundle.manifest.files)
    files[f"{graph}_data"] = replace(files[f"{graph}_data"], sha256="0" * 64)
    changed = replace(bundle, manifest=replace(bundle.manifest, files=files))
    assert EnginePlace.of(bundle, graph, machine).target() != EnginePlace.of(changed, graph, machine).target()


def test_a_read_only_bundle_has_its_engines_in_the_cache(
    bundle: Bundle, fake_tensorrt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_place.os, "access", lambda path, mode: False)
    built = build_engines(bundle)
    assert all(one.file.is_relative_to(tmp_path / "cache") for one in built)
    assert all(one.reused for one in build_engines(bundle))


def test_the_timing_cache_grows_and_the_workspace_is_limited(bundle: Bundle, fake_tensorrt: Any) -> None:
    build_engines(bundle, EngineSettings(workspace_bytes=1 << 30))
    assert fake_tensorrt.timing_caches == [b"", b"timed ", b"timed timed "]
    assert fake_tensorrt.workspace == [1 << 30] * 3


def test_what_tensorrt_refuses_is_named(bundle: Bundle, fake_tensorrt: Any) -> None:
    fake_tensorrt.refused_operator = "Gelu"
    with pytest.raises(ModelError, match=r"/blocks\.0/mlp/Gelu: no importer for Gelu.*--opset 20"):
        build_engines(bundle)
    assert not list(bundle.path.rglob("*.engine"))


def test_another_flavour_is_refused(tiny: dict[str, Path], tmp_path: Path, fake_tensorrt: Any) -> None:
    source = {"embedder": Source(path=tiny["embedder"], name="tiny")}
    export_bundle(source, tmp_path / "ort", recipe=Recipe())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="flavour ort, which TensorRT does not read"):
        build_engines(open_bundle(tmp_path / "ort"))


def test_without_a_card_or_tensorrt_it_says_what_to_do(
    bundle: Bundle, fake_tensorrt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_place, "read_gpus", tuple)
    with pytest.raises(ModelError, match="needs an NVIDIA graphics card"):
        build_engines(bundle)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'qvl-local\[tensorrt\]'"):
        build_engines(bundle)


def test_settings_are_checked() -> None:
    for wrong in (
        lambda: EngineSettings(workspace_bytes=0),
        lambda: EngineSettings(effort=6),
        lambda: RunLimits(tokens=0),
    ):
        with pytest.raises(InputError):
            wrong()


# ---- profiles ----


def test_profiles_cover_every_run_of_the_encoder(tiny: dict[str, Path]) -> None:
    config, budget = load_config(tiny["embedder"]), load_budget(tiny["embedder"])
    limits = RunLimits()
    largest = budget.image_max_pixels // config.vision.patch_size**2
    for count in range(16, largest + 1, 4):
        images = max(1, PATCHES_A_RUN // count)
        shapes = {"patches": (images, count, config.vision.patch_dim), "pos_idx": (count, 4)}
        assert _covered(vision_profiles(config.vision, budget, limits), shapes), count
    profiles = decoder_profiles(config, limits, adapters=True)
    hidden = config.text.hidden_size
    for length in (16, 17, 63, 64, 65, 300, 1024, 1500, 4096, 4097, config.text.max_positions):
        rows = max(1, min(limits.prompts, TOKENS_A_RUN // length))
        for b, t in ((1, 1), (rows, length)):  # text alone broadcasts its zeros
            shapes = {"embeds": (rows, length, hidden), "deepstack": (3, b, t, hidden), "last": (rows,)}
            assert _covered(profiles, shapes), length


def _covered(profiles: Any, shapes: dict[str, tuple[int, ...]]) -> bool:
    def takes(profile: Any) -> bool:
        return all(
            a <= b <= c
            for name, shape in shapes.items()
            for a, b, c in zip(profile.ranges[name][0], shape, profile.ranges[name][2])
        )

    return any(takes(profile) for profile in profiles)


# ---- running ----


def test_a_session_gives_what_onnx_runtime_gives_for_changing_shapes(
    bundle: Bundle, fake_tensorrt: Any
) -> None:
    engines = {one.graph: one.file for one in build_engines(bundle)}
    graph = bundle.part("embedder").vision
    ours, theirs = (
        TensorrtSession(engines[graph]),
        OrtSession(bundle.file(graph), SessionOptions(threads=1)),
    )
    vision = load_config(bundle.path).vision
    generator = np.random.default_rng(0)
    for images, rows, columns in ((1, 4, 4), (3, 8, 6), (1, 2, 2), (2, 24, 16), (3, 8, 6)):
        place = patch_positions(rows, columns, vision)
        feeds = {
            "patches": generator.uniform(-1, 1, (images, rows * columns, vision.patch_dim)),
            "pos_idx": place.index,
            "pos_w": place.weight,
            "cos": place.cos,
            "sin": place.sin,
        }
        expected, actual = theirs.run(feeds), ours.run(feeds)
        assert set(actual) == {"features", "deepstack"}
        for name, values in actual.items():
            assert values.dtype == np.float32
            assert np.abs(values - expected[name]).max() < 1e-5
    assert len(set(fake_tensorrt.runs)) == 3  # the sizes above fall into three profiles


def test_a_session_gives_its_memory_back(bundle: Bundle, fake_tensorrt: Any) -> None:
    engine = build_engines(bundle)[1].file
    session = TensorrtSession(engine)
    session.run(_decoder_feeds(bundle, 2, 20))
    session.run(_decoder_feeds(bundle, 1, 9))
    assert len(fake_tensorrt.cuda.held) == 12  # both sides of six tensors; the smaller run fits into them
    del session
    gc.collect()
    assert not fake_tensorrt.cuda.held
    assert fake_tensorrt.cuda.streams == 0


def test_too_large_a_batch_is_a_memory_error(bundle: Bundle, fake_tensorrt: Any) -> None:
    session = TensorrtSession(build_engines(bundle)[1].file)
    with pytest.raises(ModelMemoryError, match=r"built for smaller batches than embeds \[300, 20, 256\]"):
        session.run(_decoder_feeds(bundle, 300, 20))
    fake_tensorrt.cuda.most_bytes = 50_000
    with pytest.raises(ModelMemoryError, match="out of memory"):
        session.run(_decoder_feeds(bundle, 4, 64))
    assert session.run(_decoder_feeds(bundle, 1, 20))["pooled"].shape == (1, 256)


def test_a_foreign_engine_is_refused(bundle: Bundle, fake_tensorrt: Any, tmp_path: Path) -> None:
    (tmp_path / "foreign.engine").write_bytes(b"built by another version")
    with pytest.raises(BundleError, match=r"foreign\.engine: does not fit this TensorRT"):
        TensorrtSession(tmp_path / "foreign.engine")


def test_models_run_on_engines(bundle: Bundle, fake_tensorrt: Any) -> None:
    with pytest.raises(ModelError, match=r"no engine of .* Build it: qvl-local export .* --tensorrt"):
        Embedder.open(bundle.path, backend="tensorrt")
    build_engines(bundle)
    inputs = [{"text": "two dogs on a beach"}, {"text": "night"}]
    ours = Embedder.open(bundle.path, backend="tensorrt").embed(inputs)
    theirs = Embedder.open(bundle.path, threads=1).embed(inputs)
    assert np.abs(ours - theirs).max() < 1e-5
    scores = Reranker.open(bundle.path, backend="tensorrt").score(inputs[0], inputs)
    assert np.abs(scores - Reranker.open(bundle.path, threads=1).score(inputs[0], inputs)).max() < 1e-5
    assert fake_tensorrt.runs


def test_the_backend_wants_a_bundle(random_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="is not a bundle"):
        Embedder.open(random_checkpoint(), backend="tensorrt")


def _decoder_feeds(bundle: Bundle, rows: int, length: int) -> dict[str, Any]:
    text = load_config(bundle.path).text
    half = text.head_dim // 2
    return {
        "embeds": np.zeros((rows, length, text.hidden_size), np.float32),
        "cos": np.ones((rows, length, half), np.float32),
        "sin": np.zeros((rows, length, half), np.float32),
        "deepstack": np.zeros((3, 1, 1, text.hidden_size), np.float32),
        "last": np.full(rows, length - 1),
    }


# ---- the command ----


def test_export_builds_engines_and_builds_them_again_from_the_bundle(
    tiny: dict[str, Path],
    tmp_path: Path,
    fake_tensorrt: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    output = str(tmp_path / "bundle")
    command = ["export", str(tiny["embedder"]), "--tensorrt", "-o", output, "--no-report", "--json"]
    assert run(command) == 0
    bundle = open_bundle(tmp_path / "bundle")
    assert (bundle.manifest.flavour, bundle.part("embedder").decoder_precision) == ("portable", "fp16")
    engines = sorted((bundle.path / "engines").rglob("*.engine"))
    assert len(engines) == len(fake_tensorrt.built) > 0
    engines[0].unlink()
    assert run(["export", output, "--tensorrt", "-o", output, "--json"]) == 0
    assert sorted((bundle.path / "engines").rglob("*.engine")) == engines
    assert len(fake_tensorrt.built) == len(engines) + 1
    capsys.readouterr()


def test_without_tensorrt_nothing_is_exported(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    command = ["export", str(tiny["embedder"]), "--tensorrt", "-o", str(tmp_path / "bundle")]
    assert run(command) == 1
    assert "pip install 'qvl-local[tensorrt]'" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_of_the_other_flavour_is_not_for_the_tensorrt_device(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = {"embedder": Source(path=random_checkpoint(), name="random")}
    export_bundle(source, tmp_path / "ort", recipe=Recipe())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="of which TensorRT reads little"):
        Embedder.open(tmp_path / "ort", device="tensorrt")
    with pytest.raises(InputError, match="--device cpu or cuda"):
        Embedder.open(random_checkpoint(), backend="torch", device="tensorrt")
