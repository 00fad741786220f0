"""`bench accuracy` from end to end: real bundles of qvl-tiny, drawn and own pictures, gate, files, card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from qvl_local.desktop.cli import run
from qvl_local.quant.accuracy.card import BEGIN
from qvl_local.quant.accuracy.world import WorldSize
from qvl_local.runtime.model.bundle import open_bundle
from qvl_local.runtime.model.image import read_image
from qvl_local.runtime.world.demo import make_sample_library

QUICK = ("--limit", "2", "--dims", "256,64", "--vectors", "binary,float32")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "fp16"
    assert run(["export", "tiny", "--precision", "fp16", "--no-report", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bench(
    cli_json: Callable[..., dict[str, Any]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Run `bench accuracy`, with a cache of this module's own, and check what it prints."""
    monkeypatch.setenv("QVL_CACHE_DIR", str(cache))

    def call(*arguments: str, status: int = 0) -> dict[str, Any]:
        return cli_json("bench", "accuracy", *arguments, status=status)

    return call


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "mine"
    items = make_sample_library(tmp_path_factory.mktemp("drawn") / "all", photos=14, clips=0, seed=21)
    folder.mkdir()
    for number, item in enumerate(items):
        pixels = Image.fromarray(read_image(item.path))
        pixels.resize((160, 160)).save(folder / f"{number:02}.jpg")
    return folder


