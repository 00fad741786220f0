"""`export`, `verify`, `doctor` and `demo`: the commands that need no library to begin with."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qvl_local.desktop.commands.export import sources_of
from qvl_local.desktop.commands.verify import SAMPLE_WORLD, command_to_export
from qvl_local.runtime.model.bundle import Bundle, Table, open_bundle
from qvl_local.runtime.model.resolve import resolve

TINY = Path(__file__).parents[2] / "models" / "tiny"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def made(bundle: Path, *, parts: dict[str, Any] | None = None, **manifest: Any) -> Bundle:
    """A bundle as its manifest tells it, with other facts in it."""
    opened = open_bundle(bundle)
    changed = {role: replace(part, **(parts or {})) for role, part in opened.manifest.parts.items()}
    return replace(opened, manifest=replace(opened.manifest, parts=changed, **manifest))


HALF = Table("t", "float16", 9, 256)
NF4 = {
    "vision_precision": "int8-weight",
    "decoder_precision": "nf4",
    "table": HALF,
    "calibration": None,
}

SAFE = {
    "vision_precision": "fp16",
    "decoder_precision": "int8-fine",
    "table": HALF,
    "calibration": SAMPLE_WORLD,
    "exceptions": {"language_model.layers.0.self_attn.q_proj": "fp16"},
}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, ""),
        ({"parts": {"dims": 64}}, "--dims 64 "),
        ({"flavour": "portable", "opset": 23}, "--flavour portable "),
        ({"flavour": "portable", "opset": 20}, "--flavour portable --opset 20 "),
        ({"parts": NF4, "layout": "shared"}, "--precision nf4 --layout shared "),
        ({"parts": NF4}, "--precision nf4 --layout separate "),
        (
            {"parts": {**NF4, "calibration": "20 own pictures"}},
            "--precision nf4 --calibrate PICTURES --layout separate ",
        ),
        ({"parts": SAFE}, "--precision int8-safe --layout separate "),
        ({"parts": {**SAFE, "exceptions": {}}}, "--recipe RECIPE.toml --layout separate "),
        ({"parts": {**NF4, "calibration": SAMPLE_WORLD}}, "--recipe RECIPE.toml --layout separate "),
        ({"parts": {**NF4, "vision_precision": "fp32"}}, "--recipe RECIPE.toml --layout separate "),
        ({"parts": {"exceptions": {"x": "int8"}}}, "--recipe RECIPE.toml "),
        (
            {"parts": {**NF4, "exceptions": {"x": "int8-weight, rows of 4304 padded to 4352"}}},
            "--precision nf4 --layout separate ",
        ),
    ],
)
def test_a_damaged_bundle_is_made_again_as_it_was(facts: dict[str, Any], expected: str) -> None:
    bundle = resolve("tiny").path
    command = command_to_export(made(bundle, **facts))
    command, _, own = command.partition(", with what it was made with as ")
    assert command == f"qvl-local export tiny {expected}-o {bundle}"
    assert own == "".join(name for name in ("RECIPE.toml", "PICTURES") if name in expected)


@pytest.mark.parametrize(("options", "layout"), [([], "shared"), (["--layout", "separate"], "separate")])
def test_export_says_how_the_decoders_are_laid_out(
    place: Path, cli_json: Any, options: list[str], layout: str
) -> None:
    bundle = place / layout
    printed = cli_json("export", "tiny", "--precision", "int8", *options, "--no-report", "-o", str(bundle))
    assert printed["layout"] == layout
    assert ("adapters" in printed) == (layout == "shared")
    assert (bundle / "onnx" / "decoder_int8.onnx").is_file() == (layout == "shared")
    again = command_to_export(open_bundle(bundle))
    assert again == f"qvl-local export tiny --precision int8 --layout {layout} -o {bundle}"


def test_a_wrong_layout_is_wrong_usage(place: Path, cli: Any) -> None:
    outcome = cli("export", "tiny", "--layout", "both", "-o", str(place / "never"))
    assert outcome.status == 2
    assert "auto, shared, separate" in outcome.err
    assert not (place / "never").exists()


def test_export_then_verify_then_damage(place: Path, cli: Any, cli_json: Any) -> None:
    bundle = place / "bundle"
    printed = cli_json("export", "tiny", "--precision", "fp32", "--dims", "128", "-o", str(bundle))
    assert printed["path"] == str(bundle)
    assert printed["precision"] == {"embedder": "fp32", "reranker": "fp32"}
    assert printed["dims"] == 128
    assert {figure["role"] for figure in printed["parity"]} == {"embedder", "reranker"}
    files = [file for file in bundle.rglob("*") if file.is_file() and file.name != "qvl.json"]
    assert printed["bytes"] == sum(file.stat().st_size for file in files)

    assert cli_json("verify", str(bundle))["ok"]
    outcome = cli("verify", str(bundle))
    assert outcome.status == 0
    assert "The bundle is sound." in outcome.out

    head = bundle / "token_head.npy"
    content = bytearray(head.read_bytes())
    content[-1] ^= 1
    head.write_bytes(content)
    broken = cli_json("verify", str(bundle), status=1)
    assert not broken["ok"]
    assert any("token_head.npy" in finding["text"] for finding in broken["findings"] if not finding["ok"])
    outcome = cli("verify", str(bundle))
    assert outcome.status == 1
    assert outcome.out.endswith(f"Export it again: qvl-local export tiny --dims 128 -o {bundle}\n")

    head.unlink()
    assert cli_json("verify", str(bundle), status=1)["error"]["type"] == "BundleError"


def test_export_takes_two_checkpoints_in_any_order() -> None:
    first, second = str(TINY / "reranker"), str(TINY / "embedding")
    for names in ([first, second], [second, first]):
        sources = sources_of(names, lambda _step, _done: None)
        assert {role: str(source.path) for role, source in sources.items()} == {
            "embedder": second,
            "reranker": first,
        }


@pytest.mark.parametrize(
    ("arguments", "status", "names"),
    [
        (["tiny", "--precision", "int3"], 2, "'int3'. Choose one of: fp16, fp32, int4"),
        (["tiny", "tiny", "tiny"], 2, "MODEL"),
        (["nonesuch"], 1, "nonesuch"),
        ([str(TINY / "reranker"), str(TINY / "reranker")], 2, "rerankers"),
        (["tiny", "--dims", "100000"], 2, "100000"),
    ],
)
def test_export_refuses(arguments: list[str], status: int, names: str, cli_json: Any, tmp_path: Path) -> None:
    error = cli_json("export", *arguments, "-o", str(tmp_path / "bundle"), status=status)["error"]
    assert names in error["message"]
    if names == "100000":
        assert str(TINY.parent) not in error["message"]  # the model by its name, not by where it lies
    assert not (tmp_path / "bundle").exists()


def test_export_leaves_other_folders_alone(cli_json: Any, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    assert cli_json("export", "tiny", "-o", str(tmp_path), status=2)["error"]["type"] == "InputError"
    assert [file.name for file in tmp_path.iterdir()] == ["holiday.jpg"]


def test_doctor(cli: Any, cli_json: Any, sample: Any) -> None:
    printed = cli_json("doctor")
    assert printed["ok"]
    assert printed["library"]["path"] == str(sample.library)
    assert printed["library"]["exists"]
    assert printed["photo"]["model"] == "tiny"
    assert printed["photo"]["tokens"] * 32 * 32 == printed["photo"]["width"] * printed["photo"]["height"]
    assert {"name": "tiny", "state": "included"} in printed["models"]
    assert printed["place_names"]
    shown = cli("doctor")
    assert shown.status == 0
    assert f"LibRaw {printed['engines']['libraw']}" in shown.out
    assert "ONNX Runtime" in shown.out
    assert "Everything is in place" in shown.out


def test_doctor_says_how_places_get_names(cli: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("qvl_local.runtime.library.place_names.find_spec", lambda name: None)
    shown = cli("doctor")
    assert shown.status == 0
    assert "pip install 'qvl-local[places]'" in shown.out


def test_doctor_says_how_raw_files_are_read(cli: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("qvl_local.runtime.model.raw_photo.find_spec", lambda name: None)
    shown = cli("doctor")
    assert shown.status == 0
    assert "pip install 'qvl-local[raw]'" in shown.out


def test_doctor_finds_what_stands_in_the_way(cli: Any, cli_json: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    library = str(tmp_path / "file" / "library")
    printed = cli_json("doctor", "--library", library, "--model", "nonesuch", status=1)
    assert not printed["ok"]
    assert any(library in problem for problem in printed["problems"])
    assert any("nonesuch" in problem for problem in printed["problems"])
    shown = cli("doctor", "--library", library, "--model", "nonesuch")
    assert shown.status == 1
    assert "Problem:" in shown.out


@pytest.mark.parametrize("what", ["pictures", "a folder where the database should be"])
def test_doctor_says_where_no_library_can_be(cli: Any, cli_json: Any, tmp_path: Path, what: str) -> None:
    """It said that everything was in place, and `index` refused the folder."""
    if what == "pictures":
        (tmp_path / "holiday.jpg").write_bytes(b"mine")
    else:
        (tmp_path / "library.db").mkdir()
    printed = cli_json("doctor", "--library", str(tmp_path), status=1)
    assert any(str(tmp_path) in problem for problem in printed["problems"])
    assert "in place" not in cli("doctor", "--library", str(tmp_path)).out
    assert cli("index", str(TINY), "--library", str(tmp_path)).status == 1


def test_doctor_says_once_that_the_cache_cannot_be_written(
    cli_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "file"))
    printed = cli_json("doctor", status=1)
    assert [problem for problem in printed["problems"] if "model cache" in problem] == [
        f"{tmp_path / 'file'}: the model cache cannot be written. "
        "Get access, or choose another folder: QVL_CACHE_DIR=/some/folder"
    ]
    assert printed["photo"] is None


def test_doctor_shows_and_removes_exports_of_other_versions(
    cli: Any, cli_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = resolve("tiny").path
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path))
    shutil.copytree(current, tmp_path / "bundles" / current.name)
    old = tmp_path / "bundles" / "tiny-embedding-int8-0123456789abcdef-01234567"
    shutil.copytree(current, old)
    printed = cli_json("doctor")
    assert [(one["path"], one["bytes"] > 10_000_000) for one in printed["outdated"]] == [(str(old), True)]
    shown = " ".join(cli("doctor").out.split())
    assert "1 export of another version of qvl-local" in shown
    assert "qvl-local doctor --clean" in shown
    cleaned = cli("doctor", "--clean")
    assert f"Removed {old} (" in cleaned.err
    assert "of another version" not in cleaned.out
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [current.name]


def test_doctor_plans_for_one_precision(cli: Any, cli_json: Any) -> None:
    plans = cli_json("doctor", "--model", "2b", "--precision", "int8-safe")["plans"]
    assert plans
    for option in plans[0]["options"]:
        assert option["precision"] == "int8-safe"
        decoders = {"shared": 1, "separate": 2}[option["layout"]]
        held = option["vision_held_bytes"] + decoders * option["decoder_held_bytes"]
        assert option["resident_bytes"] == held + option["adapters_held_bytes"]
    shown = " ".join(cli("doctor", "--model", "2b", "--precision", "int8-safe").out.split())
    assert "2b on the CPU: int8-safe, one decoder, adapters" in shown
    assert "vision tower +" in shown
    error = cli_json("doctor", "--precision", "int7", status=2)["error"]
    assert "--precision int7: cannot be planned. Choose one of: fp32, fp16, int8" in error["message"]


def test_doctor_counts_the_download_beside_the_export(
    cli: Any, cli_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**10, 10**10, 8_600_000_000))
    (plan,) = cli_json("doctor", "--model", "2b", "--precision", "int8")["plans"]
    assert (plan["disk_free_bytes"], plan["is_one_disk"]) == (8_600_000_000, True)
    for option in plan["options"]:
        assert 8.4e9 < option["download_bytes"] < 8.6e9
        assert option["fits_disk"] is False
    shown = " ".join(cli("doctor", "--model", "2b", "--precision", "int8").out.split())
    assert "2.6 GB export + 8.5 GB download, which stays beside it = 11.1 GB of 8.6 GB free" in shown
    assert "not on the disk with its download" in shown
    assert "To free that: name the export's own folder" in shown
    assert "Everything is in place, but not the room for 2b." in shown


def test_doctor_says_why_it_recommends_no_better_precision(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvl_local.runtime.hardware.memory_bytes", lambda: 20_800_000_000)
    shown = " ".join(cli("doctor", "--model", "8b").out.split())
    assert "8b on the CPU: int4" in shown
    assert "int8 and int8-weight would fit only if the models can share a decoder" in shown


def test_export_says_whom_fewer_dimensions_are_for(cli: Any, tmp_path: Path) -> None:
    shown = cli("export", "tiny", "--dims", "64", "--no-report", "-o", str(tmp_path / "bundle"))
    assert shown.status == 0
    words = " ".join(shown.out.split())
    assert "64 of 256 dimensions for programs that embed with it; a library keeps them all" in words


def test_doctor_opens_the_library(cli_json: Any, tmp_path: Path) -> None:
    (tmp_path / "library.db").write_bytes(b"not a database" * 100)
    printed = cli_json("doctor", "--library", str(tmp_path), status=1)
    assert any(str(tmp_path / "library.db") in problem for problem in printed["problems"])


def test_demo_makes_indexes_and_searches(
    cli: Any, cli_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = sys.modules["qvl_local.desktop.commands.demo"]  # the package exports the function of that name

    monkeypatch.setattr(demo, "PHOTOS", 8)
    monkeypatch.setattr(demo, "CLIPS", 3)
    library = str(tmp_path / "demo")
    printed = cli_json("demo", "--library", library)
    assert (printed["index"]["photos"], printed["index"]["videos"]) == (8, 3)
    assert all(search["results"] for search in printed["searches"])
    assert {hit["kind"] for hit in printed["searches"][2]["results"]} == {"video"}

    # However it was given, a path has one form: what is below the home folder begins with ~.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    again = cli("demo", "--library", "demo")
    assert again.status == 0
    assert "11 unchanged" in again.out
    assert "Sample pictures and library: ~/demo\n" in again.err
    assert again.out.count("--library ~/demo\n") == 3
    assert "qvl-local serve --library ~/demo\n" in again.out
    assert "built-in" not in again.err
    assert again.out.count("~/demo/Sample pictures/") == sum(
        len(one["results"]) for one in printed["searches"]
    )
    assert "Delete ~/demo" in again.out
    assert str(tmp_path) not in again.out + again.err
    assert "qvl-local index ~/Pictures --model 2b" in again.out


def test_doctor_plans_both_sizes_and_recommends_one_way_each(cli: Any, cli_json: Any) -> None:
    plans = cli_json("doctor")["plans"]
    assert {plan["model"] for plan in plans} == {"2b", "8b"}
    for plan in plans:
        recommended = [option for option in plan["options"] if option["recommended"]]
        assert len(recommended) == 1
        assert (plan["tokens"], plan["photos"]) == (384, 20)
        for option in plan["options"]:
            parts = option["resident_bytes"] + option["work_bytes"] + option["process_bytes"]
            assert option["total_bytes"] == parts
            assert option["fits_memory"] == (option["total_bytes"] <= plan["usable_bytes"])
    shown = cli("doctor", "--model", "2b", "--tokens", "1000", "--photos", "3")
    assert "3 photos of 1,000 visual tokens" in shown.out
    assert "2b on the CPU: " in shown.out
    assert "8b" not in shown.out.split("Embedder and reranker together")[1]
    assert "for everything else)" in " ".join(shown.out.split())


def test_doctor_shows_graphics_cards_and_plans_for_them(
    cli: Any, cli_json: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = "Fake GeForce 8GB, 8192, 7000, 1.2.3, 8.9"
    tool = tmp_path / "fake" / "nvidia-smi"  # a fake: no card is here
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    printed = cli_json("doctor", "--model", "8b")
    assert printed["machine"]["gpus"] == [
        {
            "name": "Fake GeForce 8GB",
            "memory_bytes": 8192 << 20,
            "free_bytes": 7000 << 20,
            "driver": "1.2.3",
            "compute_capability": "8.9",
        }
    ]
    assert [plan["place"] for plan in printed["plans"]] == ["cpu", "cuda"]
    on_card = printed["plans"][1]["options"]
    assert [(one["precision"], one["layout"]) for one in on_card if one["fits_memory"]] == [
        ("int4", "shared"),
        ("nf4", "shared"),
    ]
    shown = cli("doctor", "--model", "8b")
    assert "Fake GeForce 8GB, 8.6 GB, 7.3 GB free, driver 1.2.3, compute capability 8.9" in shown.out
    assert "8b on the GPU: int4, one decoder, adapters; if the models differ" in " ".join(shown.out.split())
