"""Reads the structure of an ONNX file: nodes, weights and where they lie, without the onnx package.

Only what checking a graph needs is read (field numbers from `onnx.proto3`).
Nodes and weights keep their bytes, so that a part of a graph can be put together again unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from .protobuf import bytes_field, fields, int_field, texts

# ModelProto
_IR_VERSION, _GRAPH, _OPSETS = 1, 7, 8
# GraphProto
_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
# NodeProto
_NODE_INPUT, _NODE_OUTPUT = 1, 2
# TensorProto
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node: the names it takes and gives, and its bytes."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class GraphWeight:
    """A stored tensor. `location` is a file relative to the graph's folder; None: the bytes are inside."""

    name: str
    location: str | None
    offset: int
    length: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """The structure of one file. `header` holds the encoded IR version and operator sets."""

    header: bytes
    nodes: tuple[GraphNode, ...]
    weights: dict[str, GraphWeight]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_graph(path: Path) -> OnnxGraph:
    """Read a graph's structure.

    Raises:
        BundleError: the file cannot be read, or is not ONNX.
    """
    try:
        return _graph(path.read_bytes())
    except (OSError, ValueError, IndexError) as error:
        raise BundleError(f"{path}: cannot be read ({error}). Export the bundle again.") from error


def build_model(
    graph: OnnxGraph,
    nodes: Sequence[GraphNode],
    weights: Sequence[GraphWeight],
    *,
    inputs: Sequence[tuple[str, int, int]],
    outputs: Sequence[str],
) -> bytes:
    """Some nodes of a graph as a model of their own.

    `inputs` are name, element type (by its number in `TensorProto.DataType`) and number of dimensions; the
    types of `outputs` are left to the engine.
    """
    body = [bytes_field(_NODE, node.raw) for node in nodes]
    body.append(bytes_field(_GRAPH_NAME, "piece"))
    body += [bytes_field(_INITIALIZER, weight.raw) for weight in weights]
    body += [bytes_field(_INPUT, _typed(name, element, rank)) for name, element, rank in inputs]
    body += [bytes_field(_OUTPUT, bytes_field(1, name)) for name in outputs]
    return graph.header + bytes_field(_GRAPH, b"".join(body))


def _graph(model: bytes) -> OnnxGraph:
    header = b""
    body: bytes | None = None
    for number, value in fields(model):
        if number == _GRAPH and isinstance(value, bytes):
            body = value
        elif number == _IR_VERSION and isinstance(value, int):
            header += int_field(number, value)
        elif number == _OPSETS and isinstance(value, bytes):
            header += bytes_field(number, value)
    if body is None:
        raise ValueError("it holds no graph")
    nodes: list[GraphNode] = []
    weights: dict[str, GraphWeight] = {}
    ends: dict[int, list[str]] = {_INPUT: [], _OUTPUT: []}
    for number, value in fields(body):
        if not isinstance(value, bytes):
            continue
        if number == _NODE:
            nodes.append(GraphNode(texts(value, _NODE_INPUT), texts(value, _NODE_OUTPUT), value))
        elif number == _INITIALIZER:
            weight = _weight(value)
            weights[weight.name] = weight
        elif number in ends:
            ends[number] += texts(value, 1)
    return OnnxGraph(header, tuple(nodes), weights, tuple(ends[_INPUT]), tuple(ends[_OUTPUT]))


def _weight(raw: bytes) -> GraphWeight:
    name, place, outside = "", {}, False
    for number, value in fields(raw):
        if number == _TENSOR_NAME and isinstance(value, bytes):
            name = value.decode()
        elif number == _EXTERNAL_DATA and isinstance(value, bytes):
            entry = texts(value, 1) + texts(value, 2)
            place[entry[0]] = entry[1]
        elif number == _DATA_LOCATION:
            outside = value == 1
    return GraphWeight(
        name=name,
        location=place.get("location", "") if outside else None,
        offset=int(place.get("offset", 0)),
        length=int(place.get("length", 0)),
        raw=raw,
    )


def _typed(name: str, element: int, rank: int) -> bytes:
    """A ValueInfoProto of a tensor whose dimensions are free."""
    shape = bytes_field(1, b"") * rank
    tensor = int_field(1, element) + bytes_field(2, shape)
    return bytes_field(1, name) + bytes_field(2, bytes_field(1, tensor))