@pytest.fixture
def spoilt(bundle: Path, tmp_path: Path) -> Path:
    """A bundle of the right form whose vision tower lost its last weights."""
    folder = tmp_path / "spoilt"
    shutil.copytree(bundle, folder)
    weights = folder / "onnx" / "vision_encoder_fp16.onnx_data"
    values = np.fromfile(weights, np.float16)
    values[len(values) // 2 :] = 0
    values.tofile(weights)
    return folder


def test_the_whole_report(bench: Any, cli: Any, cli_json: Any, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    printed = bench(str(bundle), *QUICK, "--max-drop", "0.5", "-o", str(out), "--update-card")
    assert printed["reference"] == "fp32"
    assert "core" in printed["machine"]
    assert [one["label"] for one in printed["bundles"]] == ["fp32", "fp16"]
    assert [(d["name"], d["labels"], d["questions"]) for d in printed["datasets"]] == [
        ("images", "exact", 2),
        ("clips", "exact", 2),
        ("siblings", "exact", 2),
    ]
    reference, measured = printed["bundles"]
    assert measured["path"] == str(bundle)
    assert measured["bytes"] < reference["bytes"]
    assert reference["agreement"] is None
    assert measured["agreement"]["cosine_min"] > 0.99
    assert measured["agreement"]["yes_change_max"] < 0.1
    assert all(measured["cost"][name] > 0 for name in ("document_ms", "question_ms", "pair_ms"))
    ways = [(row["dims"], row["vectors"], row["rerank"]) for row in measured["rows"]]
    assert ways == [
        (dims, kind, rerank)
        for dims in (256, 64)
        for kind in ("float32", "binary")
        for rerank in (False, True)
    ]
    assert measured["rows"][0]["spearman"] > 0.99
    assert printed["ok"]
    assert [check["rerank"] for check in printed["gate"]["checks"]] == [False, True]

    assert json.loads((out / "accuracy.json").read_text(encoding="utf-8")) == printed
    ElementTree.parse(out / "accuracy.svg")
    assert "# fp16" in (out / "accuracy.md").read_text(encoding="utf-8")

    # The card and the manifest carry the figures, and the bundle is still sound.
    assert (bundle / "README.md").read_text(encoding="utf-8").count(BEGIN) == 1
    written = open_bundle(bundle).manifest.accuracy
    assert written["rows"] == measured["rows"]
    assert written["reference"] == {"label": "fp32", "precision": reference["precision"]}
    assert cli_json("verify", str(bundle))["ok"]


def test_tables_say_the_same(bench: Any, cli: Any, bundle: Path, photos: Path) -> None:
    outcome = cli(
        "bench", "accuracy", str(bundle), "--against", str(bundle), "--data", str(photos), "--no-rerank",
        "--limit", "3", "--dims", "64,32", "--vectors", "int8", "--max-drop", "1",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "3 questions, 14 documents; the reference's first ten count as right" in outcome.out
    assert "With 3 questions, not every row can be told from the reference" in outcome.out
    assert outcome.out.splitlines()[-1].startswith("Verdict: the bundle is the reference itself")
    assert "int8" in outcome.out
    assert "float32" not in outcome.out.split("change of nDCG@10")[1].split("±")[0]


def test_a_spoilt_bundle_fails_the_gate(bench: Any, bundle: Path, spoilt: Path, photos: Path) -> None:
    printed = bench(
        str(spoilt), "--against", str(bundle), "--data", str(photos), "--no-rerank", "--max-drop", "0.05",
        "--dims", "256", "--vectors", "float32", status=1,
    )  # fmt: skip
    assert not printed["ok"]
    (check,) = printed["gate"]["checks"]
    assert check["drop"] > 0.05
    assert "fell by" in check["text"]
    # Two bundles of one precision are told apart by their folders.
    assert [one["label"] for one in printed["bundles"]] == ["fp16 (fp16)", "fp16 (spoilt)"]
    assert printed["bundles"][0]["rows"][0]["figures"]["ndcg@10"]["value"] == 1


def test_a_bundle_that_overflows_is_named(bench: Any, bundle: Path, spoilt: Path, photos: Path) -> None:
    weights = spoilt / "onnx" / "vision_encoder_fp16.onnx_data"
    np.full(weights.stat().st_size // 2, np.inf, np.float16).tofile(weights)
    error = bench(
        str(spoilt), "--against", str(spoilt), "--data", str(photos), "--limit", "2", "--no-rerank", status=1
    )["error"]
    assert error["type"] == "ModelError"
    assert str(spoilt) in error["message"]
    assert "finite" in error["message"]


def test_own_questions_and_a_broken_file(bench: Any, bundle: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "asked"
    shutil.copytree(photos, folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    lines = [
        {"id": "self", "image": "03.jpg", "relevant": {"04.jpg": 1}},
        {"id": "words", "text": "a dog", "relevant": {"05.jpg": 2, "06.jpg": 1}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "queries.jsonl").write_text(text, encoding="utf-8")
    printed = bench(
        str(bundle), "--against", str(bundle), "--data", str(folder), "--dims", "256", "--vectors", "float32"
    )
    (dataset,) = printed["datasets"]
    assert (dataset["labels"], dataset["questions"], dataset["documents"]) == ("given", 2, 14)
    assert [Path(one["path"]).name for one in dataset["unreadable"]] == ["broken.jpg"]
    assert printed["gate"] is None
    assert [row["rerank"] for row in printed["bundles"][0]["rows"]] == [False, True]

    (folder / "queries.jsonl").write_text(text + '{"id": "words", "text": "x"}\n', encoding="utf-8")
    error = bench(str(bundle), "--data", str(folder), "--against", str(bundle), status=2)["error"]
    assert "queries.jsonl, line 3" in error["message"]


def test_an_export_measures_what_it_cost(
    bench: Any, cli: Any, cli_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = WorldSize(images=8, image_questions=2, families=0, family_questions=0, clips=0, clip_questions=0)
    monkeypatch.setattr("qvl_local.export.report.BRIEF", few)
    folder = str(tmp_path / "bundle")
    # Small and less than fp32: measured without being asked.
    outcome = cli("export", "tiny", "--precision", "fp16", "--dims", "64", "-o", folder, "--json")
    assert "--no-report skips this step" in outcome.err
    report = json.loads(outcome.out)["accuracy"]
    assert report["reference"]["label"] == "fp32"
    assert [(d["name"], d["questions"]) for d in report["datasets"]] == [("images", 2)]
    assert {row["dims"] for row in report["rows"]} == {64}
    assert BEGIN in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert cli_json("verify", folder)["ok"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "/nowhere"], "/nowhere"),
        (["--data", ".", "--no-report"], "--no-report"),
    ],
)
def test_wrong_usage_of_a_report(cli_json: Any, tmp_path: Path, arguments: list[str], says: str) -> None:
    error = cli_json("export", "tiny", *arguments, "-o", str(tmp_path / "bundle"), status=2)["error"]
    assert says in error["message"]
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dims", "many"], "--dims"),
        (["--dims", "12"], "multiple of 8"),
        (["--dims", "512"], "256"),
        (["--dims", ","], "--dims"),
        (["--vectors", "int4"], "int4"),
        (["--vectors", ""], "--vectors"),
        (["--max-drop", "-1"], "--max-drop"),
        (["--against", "/nowhere"], "/nowhere"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--no-rerank", "--dims", "0"], "--dims"),
    ],
)
def test_wrong_usage(bench: Any, bundle: Path, arguments: list[str], says: str) -> None:
    against = [] if "--against" in arguments else ["--against", str(bundle)]
    error = bench(str(bundle), *against, *arguments, "--limit", "2", status=2)["error"]
    assert says in error["message"]


def test_what_is_no_bundle(bench: Any, tmp_path: Path) -> None:
    assert "/nowhere" in bench("/nowhere", status=2)["error"]["message"]
    assert bench(str(tmp_path), status=1)["error"]["type"] == "BundleError"
