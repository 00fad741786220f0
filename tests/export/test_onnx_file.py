"""The model writer against the reference reader: what `onnx` loads is what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from qvl_local.export.onnx_file import (
    Constant,
    ElementType,
    Initializer,
    Model,
    Node,
    ValueInfo,
    write_model,
)

ATTRIBUTES = {"axis": -1, "count": 1 << 40, "epsilon": 1e-6, "mode": "linear", "perm": [0, 2, 1, 3]}


def model(weights: tuple[Initializer, ...] = (), constants: tuple[Constant, ...] = ()) -> Model:
    return Model(
        name="sample",
        opsets={"": 23, "com.microsoft": 1},
        inputs=(ValueInfo("x", ElementType.FLOAT, ("B", "T", 8)),),
        outputs=(ValueInfo("y", ElementType.FLOAT16, ("B", 4)),),
        nodes=(Node("/a/Op", "Op", ("x", "", "w"), ("y", "z"), "com.microsoft", ATTRIBUTES),),
        weights=weights,
        constants=constants,
    )


def weight(name: str, array: np.ndarray) -> Initializer:
    return Initializer(name, ElementType.of(array.dtype), array.shape, lambda: array)


def test_nodes_values_and_attributes_read_back(tmp_path: Path) -> None:
    write_model(model(), tmp_path / "m.onnx")
    read = onnx.load(tmp_path / "m.onnx")
    assert {entry.domain: entry.version for entry in read.opset_import} == {"": 23, "com.microsoft": 1}
    assert (read.ir_version, read.producer_name, read.graph.name) == (11, "qvl-local", "sample")
    [node] = read.graph.node
    assert (node.name, node.op_type, node.domain) == ("/a/Op", "Op", "com.microsoft")
    assert (list(node.input), list(node.output)) == (["x", "", "w"], ["y", "z"])
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    assert attributes.pop("epsilon") == pytest.approx(1e-6)
    assert attributes == {"axis": -1, "count": 1 << 40, "mode": b"linear", "perm": [0, 2, 1, 3]}
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in read.graph.input]
    assert shapes == [["B", "T", 8]]
    assert read.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_weights_and_constants_read_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "small": rng.standard_normal(5, dtype=np.float32),
        "large": rng.standard_normal((600, 500), dtype=np.float32),
        "half": rng.standard_normal((3, 7)).astype(np.float16),
        "codes": rng.integers(0, 255, (4, 9)).astype(np.uint8),
        "turned": np.asfortranarray(rng.standard_normal((6, 4), dtype=np.float32)),
        "none": np.zeros((0, 3), dtype=np.float32),
    }
    constants = {"scalar": np.array(-3, np.int64), "flags": np.array([True, False])}
    written: list[int] = []
    write_model(
        model(
            tuple(weight(name, array) for name, array in arrays.items()),
            tuple(Constant(name, array) for name, array in constants.items()),
        ),
        tmp_path / "m.onnx",
        on_weight=written.append,
    )
    read = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    for name, array in (arrays | constants).items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)
    assert written == [array.nbytes for array in arrays.values()]


def test_large_weights_start_where_they_can_be_mapped(tmp_path: Path) -> None:
    large = np.ones((600, 500), np.float32)
    write_model(model((weight("a", large[:1]), weight("b", large), weight("c", large))), tmp_path / "m.onnx")
    tensors = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors]
    assert {place["location"] for place in places} == {"m.onnx_data"}
    assert [int(place["offset"]) % 65536 for place in places] == [0, 0, 0]


@pytest.mark.parametrize("array", [np.ones((2, 3), np.float64), np.ones((3, 2), np.float32)])
def test_a_weight_that_breaks_its_promise_is_named(tmp_path: Path, array: np.ndarray) -> None:
    promised = Initializer("w", ElementType.FLOAT, (2, 3), lambda: array)
    with pytest.raises(ValueError, match=r"w: is .* declared float32"):
        write_model(model((promised,)), tmp_path / "m.onnx")


INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(one=INT64, some=st.lists(INT64, max_size=5))
def test_every_whole_number_survives(
    tmp_path_factory: pytest.TempPathFactory, one: int, some: list[int]
) -> None:
    path = tmp_path_factory.mktemp("numbers") / "m.onnx"
    node = Node("n", "Op", (), ("y",), "", {"one": one, "some": some})
    write_model(Model("g", {"": 23}, (), (), (node,), (), ()), path)
    read = {entry.name: entry for entry in onnx.load(path).graph.node[0].attribute}
    assert read["one"].i == one
    assert list(read["some"].ints) == some
