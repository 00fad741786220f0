"""Reads the structure of an ONNX file: nodes, weights and where they lie, without the onnx package.

Protobuf is read on the level of its fields, as far as checking a graph needs it (numbers from `onnx.proto3`).
Nodes and weights keep their bytes, so that a part of a graph can be put together again unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError

# ModelProto
_IR_VERSION, _GRAPH, _OPSETS = 1, 7, 8
# GraphProto
_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
# NodeProto
_NODE_INPUT, _NODE_OUTPUT = 1, 2
# TensorProto
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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
    body = [_bytes(_NODE, node.raw) for node in nodes]
    body.append(_bytes(_GRAPH_NAME, b"piece"))
    body += [_bytes(_INITIALIZER, weight.raw) for weight in weights]
    body += [_bytes(_INPUT, _typed(name, element, rank)) for name, element, rank in inputs]
    body += [_bytes(_OUTPUT, _bytes(1, name.encode())) for name in outputs]
    return graph.header + _bytes(_GRAPH, b"".join(body))


def _graph(model: bytes) -> OnnxGraph:
    header = b""
    body: bytes | None = None
    for number, value in _fields(model):
        if number == _GRAPH and isinstance(value, bytes):
            body = value
        elif number == _IR_VERSION and isinstance(value, int):
            header += _key(number, _VARINT) + _varint(value)
        elif number == _OPSETS and isinstance(value, bytes):
            header += _bytes(number, value)
    if body is None:
        raise ValueError("it holds no graph")
    nodes: list[GraphNode] = []
    weights: dict[str, GraphWeight] = {}
    ends: dict[int, list[str]] = {_INPUT: [], _OUTPUT: []}
    for number, value in _fields(body):
        if not isinstance(value, bytes):
            continue
        if number == _NODE:
            nodes.append(GraphNode(_texts(value, _NODE_INPUT), _texts(value, _NODE_OUTPUT), value))
        elif number == _INITIALIZER:
            weight = _weight(value)
            weights[weight.name] = weight
        elif number in ends:
            ends[number] += _texts(value, 1)
    return OnnxGraph(header, tuple(nodes), weights, tuple(ends[_INPUT]), tuple(ends[_OUTPUT]))


def _weight(raw: bytes) -> GraphWeight:
    name, place, outside = "", {}, False
    for number, value in _fields(raw):
        if number == _TENSOR_NAME and isinstance(value, bytes):
            name = value.decode()
        elif number == _EXTERNAL_DATA and isinstance(value, bytes):
            entry = _texts(value, 1) + _texts(value, 2)
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


def _texts(message: bytes, wanted: int) -> tuple[str, ...]:
    """All strings of one field, in order."""
    return tuple(
        value.decode() for number, value in _fields(message) if number == wanted and isinstance(value, bytes)
    )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their values: an int for varints, the bytes of everything else."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _read_varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, position = _read_varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("it is not a protobuf")
        if position + size > len(message):
            raise ValueError("it is cut short")
        yield key >> 3, message[position : position + size]
        position += size


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is not a protobuf")


def _typed(name: str, element: int, rank: int) -> bytes:
    """A ValueInfoProto of a tensor whose dimensions are free."""
    shape = _bytes(1, b"") * rank
    tensor = _key(1, _VARINT) + _varint(element) + _bytes(2, shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _bytes(number: int, value: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(value)) + value


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
