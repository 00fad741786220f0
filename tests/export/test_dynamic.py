"""int8-dynamic without optimum: refused before anything is written, with the command that installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import LayerRule, Recipe
from qvl_local.runtime.errors import InputError, MissingExtraError
from qvl_local.runtime.model.resolve import Checkpoint as Source


def test_without_optimum_the_extra_is_named(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optimum", None)
    monkeypatch.setitem(sys.modules, "optimum.onnxruntime", None)
    source = Source(path=tiny["embedder"], name="tiny")
    with pytest.raises(MissingExtraError, match=r"pip install 'qvl-local\[optimum\]'"):
        export_bundle({"embedder": source}, tmp_path / "bundle", recipe=Recipe.of("int8-dynamic"))
    assert not (tmp_path / "bundle").exists()


def test_it_is_for_whole_towers_in_onnx_runtime() -> None:
    with pytest.raises(InputError, match="whole towers"):
        Recipe(vision="int8", decoder="int8", layers=(LayerRule("*", "int8-dynamic"),))
    with pytest.raises(InputError, match="portable flavour has no int8-dynamic"):
        Recipe.of("int8-dynamic", flavour="portable")
