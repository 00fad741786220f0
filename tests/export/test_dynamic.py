"""int8-dynamic: a bundle that optimum made works; without optimum the command that installs it is named."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import LayerRule, Recipe
from qvl_local.runtime import Embedder
from qvl_local.runtime.errors import InputError, MissingExtraError
from qvl_local.runtime.model.checkpoints import Checkpoint as Source


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


def test_optimums_bundle_embeds_nearly_as_float32(
    tiny: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = tmp_path / "bundle"
    source = Source(path=tiny["embedder"], name="tiny/embedding")
    manifest = export_bundle({"embedder": source}, bundle, recipe=Recipe.of("int8-dynamic"))
    assert not caplog.records  # of what is so by design, nobody is warned
    part = manifest.parts["embedder"]
    assert (part.vision_precision, part.decoder_precision) == ("int8-dynamic", "int8-dynamic")
    for relative in (part.vision, part.decoder):
        graph = onnx.load(bundle / relative, load_external_data=False).graph
        weights = {tensor.name for tensor in graph.initializer}
        operators = {node.op_type for node in graph.node}
        assert {"DynamicQuantizeLinear", "MatMulInteger"} <= operators
        assert not [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    texts = [{"text": "two dogs on a beach at night"}, {"text": "three balloons"}]
    theirs = Embedder.open(bundle, threads=1).embed(texts)
    exact = Embedder.open("tiny", threads=1).embed(texts)
    cosines = (theirs * exact).sum(axis=1)
    assert cosines.min() > 0.99
    assert cosines.max() < 0.999999, "it is float32 that ran"
