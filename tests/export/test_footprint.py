"""What loaded weights take: the count against ONNX Runtime's own, and the bars of the real models' shapes."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from qvl_local.export.adapters import Adapter, Adapters, find_adapters
from qvl_local.export.checkpoint import EMBEDDINGS, Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.footprint import resident_bytes
from qvl_local.export.onnx_file import write_model
from qvl_local.export.recipe import Recipe
from qvl_local.export.spool import Spool, open_spool
from qvl_local.export.vision import build_vision

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.true_shapes import RANK, SHAPES, TRAINED, write_hollow

GIB = 2**30


def held_by_session(graph: Path, optimised: Path) -> int:
    """Bytes of the tensors that are left after ONNX Runtime has folded what is constant."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(optimised))
    return sum(onnx.numpy_helper.to_array(one).nbytes for one in model.graph.initializer)


@pytest.mark.parametrize("precision", ["fp32", "int8", "nf4"])
def test_the_count_is_what_a_session_holds(tiny: dict[str, Path], tmp_path: Path, precision: str) -> None:
    pair = Checkpoint(tiny["embedder"]), Checkpoint(tiny["reranker"])
    with open_spool() as spool:
        adapters: Any = find_adapters(*pair, spool=spool)
        recipe = Recipe.of(precision)
        model = build_decoder(
            pair[0], recipe.graph("decoder", pair[0].names()), recipe.dialect, adapters=adapters
        )
        write_model(model, tmp_path / "decoder.onnx")
    counted = resident_bytes(model)
    held = held_by_session(tmp_path / "decoder.onnx", tmp_path / "optimised.onnx")
    # Constants of the graph itself (shapes, axes) are a few hundred bytes.
    assert counted <= held <= counted + 4096
    # Factors are float16 in the file, and float32 in a graph that computes in it.
    assert counted == sum(weight.nbytes for weight in model.weights) + sum(one.nbytes for one in adapters)


@pytest.mark.parametrize(("name", "limit"), [("2b", 1.5), ("8b", 5.0)])
def test_both_real_models_in_nf4_fit(tmp_path: Path, name: str, limit: float) -> None:
    checkpoint = Checkpoint(write_hollow(tmp_path / name, SHAPES[name]))
    recipe = Recipe.of("nf4")
    names = checkpoint.names()
    adapters = adapters_of(checkpoint, rank=2 * RANK)
    decoder = build_decoder(checkpoint, recipe.graph("decoder", names), recipe.dialect, adapters=adapters)
    vision = build_vision(checkpoint, recipe.graph("vision", names), recipe.dialect)
    resident = resident_bytes(decoder) + resident_bytes(vision)
    assert not any(weight.name == EMBEDDINGS for weight in decoder.weights)
    assert resident <= limit * GIB
    # Four bits a weight at least, so nothing was forgotten.
    matrices = sum(np.prod(checkpoint.stored(one).shape) for one in names if one.endswith("_proj.weight"))
    assert resident > matrices / 2


def adapters_of(checkpoint: Checkpoint, *, rank: int) -> Adapters:
    """Adapters of a rank for every matrix that LoRA trains; their values are never read."""
    adapters = Adapters(Spool(io.BytesIO()))
    for name in checkpoint.names():
        if name.endswith(tuple(f"{kind}.weight" for kind in TRAINED)) and name.startswith("language_model."):
            rows, columns = checkpoint.stored(name).shape
            adapters.declare(Adapter(name, rows, columns, rank, error=0, difference=0, noise=0))
    return adapters
