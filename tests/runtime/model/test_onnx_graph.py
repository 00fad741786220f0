"""The reader of graph files against the onnx package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from qvl_local.runtime.errors import BundleError
from qvl_local.runtime.model.onnx_graph import build_model, read_graph


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """y = relu(x @ w + b), with w outside the file and b inside."""
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3])
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "graph.data"), ("offset", "65536"), ("length", "48")):
        outside.external_data.add(key=key, value=value)
    inside = numpy_helper.from_array(np.arange(3, dtype=np.float32), "b")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="/MatMul"),
        helper.make_node("Add", ["product", "b"], ["sum"], name="/Add"),
        helper.make_node("Clip", ["sum", "", "high"], ["y"], name="/Clip"),
    ]
    graph = helper.make_graph(
        nodes,
        "sample",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [outside, inside, numpy_helper.from_array(np.float32(9), "high")],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    file = tmp_path / "graph.onnx"
    file.write_bytes(helper.make_model(graph, ir_version=11, opset_imports=opsets).SerializeToString())
    return file


def test_structure_is_what_was_written(path: Path) -> None:
    graph = read_graph(path)
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))
    assert [node.inputs for node in graph.nodes] == [("x", "w"), ("product", "b"), ("sum", "", "high")]
    assert [node.outputs for node in graph.nodes] == [("product",), ("sum",), ("y",)]
    weight = graph.weights["w"]
    assert (weight.location, weight.offset, weight.length) == ("graph.data", 65536, 48)
    assert graph.weights["b"].location is None


def test_a_part_is_a_model_that_onnx_reads(path: Path) -> None:
    graph = read_graph(path)
    raw = build_model(
        graph,
        graph.nodes[1:],
        [graph.weights["b"], graph.weights["high"]],
        inputs=[("product", TensorProto.FLOAT, 2)],
        outputs=["y"],
    )
    model, whole = onnx.load_from_string(raw), onnx.load(path, load_external_data=False)
    assert model.ir_version == whole.ir_version
    assert list(model.opset_import) == list(whole.opset_import)
    assert list(model.graph.node) == list(whole.graph.node)[1:]
    assert list(model.graph.initializer) == list(whole.graph.initializer)[1:]
    value = model.graph.input[0]
    assert (value.name, value.type.tensor_type.elem_type) == ("product", TensorProto.FLOAT)
    assert len(value.type.tensor_type.shape.dim) == 2
    assert [output.name for output in model.graph.output] == ["y"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: b"", id="empty"),
        pytest.param(lambda raw: raw[: len(raw) // 2], id="cut"),
        pytest.param(lambda raw: b"\xff" * 64, id="no varint"),
        pytest.param(lambda raw: b"\x0b" + raw, id="no such wire type"),
        pytest.param(lambda raw: raw.replace(b"65536", b"6553x"), id="offset is no number"),
        pytest.param(lambda raw: raw.replace(b"product", b"\xffroduct"), id="name is no text"),
    ],
)
def test_damage_is_named(path: Path, damage: Callable[[bytes], bytes]) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError, match=r"graph\.onnx: cannot be read"):
        read_graph(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone\.onnx: cannot be read"):
        read_graph(tmp_path / "gone.onnx")
