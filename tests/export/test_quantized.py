"""Each weight format as a graph, run by ONNX Runtime, against the arithmetic that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.export.graph import Graph
from qvl_local.export.linear import LinearFormat, Tuning, Weight
from qvl_local.export.onnx_file import ElementType, Model, write_model
from qvl_local.export.quantized import BlockFormat, HalfFormat, Int8Format, LayerFormats, Nf4Format
from qvl_local.quant import blockwise, int8, nf4
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions

Floats = NDArray[np.float32]

# The last one is the width of the 8B vision tower's MLP, which no block of 64 or 128 divides.
WIDTHS = (64, 269, 4304)
LOADED: dict[str, tuple[LinearFormat, Callable[[Floats], Floats]]] = {
    "nf4": (Nf4Format(), lambda w: nf4.dequantize(nf4.quantize(w))),
    "int4": (
        BlockFormat(bits=4, block=32),
        lambda w: blockwise.dequantize(blockwise.quantize(w, bits=4, block=32)),
    ),
    "int8-weight": (
        BlockFormat(bits=8, block=128),
        lambda w: blockwise.dequantize(blockwise.quantize(w, bits=8, block=128)),
    ),
    "fp16": (HalfFormat(), lambda w: w.astype(np.float16).astype(np.float32)),
}


def matrix(rows: int, columns: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


def run(linear: LinearFormat, weights: dict[str, Floats], x: Floats, folder: Path) -> dict[str, Floats]:
    write_model(build(linear, weights), folder / "product.onnx")
    return OrtSession(folder / "product.onnx", SessionOptions(threads=1)).run({"x": x})


def build(linear: LinearFormat, weights: dict[str, Floats]) -> Model:
    columns = next(iter(weights.values())).shape[1]
    graph = Graph("product")
    x = graph.input("x", ElementType.FLOAT, ["B", "T", columns])
    outputs = {}
    for name, values in weights.items():
        weight = Weight(name, *values.shape, lambda values=values: values)
        y = linear.matmul(graph, x, weight, at=f"/{name}")
        outputs[f"{name}_out"] = (y, ElementType.FLOAT, ["B", "T", len(values)])
    return graph.finish(outputs)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", LOADED)
def test_a_graph_multiplies_by_what_the_load_half_gives(name: str, columns: int, tmp_path: Path) -> None:
    linear, load = LOADED[name]
    w, x = matrix(48, columns), matrix(10, columns, 1).reshape(2, 5, columns)
    y = run(linear, {"w": w}, x, tmp_path)["w_out"]
    expected = x @ load(w).T
    assert np.abs(y - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("columns", WIDTHS)
def test_int8_sums_exactly_on_every_processor(columns: int, tmp_path: Path) -> None:
    # Weights of one sign under large activations of one sign are what overflows sums of 16 bits.
    w = np.abs(matrix(32, columns)) + 1
    x = np.abs(matrix(12, columns, 1)).reshape(3, 4, columns) + 2
    y = run(Int8Format(), {"w": w}, x, tmp_path)["w_out"]
    expected = int8.product(x, int8.quantize_weight(w))
    assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(y - x @ w.T).max() <= 0.02 * np.abs(expected).max()


def test_int8_gives_each_token_its_own_scale(tmp_path: Path) -> None:
    w, x = matrix(32, 256), matrix(6, 256, 1)[None]
    loud = x.copy()
    loud[0, 2] *= 1000
    loud[0, 4] *= np.float32(2**-20)
    quiet = [0, 1, 3, 5]
    one = run(Int8Format(), {"w": w}, x, tmp_path)["w_out"]
    other = run(Int8Format(), {"w": w}, loud, tmp_path)["w_out"]
    assert np.array_equal(one[0, quiet], other[0, quiet])
    assert np.array_equal(one[0, 4], other[0, 4] * np.float32(2**20))


def test_a_second_byte_holds_what_the_first_cannot(tmp_path: Path) -> None:
    w, x = matrix(32, 512), matrix(8, 512, 1).reshape(2, 4, 512)
    x[..., 7] = 60  # one channel takes the whole range of every token
    packed = int8.quantize_weight(w)
    fine = run(Int8Format(fine=True), {"w": w}, x, tmp_path)["w_out"]
    coarse = run(Int8Format(), {"w": w}, x, tmp_path)["w_out"]
    exact = x @ int8.dequantize_weight(packed).T
    assert np.abs(fine - exact).max() < np.abs(coarse - exact).max() / 50
    expected = int8.product(x, packed, fine=True)
    assert np.abs(fine - expected).max() <= 1e-4 * np.abs(expected).max()
    flat = run(Int8Format(fine=True), {"w": w}, x[:1], tmp_path)["w_out"]
    assert np.array_equal(flat, fine[:1])


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("columns", WIDTHS)
def test_unsigned_weights_give_the_same_products(columns: int, fine: bool, tmp_path: Path) -> None:
    w, x = matrix(32, columns), matrix(6, columns, 1)[None]
    (tmp_path / "signed").mkdir()
    (tmp_path / "unsigned").mkdir()
    signed, unsigned = Int8Format(fine=fine), Int8Format(fine=fine, unsigned=True)
    y = run(signed, {"w": w}, x, tmp_path / "signed")["w_out"]
    assert np.array_equal(run(unsigned, {"w": w}, x, tmp_path / "unsigned")["w_out"], y)
    assert np.abs(y).max() > 0
    [stored] = [one for one in build(unsigned, {"w": w}).weights if one.name == "w"]
    assert stored.type == ElementType.UINT8


def test_int8_of_zeros_is_zero(tmp_path: Path) -> None:
    y = run(Int8Format(), {"w": matrix(8, 16)}, np.zeros((1, 2, 16), np.float32), tmp_path)["w_out"]
    assert np.array_equal(y, np.zeros((1, 2, 8)))


def test_products_of_one_input_round_it_once(tmp_path: Path) -> None:
    weights = {"q": matrix(8, 32), "k": matrix(4, 32, 1), "v": matrix(4, 32, 2)}
    model = build(Int8Format(), weights)
    assert [node.op for node in model.nodes].count("Round") == 1
    assert [node.op for node in model.nodes].count("MatMulInteger") == 3
    together = run(Int8Format(), weights, matrix(3, 32, 3)[None], tmp_path)
    for name, w in weights.items():
        alone = run(Int8Format(), {name: w}, matrix(3, 32, 3)[None], tmp_path)
        assert np.array_equal(together[f"{name}_out"], alone[f"{name}_out"])


@pytest.mark.parametrize("fine", [False, True])
def test_int8_rows_that_were_rounded_elsewhere_are_stored(fine: bool, tmp_path: Path) -> None:
    w, x = matrix(24, 64), matrix(6, 64, 1)[None]
    other = int8.quantize_weight(matrix(24, 64, 2))
    divisor = np.linspace(0.5, 2, 64, dtype=np.float32)
    tuning = Tuning("w", divisor=divisor, packed=lambda: (other.values, other.scale))
    graph = Graph("product")
    weight = Weight("w", 24, 64, lambda: w, tuning)
    y = Int8Format(fine=fine).matmul(
        graph, graph.input("x", ElementType.FLOAT, ["B", "T", 64]), weight, at="/w"
    )
    write_model(graph.finish({"y": (y, ElementType.FLOAT, ["B", "T", 24])}), tmp_path / "product.onnx")
    found = OrtSession(tmp_path / "product.onnx", SessionOptions(threads=1)).run({"x": x})["y"]
    expected = int8.product(x / divisor, other, fine=fine)
    assert np.abs(found - expected).max() <= (1e-4 if fine else 0.01) * np.abs(expected).max()


def test_int4_with_rounded_activations_stays_close(tmp_path: Path) -> None:
    w, x = matrix(64, 1024), matrix(20, 1024, 1)[None]
    y = run(BlockFormat(bits=4, block=32, accuracy=4), {"w": w}, x, tmp_path)["w_out"]
    expected = x @ blockwise.dequantize(blockwise.quantize(w, bits=4, block=32)).T
    assert np.sqrt(np.mean((y - expected) ** 2) / np.mean(expected**2)) < 0.02


def test_a_layer_may_have_a_format_of_its_own() -> None:
    formats = LayerFormats(Nf4Format(), {"down": Int8Format()})
    model = build(formats, {"up": matrix(8, 64), "down": matrix(8, 64)})
    ops = {node.op for node in model.nodes}
    assert {"MatMulBnb4", "MatMulInteger"} <= ops


@pytest.mark.parametrize("linear", [Int8Format(), Nf4Format(), BlockFormat(bits=4, block=32)])
def test_a_weight_is_read_once_for_codes_and_scales(linear: LinearFormat) -> None:
    reads = []
    graph = Graph("product")
    x = graph.input("x", ElementType.FLOAT, ["B", "T", 128])

    def read() -> Floats:
        reads.append(1)
        return matrix(16, 128)

    y = linear.matmul(graph, x, Weight("w", 16, 128, read), at="/w")
    model = graph.finish({"y": (y, ElementType.FLOAT, ["B", "T", 16])})
    for weight in model.weights:
        array = weight.load()
        assert array.shape == weight.shape
        assert array.dtype == weight.type.numpy
    assert len(reads) == 1
