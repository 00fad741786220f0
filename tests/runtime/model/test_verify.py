"""`verify` finds every kind of damage, and agrees with what the export measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from qvl_local.export.cache import export_into_cache
from qvl_local.runtime.errors import BundleError
from qvl_local.runtime.model import verify
from qvl_local.runtime.model.bundle import MANIFEST, Bundle, FileRecord, open_bundle, record_files
from qvl_local.runtime.model.ort_session import SessionOptions
from qvl_local.runtime.model.piecewise import run_in_pieces
from qvl_local.runtime.model.verify import (
    PARITY,
    Drift,
    compare,
    load_records,
    measure_parity,
    save_records,
    verify_bundle,
)

OPTIONS = SessionOptions(threads=1)


@pytest.fixture(scope="module")
def exported(random_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "bundle"
    export_into_cache(
        {"embedder": random_checkpoint(), "reranker": random_checkpoint(role="reranker", tied=False, seed=3)},
        folder,
        names={"embedder": "random/embedder", "reranker": "random/reranker"},
        precision="fp32",
    )
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Bundle:
    """A copy that a test may damage."""
    return open_bundle(Path(shutil.copytree(exported, tmp_path / "bundle")))


def failures(bundle: Bundle) -> list[tuple[str, str]]:
    return [(f.subject, f.text) for f in verify_bundle(bundle, options=OPTIONS) if not f.ok]


def rehashed(bundle: Bundle) -> Bundle:
    """The bundle as a forger would leave it: every hash is right again."""
    manifest = replace(bundle.manifest, files=record_files(bundle.path, bundle.manifest.files))
    (bundle.path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return open_bundle(bundle.path)


def flip(file: Path, position: int = -1) -> None:
    raw = bytearray(file.read_bytes())
    raw[position] ^= 0x40
    file.write_bytes(raw)


def test_a_sound_bundle_has_no_failures(bundle: Bundle) -> None:
    heard: list[str] = []
    findings = verify_bundle(bundle, options=OPTIONS, progress=heard.append)
    assert [f.text for f in findings if not f.ok] == []
    assert [f.subject for f in findings] == [
        "files",
        "graphs",
        "graphs",
        "graphs",
        "graphs",
        "parity",
        "parity",
    ]
    assert {*bundle.manifest.files, "embedder parity", "reranker parity"} <= set(heard)


def test_figures_are_those_of_the_export(bundle: Bundle) -> None:
    for figure in bundle.manifest.parity:
        drift = measure_parity(bundle, figure.role, OPTIONS)
        assert drift.max_abs_diff == pytest.approx(figure.max_abs_diff, abs=1e-6)
        assert drift.min_cosine == pytest.approx(figure.min_cosine, abs=1e-6)


def test_every_single_file_is_guarded(bundle: Bundle) -> None:
    for relative in bundle.manifest.files:
        file = bundle.file(relative)
        kept = file.read_bytes()
        flip(file, len(kept) // 2)
        found = failures(bundle)
        assert ("files", f"{relative}: content differs from the manifest") in found, relative
        file.write_bytes(kept)


@pytest.mark.parametrize(
    "relative",
    [
        "onnx/vision_encoder_fp32.onnx_data",
        "onnx/embedder_fp32.onnx_data",
        "embed_tokens_fp32.bin",
        PARITY,
    ],
)
def test_other_weights_or_records_fail_parity_even_with_right_hashes(bundle: Bundle, relative: str) -> None:
    file = bundle.file(relative)
    if relative == PARITY:
        records = load_records(file)
        changed = [replace(record, pooled=record.pooled[:, ::-1]) for record in records["embedder"]]
        save_records(file, {"embedder": changed, "reranker": records["reranker"]})
    else:
        values = np.fromfile(file, np.float32)
        (values * np.random.default_rng(0).uniform(0.5, 1.5, values.shape)).astype(np.float32).tofile(file)
    assert [subject for subject, _ in failures(rehashed(bundle))] == ["parity"]


def test_a_damaged_head_is_named(bundle: Bundle) -> None:
    (bundle.path / "token_head.npy").write_bytes(b"not an array")
    assert any("token_head.npy" in text for _, text in failures(rehashed(bundle)))


def test_drift_is_of_scores_for_a_reranker_and_of_unit_vectors_for_an_embedder() -> None:
    expected, actual = np.array([[3, 4]], np.float32), np.array([[4, 3]], np.float32)
    assert compare(expected, actual, None) == Drift(pytest.approx(0.2), pytest.approx(0.96))
    head = np.array([1, 0], np.float32)
    scores = 1 / (1 + np.exp(-np.array([3.0, 4.0])))
    assert compare(expected, actual, head).max_abs_diff == pytest.approx(scores[1] - scores[0])


def test_weights_outside_the_bundle_are_found_before_anything_runs(bundle: Bundle) -> None:
    path = bundle.file(bundle.part("embedder").decoder)
    model = onnx.load(path, load_external_data=False)
    place = next(t for t in model.graph.initializer if t.external_data).external_data
    next(entry for entry in place if entry.key == "location").value = "../../secret.bin"
    onnx.save(model, path)
    ((subject, text),) = failures(rehashed(bundle))
    assert subject == "graphs"
    assert "outside the bundle" in text


def test_weights_behind_the_end_of_their_file_are_found(bundle: Bundle) -> None:
    path = bundle.file(bundle.part("embedder").decoder)
    model = onnx.load(path, load_external_data=False)
    place = next(t for t in model.graph.initializer if t.external_data).external_data
    next(entry for entry in place if entry.key == "offset").value = str(1 << 40)
    onnx.save(model, path)
    ((subject, text),) = failures(rehashed(bundle))
    assert subject == "graphs"
    assert "behind the end" in text


def test_a_graph_that_is_not_onnx_is_found(bundle: Bundle) -> None:
    bundle.file(bundle.part("embedder").decoder).write_bytes(b"\xff" * 64)
    ((subject, text),) = failures(rehashed(bundle))
    assert subject == "graphs"
    assert "embedder_fp32.onnx: cannot be read" in text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"rubbish"])
def test_damaged_records_are_named(bundle: Bundle, content: bytes) -> None:
    (bundle.path / PARITY).write_bytes(content)
    with pytest.raises(BundleError, match=r"parity\.npz"):
        measure_parity(bundle, "embedder", OPTIONS)


def test_a_manifest_without_a_promise_fails(bundle: Bundle) -> None:
    raw = json.loads((bundle.path / MANIFEST).read_text(encoding="utf-8"))
    raw["parity"] = [figure for figure in raw["parity"] if figure["role"] != "reranker"]
    (bundle.path / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")
    assert failures(open_bundle(bundle.path)) == [("parity", "reranker: the manifest states no tolerance")]


def test_what_is_not_a_number_is_not_within_any_tolerance() -> None:
    good = np.ones((2, 4), np.float32)
    bad = good.copy()
    bad[1, 2] = np.nan
    for head in (None, np.ones(4, np.float32)):
        assert not compare(good, bad, head).within(1e9, -1.0)
        assert compare(good, good, head).within(0.0, 0.99999)
    assert not compare(good, np.zeros_like(good), None).within(1e9, -1.0)


def test_records_survive_a_round_trip(bundle: Bundle, tmp_path: Path) -> None:
    records = load_records(bundle.path / PARITY)
    assert [record.name for record in records["embedder"]] == ["text", "image", "images", "video", "batch"]
    assert [len(record.visions) for record in records["embedder"]] == [0, 1, 2, 1, 1]
    save_records(tmp_path / "again.npz", records)
    assert (tmp_path / "again.npz").read_bytes() == (bundle.path / PARITY).read_bytes()


# ---- larger than memory ----


@pytest.mark.parametrize("piece_bytes", [1, 50_000, 1 << 40])
def test_a_graph_in_pieces_computes_the_same(bundle: Bundle, piece_bytes: int) -> None:
    graph = bundle.file(bundle.part("embedder").decoder)
    generator = np.random.default_rng(0)
    feeds = [
        {
            "embeds": generator.standard_normal((rows, 6, 64), dtype=np.float32),
            "cos": generator.standard_normal((rows, 6, 16), dtype=np.float32),
            "sin": generator.standard_normal((rows, 6, 16), dtype=np.float32),
            "deepstack": np.zeros((2, 1, 1, 64), np.float32),
            "last": np.full(rows, 5),
        }
        for rows in (1, 3)
    ]
    whole = verify.OrtSession(graph, OPTIONS)
    for one, pieces in zip(feeds, run_in_pieces(graph, feeds, piece_bytes=piece_bytes), strict=True):
        assert np.abs(whole.run(one)["pooled"] - pieces["pooled"]).max() < 1e-5


def test_large_graphs_are_verified_in_pieces(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, *_: object) -> None:
            raise AssertionError("a large graph must not be loaded whole")

    monkeypatch.setattr(verify, "_LARGE_BYTES", 0)
    monkeypatch.setattr(verify, "OrtSession", Refused)
    assert failures(bundle) == []


def test_pieces_of_a_damaged_graph_name_it(bundle: Bundle) -> None:
    graph = bundle.file(bundle.part("embedder").decoder)
    graph.write_bytes(b"\xff" * 64)
    with pytest.raises(BundleError, match=r"embedder_fp32\.onnx: cannot be read"):
        run_in_pieces(graph, [{}])


def test_sizes_are_checked_before_hashes(bundle: Bundle) -> None:
    name = "tokenizer.json"
    files = dict(bundle.manifest.files)
    files[name] = FileRecord(size=files[name].size + 1, sha256=files[name].sha256)
    (bundle.path / MANIFEST).write_text(replace(bundle.manifest, files=files).to_json(), encoding="utf-8")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        open_bundle(bundle.path)
