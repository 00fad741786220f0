"""Runs a graph in pieces, so that a model larger than memory can still be checked.

Slow, and exact: every node and every stored weight takes part, a few at a time. It knows nothing about
models: a graph is a list of nodes in order, cut wherever the weights collected so far reach a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ModelError
from .session import Array

if TYPE_CHECKING:
    import onnx

PIECE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class _Piece:
    """Consecutive nodes; the values they take from before, and those that are needed behind."""

    nodes: Sequence[onnx.NodeProto]
    inputs: Sequence[str]
    weights: Sequence[str]
    outputs: Sequence[str]


def run_in_pieces(
    graph: Path, feeds: Sequence[Mapping[str, Array]], *, piece_bytes: int = PIECE_BYTES
) -> list[dict[str, NDArray[np.float32]]]:
    """Outputs of a graph for each set of inputs, on ONNX Runtime's CPU provider.

    A piece is loaded, run on all the inputs, and dropped. Weights are read from the files next to the graph.

    Raises:
        BundleError: the graph cannot be read.
        ModelError: a piece does not load or run.
    """
    import onnx

    try:
        model = onnx.load(graph, load_external_data=False)
    except Exception as error:  # protobuf raises classes of its own
        raise BundleError(f"{graph}: cannot be read ({error}). Export the bundle again.") from error
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = [value.name for value in model.graph.output]
    states: list[dict[str, Any]] = [dict(one) for one in feeds]
    pieces = _cut(model.graph, weights, piece_bytes)
    for number, piece in enumerate(pieces):
        kept = {name for later in pieces[number + 1 :] for name in later.inputs}.union(outputs)
        try:
            for state, results in zip(states, _run_piece(model, piece, weights, graph.parent, states)):
                state |= results
                for name in set(state) - kept:
                    del state[name]
        except Exception as error:  # the bindings raise classes of their own
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{graph}: failed to run ({first}).") from error
    return [{name: np.asarray(state[name], np.float32) for name in outputs} for state in states]


def _run_piece(
    model: onnx.ModelProto,
    piece: _Piece,
    weights: Mapping[str, onnx.TensorProto],
    folder: Path,
    states: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    import onnx
    import onnxruntime

    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = "piece"
    part.graph.node.extend(piece.nodes)
    part.graph.initializer.extend(weights[name] for name in piece.weights)
    for name in piece.inputs:
        array = np.asarray(states[0][name])
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        free = [None] * array.ndim  # the number of dimensions is told, their sizes are not
        part.graph.input.append(onnx.helper.make_tensor_value_info(name, element, free))
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in piece.outputs)

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder.absolute())
    )
    # Repacked weights would only pay off over many runs.
    settings.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    for state in states:
        results = session.run(list(piece.outputs), {name: state[name] for name in piece.inputs})
        yield dict(zip(piece.outputs, results, strict=True))


def _cut(graph: onnx.GraphProto, weights: Mapping[str, onnx.TensorProto], limit: int) -> list[_Piece]:
    groups: list[list[onnx.NodeProto]] = [[]]
    size = 0
    for node in graph.node:
        groups[-1].append(node)
        size += sum(_stored_bytes(weights[name]) for name in node.input if name in weights)
        if size >= limit:
            groups.append([])
            size = 0
    pieces: list[_Piece] = []
    needed = {value.name for value in graph.output}
    # From the end: what a piece must hand on is known once everything behind it is.
    for nodes in reversed([group for group in groups if group]):
        produced = {name for node in nodes for name in node.output if name}
        used = [name for name in dict.fromkeys(name for node in nodes for name in node.input) if name]
        pieces.append(
            _Piece(
                nodes=nodes,
                inputs=[name for name in used if name not in produced and name not in weights],
                weights=[name for name in used if name in weights],
                outputs=sorted(produced & needed),
            )
        )
        needed |= set(pieces[-1].inputs)
    return pieces[::-1]


def _stored_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes outside the graph file."""
    return next((int(entry.value) for entry in tensor.external_data if entry.key == "length"), 0)
