"""Runs a graph in pieces, so that a model larger than memory can still be checked.

Slow, and exact: every node and every stored weight takes part, a few at a time. It knows nothing about
models: a graph is a list of nodes in order, cut wherever the weights collected so far reach a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .onnx_graph import GraphNode, GraphWeight, OnnxGraph, build_model, read_graph
from .ort_session import EXACT_INT8
from .session import Array

PIECE_BYTES = 256 << 20

# Numbers in TensorProto.DataType of what may pass from one piece to the next.
_ELEMENTS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}


@dataclass(frozen=True, slots=True)
class _Piece:
    """Consecutive nodes; the values they take from before, and those that are needed behind."""

    nodes: Sequence[GraphNode]
    inputs: Sequence[str]
    weights: Sequence[GraphWeight]
    outputs: Sequence[str]


def run_in_pieces(
    path: Path, feeds: Sequence[Mapping[str, Array]], *, piece_bytes: int = PIECE_BYTES
) -> list[dict[str, NDArray[np.float32]]]:
    """Outputs of a graph for each set of inputs, on ONNX Runtime's CPU provider.

    A piece is loaded, run on all the inputs, and dropped. Weights are read from the files next to the graph.

    Raises:
        BundleError: the graph cannot be read.
        ModelError: a piece does not load or run.
    """
    graph = read_graph(path)
    states: list[dict[str, Any]] = [dict(one) for one in feeds]
    pieces = _cut(graph, piece_bytes)
    for number, piece in enumerate(pieces):
        kept = {name for later in pieces[number + 1 :] for name in later.inputs}.union(graph.outputs)
        try:
            for state, results in zip(states, _run_piece(graph, piece, path.parent, states)):
                state |= results
                for name in set(state) - kept:
                    del state[name]
        except Exception as error:  # the bindings raise classes of their own
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{path}: failed to run ({first}).") from error
    return [{name: np.asarray(state[name], np.float32) for name in graph.outputs} for state in states]


def _run_piece(
    graph: OnnxGraph, piece: _Piece, folder: Path, states: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    # An arena keeps what the largest node took, a widened weight for one.
    settings.enable_cpu_mem_arena = False
    settings.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder.absolute())
    )
    # Repacked weights would only pay off over many runs.
    settings.add_session_config_entry("session.disable_prepacking", "1")
    settings.add_session_config_entry(*EXACT_INT8)
    arrays = {name: np.asarray(states[0][name]) for name in piece.inputs}
    model = build_model(
        graph,
        piece.nodes,
        piece.weights,
        inputs=[(name, _ELEMENTS[array.dtype.name], array.ndim) for name, array in arrays.items()],
        outputs=piece.outputs,
    )
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    for state in states:
        results = session.run(list(piece.outputs), {name: state[name] for name in piece.inputs})
        yield dict(zip(piece.outputs, results, strict=True))


def _cut(graph: OnnxGraph, limit: int) -> list[_Piece]:
    weights = graph.weights
    groups: list[list[GraphNode]] = [[]]
    size = 0
    for node in graph.nodes:
        groups[-1].append(node)
        size += sum(weights[name].length for name in node.inputs if name in weights)
        if size >= limit:
            groups.append([])
            size = 0
    pieces: list[_Piece] = []
    needed = set(graph.outputs)
    # From the end: what a piece must hand on is known once everything behind it is.
    for nodes in reversed([group for group in groups if group]):
        produced = {name for node in nodes for name in node.outputs if name}
        used = [name for name in dict.fromkeys(name for node in nodes for name in node.inputs) if name]
        pieces.append(
            _Piece(
                nodes=nodes,
                inputs=[name for name in used if name not in produced and name not in weights],
                weights=[weights[name] for name in used if name in weights],
                outputs=sorted(produced & needed),
            )
        )
        needed |= set(pieces[-1].inputs)
    return pieces[::-1]
