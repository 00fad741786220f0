"""How a library's models are run: as asked for, else as it remembers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.errors import LibraryError
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.records import Space, SpaceIdentity
from qvl_local.runtime.library.running import Asked, Running
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.model.checkpoints import surely_differ

NO_DECODER = IndexSettings(WorkerSettings(1), worker_command=("false",))


def space(precision: str, model: str = "tiny") -> Space:
    return Space(1, SpaceIdentity(model, "r1", precision, 64, "384 tokens", "v1"), active=True)


@pytest.mark.parametrize(
    ("asked", "remembered", "expected"),
    [
        (Asked(), None, ("tiny", "onnx", None)),
        (Asked("2b", "torch", "cpu", "nf4"), None, ("2b", "torch", "nf4")),
        (Asked(), space("fp16/fp16"), ("tiny", "onnx", "fp16")),
        (Asked("tiny"), space("nf4/int8-weight"), ("tiny", "onnx", "nf4")),
        (Asked(), space("int8-fine/fp16"), ("tiny", "onnx", "int8-safe")),
        (Asked(), space("torch bf16/bf16", "2b"), ("2b", "torch", "bf16")),
        (Asked(precision="fp32"), space("torch bf16/bf16", "2b"), ("2b", "torch", "fp32")),
        (Asked(backend="onnx"), space("torch bf16/bf16", "2b"), ("2b", "onnx", None)),
        (Asked("8b"), space("torch bf16/bf16", "2b"), ("8b", "onnx", None)),
    ],
)
def test_what_is_not_asked_for_is_remembered(
    asked: Asked, remembered: Space | None, expected: tuple[str, str, str | None]
) -> None:
    model, backend, precision = expected
    assert asked.running(remembered) == Running(model, backend, "cpu", precision)  # type: ignore[arg-type]


@pytest.mark.parametrize("remembered", [None, space("fp16/fp16")])
def test_a_brief_library_opens_brief_models(remembered: Space | None) -> None:
    assert Asked(brief=True).running(remembered).brief
    assert not Asked().running(remembered).brief


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("tiny", "2b", True),
        ("tiny", "8B@main", True),
        ("2b", "Qwen/Qwen3-VL-Embedding-8B", True),
        ("2b", "Qwen/Qwen3-VL-Embedding-2B", False),
        ("2b", "2b@v1", False),
        ("tiny", "tiny", False),
        ("tiny", "/models/copy-of-tiny", False),  # whether it is one shows when it is opened
        ("2b", "someone/a-mirror", False),
    ],
)
def test_names_tell_models_apart_only_where_they_are_sure(one: str, other: str, differ: bool) -> None:
    assert surely_differ(one, other) is differ
    assert surely_differ(other, one) is differ


def test_a_bundle_folder_has_its_own_precision(tmp_path: Path) -> None:
    (tmp_path / "qvl.json").write_text("{}")
    assert Asked().running(space("fp16/fp16", str(tmp_path))).precision is None


def test_a_library_is_kept_at_its_precision(
    tmp_path: Path, tiny_bundle: str, media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QVL_CACHE_DIR", str(Path(tiny_bundle).parents[1]))
    media.photo(tmp_path / "album" / "red.jpg", (200, 30, 30))
    home = tmp_path / "library"
    with Library.open(home, precision="fp16", settings=IndexSettings(WorkerSettings(1))) as library:
        assert library.index([tmp_path / "album"]).items == 1
    with Library.open(home, settings=NO_DECODER) as library:
        assert library.search("red", rerank=False).hits
        report = library.index()
        assert (report.items, report.unchanged, report.updated) == (1, 1, 0)
    with Library.open(home, precision="fp32") as library:
        with pytest.raises(LibraryError, match="as fp16/fp16, not as fp32/fp32") as no:
            library.search("red")
        assert "Leave --backend and --precision out, or index all of it again" in str(no.value)
        command = shlex.split(str(no.value).partition("with this one: ")[2])
        assert command[-2:] == ["--precision", "fp32"]
