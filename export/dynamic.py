"""The ecosystem's default int8: ONNX Runtime's dynamic quantization through optimum's `ORTQuantizer`.

Offered to be compared with: weights int8 a channel, activations uint8 with one scale for the whole tensor, so
that one loud token costs all the others. It takes a finished float32 graph, and the whole of it into memory.
Needs the extra `optimum`.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qvl_local.runtime.errors import MissingExtraError


def check_optimum() -> None:
    """Fail early, before anything is exported.

    Raises:
        MissingExtraError: optimum, or its ONNX part, is not installed.
    """
    _optimum()


def quantize_dynamically(graph: Path) -> None:
    """Replace a float32 graph and its weights by their dynamic int8 form, in place.

    Raises:
        MissingExtraError: optimum, or its ONNX part, is not installed.
    """
    quantizer_class, settings_class = _optimum()
    with _quiet(), tempfile.TemporaryDirectory(dir=graph.parent, prefix=".dynamic-") as name:
        folder = Path(name)
        _write_typed(graph, folder / graph.name)
        quantizer = quantizer_class(folder / graph.name)
        settings = settings_class.avx512_vnni(is_static=False, per_channel=True)
        settings.operators_to_quantize = ["MatMul"]
        quantizer.quantize(settings, save_dir=folder / "int8", file_suffix="", use_external_data_format=True)
        _move(folder / "int8", graph)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings that the graph has no transformers config and its contrib operators no types: by design."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _optimum() -> tuple[Any, Any]:
    try:
        from optimum.onnxruntime import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            AutoQuantizationConfig,
            ORTQuantizer,
        )
    except ImportError:
        raise MissingExtraError("optimum", "optimum") from None
    return ORTQuantizer, AutoQuantizationConfig


def _write_typed(graph: Path, target: Path) -> None:
    """A copy that says the type of every product: the quantizer cannot infer it behind contrib operators."""
    import onnx

    model = onnx.load(str(graph))
    known = {value.name for value in model.graph.value_info}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.output[0] not in known:
            model.graph.value_info.append(
                onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)
            )
    onnx.save(model, str(target), save_as_external_data=True, location=f"{target.name}_data")


def _move(folder: Path, graph: Path) -> None:
    """Put the one model of a folder in the place of a graph, its weights in one file beside it."""
    import onnx

    made = next(folder.glob("*.onnx"))
    model = onnx.load(str(made))
    data = graph.with_name(f"{graph.name}_data")
    data.unlink(missing_ok=True)
    graph.unlink()
    onnx.save(model, str(graph), save_as_external_data=True, location=data.name)
    shutil.rmtree(folder)
