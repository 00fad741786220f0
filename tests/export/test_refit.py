"""Adapters fitted to rounded weights: what formats say that they store, and what a fit gains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.export.adapters import Adapters, find_adapters
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.graph import Graph
from qvl_local.export.linear import FloatFormat, LinearFormat, Tuning, Weight
from qvl_local.export.onnx_file import ElementType, write_model
from qvl_local.export.qdq import QdqFormat
from qvl_local.export.quantized import BlockFormat, HalfFormat, Int8Format, LayerFormats, Nf4Format
from qvl_local.export.recipe import Recipe
from qvl_local.export.refit import refit_adapters
from qvl_local.export.spool import open_spool
from qvl_local.quant import compensation, lowrank
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions

Floats = NDArray[np.float32]

FLOAT, HALF = ElementType.FLOAT, ElementType.FLOAT16
FORMATS: dict[str, LinearFormat] = {
    "fp32": FloatFormat(FLOAT),
    "fp16": HalfFormat(),
    "int8": Int8Format(fine=True),
    "nf4": Nf4Format(),
    "int4": BlockFormat(bits=4, block=32),
    "int8-weight": BlockFormat(bits=8, block=128),
    "mixed": LayerFormats(Nf4Format(), {"w": Int8Format(fine=True)}),
}


def matrix(rows: int, columns: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


def product(linear: LinearFormat, weight: Weight, x: Floats, folder: Path) -> Floats:
    graph = Graph("product")
    given = graph.input("x", FLOAT, ["T", weight.columns])
    y = linear.matmul(graph, given, weight, at="/w")
    write_model(graph.finish({"y": (y, FLOAT, ["T", weight.rows])}), folder / "product.onnx")
    return OrtSession(folder / "product.onnx", SessionOptions(threads=1)).run({"x": x})["y"]


def tuned(values: Floats, x: Floats) -> Tuning:
    """A divided input, and rows that were rounded for it."""
    divisor = np.exp(matrix(1, values.shape[1], 3)[0]).astype(np.float32)
    packed = compensation.int8_weight(values * divisor, x / divisor)
    return Tuning("w", divisor, float(np.abs(x / divisor).max()), lambda: (packed.values, packed.scale))


@pytest.mark.parametrize("name", FORMATS)
def test_a_graph_multiplies_by_what_is_loaded(name: str, tmp_path: Path) -> None:
    values, x = matrix(48, 200), matrix(10, 200, 1)
    weight = Weight("w", *values.shape, lambda: values)
    expected = x @ FORMATS[name].loaded(weight).T
    y = product(FORMATS[name], weight, x, tmp_path)
    assert np.abs(y - expected).max() <= 1e-3 * np.abs(expected).max()


def test_what_is_tuned_is_loaded_for_the_input_as_it_is(tmp_path: Path) -> None:
    values, x = matrix(48, 200), matrix(300, 200, 1)
    weight = Weight("w", *values.shape, lambda: values, tuned(values, x))
    linear = Int8Format(fine=True, compensated=True)
    loaded = linear.loaded(weight)
    y = product(linear, weight, x, tmp_path)
    assert np.abs(y - x @ loaded.T).max() <= 1e-3 * np.abs(y).max()
    plain = Weight("w", *values.shape, lambda: values)
    assert not np.array_equal(loaded, linear.loaded(plain))


def test_static_int8_is_loaded_too(tmp_path: Path) -> None:
    values, x = matrix(48, 200), matrix(30, 200, 1)
    weight = Weight("w", *values.shape, lambda: values, Tuning("w", absmax=float(np.abs(x).max())))
    linear = QdqFormat(activation=FLOAT)
    expected = x @ linear.loaded(weight).T
    assert np.abs(product(linear, weight, x, tmp_path) - expected).max() <= 0.02 * np.abs(expected).max()
    assert 0 < np.abs(linear.loaded(weight) - values).max() < 0.03


def test_the_nearest_factors_leave_what_a_full_decomposition_leaves() -> None:
    difference = matrix(90, 6) @ matrix(6, 120, 1) + np.float32(0.5) * matrix(90, 120, 2)
    down, up = lowrank.nearest(difference, 10)
    assert (down.shape, up.shape, down.dtype) == ((120, 10), (10, 90), np.float16)
    left = np.linalg.norm(difference - (down.astype(np.float32) @ up.astype(np.float32)).T)
    assert left <= 1.01 * np.linalg.norm(np.linalg.svd(difference, compute_uv=False)[10:])


@pytest.mark.parametrize(("precision", "gain"), [("nf4", 0.96), ("int4", 0.96), ("int8", 1.0)])
def test_the_other_model_loses_less_at_the_same_rank(
    precision: str, gain: float, tiny: dict[str, Path]
) -> None:
    base, other = Checkpoint(tiny["embedder"]), Checkpoint(tiny["reranker"])
    graph = Recipe.of(precision).graph("decoder", base.names())
    with open_spool() as spool:
        adapters = find_adapters(base, other, spool=spool)
        assert isinstance(adapters, Adapters)
        ranks = {adapter.name: adapter.rank for adapter in adapters}
        before = lost(adapters, graph.linear, base, other)
        refit_adapters(adapters, base, other, graph)
        after = lost(adapters, graph.linear, base, other)
        assert {adapter.name: adapter.rank for adapter in adapters} == ranks
    assert all(after[name] <= before[name] for name in ranks)
    assert np.mean([after[name] / before[name] for name in ranks]) < gain


def lost(adapters: Adapters, linear: LinearFormat, base: Checkpoint, other: Checkpoint) -> dict[str, float]:
    """Of each weight of the other model, the part that stored base and adapter do not give."""
    result = {}
    for adapter in adapters:
        assert adapter.down is not None
        assert adapter.up is not None
        weight = Weight(adapter.name, adapter.rows, adapter.columns, reader(base, adapter.name))
        change = adapter.down.read().astype(np.float32) @ adapter.up.read().astype(np.float32)
        target = other.float32(adapter.name)
        left = np.linalg.norm(target - linear.loaded(weight) - change.T)
        result[adapter.name] = float(left / np.linalg.norm(target))
    return result


def reader(checkpoint: Checkpoint, name: str) -> Callable[[], Floats]:
    return lambda: checkpoint.float32(name)


def test_what_is_not_rounded_is_left_alone(tiny: dict[str, Path]) -> None:
    base, other = Checkpoint(tiny["embedder"]), Checkpoint(tiny["reranker"])
    with open_spool() as spool:
        adapters = find_adapters(base, other, spool=spool)
        assert isinstance(adapters, Adapters)
        known = list(adapters)
        refit_adapters(adapters, base, other, Recipe.of("fp16").graph("decoder", base.names()))
        assert list(adapters) == known
