"""Writes an ONNX model: a small protobuf of nodes, and one file of weights beside it, streamed.

The fields are those of `onnx.proto3` (ONNX 1.19, IR version 11), as far as our graphs use them. Weights are
asked for one at a time and written at once, so memory stays at one tensor whatever the model's size. This
module knows the file format, not the operators.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.model.protobuf import bytes_field, each_field, float_field, int_field

IR_VERSION = 11
PRODUCER = "qvl-local"
# Weights that start on a page boundary can be memory-mapped by the engine; 64 KiB is Windows' granularity.
_ALIGNMENT = 65536
_SMALL_ALIGNMENT = 64
_LARGE = 1 << 20

Dim = int | str
Attribute = int | float | str | Sequence[int]


class ElementType(IntEnum):
    """Element types by their number in `TensorProto.DataType`."""

    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    INT32 = 6
    INT64 = 7
    BOOL = 9
    FLOAT16 = 10

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy type of one element."""
        return _NUMPY[self]

    @classmethod
    def of(cls, dtype: np.dtype[np.generic]) -> ElementType:
        """The element type that stores a numpy type exactly."""
        for element, candidate in _NUMPY.items():
            if candidate == dtype:
                return element
        raise TypeError(f"no ONNX element type for {dtype}")


_NUMPY: dict[ElementType, np.dtype[np.generic]] = {
    ElementType.FLOAT: np.dtype(np.float32),
    ElementType.UINT8: np.dtype(np.uint8),
    ElementType.INT8: np.dtype(np.int8),
    ElementType.INT32: np.dtype(np.int32),
    ElementType.INT64: np.dtype(np.int64),
    ElementType.BOOL: np.dtype(np.bool_),
    ElementType.FLOAT16: np.dtype(np.float16),
}


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """An input or output of the model; names in `shape` stand for any size."""

    name: str
    type: ElementType
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Initializer:
    """A tensor stored in the weights file; `load` makes it when its turn to be written comes."""

    name: str
    type: ElementType
    shape: tuple[int, ...]
    load: Callable[[], NDArray[np.generic]]

    @property
    def nbytes(self) -> int:
        """Bytes in the weights file."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.type.numpy.itemsize


@dataclass(frozen=True, slots=True)
class Constant:
    """A small tensor stored inside the model file."""

    name: str
    value: NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. An empty input name means an optional input that is left out."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A whole model: nodes in execution order, and everything that they read and write."""

    name: str
    opsets: Mapping[str, int]
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[Node, ...]
    weights: tuple[Initializer, ...]
    constants: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight lies: a file beside the model, and the byte at which it starts."""

    file: str
    offset: int


def write_model(
    model: Model,
    path: Path,
    *,
    on_weight: Callable[[int], None] | None = None,
    stored: dict[str, Place] | None = None,
) -> None:
    """Write `path` and, when the model has weights of its own, `path` + "_data".

    `on_weight` is told the bytes of each weight after it is on disk. `stored` knows weights by the hash of
    their bytes: one that an earlier model of the same folder wrote is pointed at instead of written again.

    Raises:
        ValueError: a weight came out with another shape or type than it declared.
        OSError: the disk is full or refuses; partial files are the caller's to remove.
    """
    data_path = path.with_name(path.name + "_data")
    places = []
    if model.weights:
        with data_path.open("wb") as stream:
            end = 0
            for weight in model.weights:
                data = _bytes(weight)
                digest = "" if stored is None else hashlib.sha256(data.data).hexdigest()
                place = None if stored is None else stored.get(digest)
                if place is None:
                    place = Place(data_path.name, _aligned(end, weight.nbytes))
                    stream.seek(place.offset)
                    stream.write(data.data)
                    end = place.offset + weight.nbytes
                    if stored is not None:
                        stored[digest] = place
                places.append(place)
                if on_weight is not None:
                    on_weight(weight.nbytes)
            stream.truncate(end)  # an empty last weight has a place too
            stream.flush()
            os.fsync(stream.fileno())
        if all(place.file != data_path.name for place in places):
            data_path.unlink()
    with path.open("wb") as stream:
        stream.write(_model(model, places))
        stream.flush()
        os.fsync(stream.fileno())


def _aligned(end: int, size: int) -> int:
    unit = _ALIGNMENT if size >= _LARGE else _SMALL_ALIGNMENT
    return -(-end // unit) * unit


def _bytes(weight: Initializer) -> NDArray[np.uint8]:
    """A weight's little-endian bytes."""
    array = weight.load()
    if array.shape != weight.shape or array.dtype != weight.type.numpy:
        raise ValueError(
            f"{weight.name}: is {array.dtype} {list(array.shape)}, "
            f"declared {weight.type.numpy} {list(weight.shape)}"
        )
    little = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, dtype=little).reshape(-1).view(np.uint8)


def _model(model: Model, places: Sequence[Place]) -> bytes:
    opsets = (bytes_field(1, domain) + int_field(2, version) for domain, version in model.opsets.items())
    return (
        int_field(1, IR_VERSION)
        + bytes_field(2, PRODUCER)
        + bytes_field(7, _graph(model, places))
        + each_field(8, opsets)
    )


def _graph(model: Model, places: Sequence[Place]) -> bytes:
    weights = (_weight(weight, place) for weight, place in zip(model.weights, places, strict=True))
    return b"".join(
        (
            each_field(1, map(_node, model.nodes)),
            bytes_field(2, model.name),
            each_field(5, weights),
            each_field(5, map(_constant, model.constants)),
            each_field(11, map(_value, model.inputs)),
            each_field(12, map(_value, model.outputs)),
        )
    )


def _node(node: Node) -> bytes:
    attributes = (_attribute(name, value) for name, value in node.attributes.items())
    return b"".join(
        (
            each_field(1, node.inputs),
            each_field(2, node.outputs),
            bytes_field(3, node.name),
            bytes_field(4, node.op),
            each_field(5, attributes),
            bytes_field(7, node.domain),
        )
    )


def _attribute(name: str, value: Attribute) -> bytes:
    # AttributeProto.type: FLOAT 1, INT 2, STRING 3, INTS 7.
    if isinstance(value, int):
        return bytes_field(1, name) + int_field(3, value) + int_field(20, 2)
    if isinstance(value, float):
        return bytes_field(1, name) + float_field(2, value) + int_field(20, 1)
    if isinstance(value, str):
        return bytes_field(1, name) + bytes_field(4, value) + int_field(20, 3)
    return bytes_field(1, name) + b"".join(int_field(8, item) for item in value) + int_field(20, 7)


def _weight(weight: Initializer, place: Place) -> bytes:
    entries = (("location", place.file), ("offset", str(place.offset)), ("length", str(weight.nbytes)))
    external = (bytes_field(1, key) + bytes_field(2, value) for key, value in entries)
    # data_location 1 is EXTERNAL.
    return _tensor(weight.name, weight.type, weight.shape) + each_field(13, external) + int_field(14, 1)


def _constant(constant: Constant) -> bytes:
    array = constant.value
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return _tensor(constant.name, ElementType.of(array.dtype), array.shape) + bytes_field(9, little.tobytes())


def _tensor(name: str, element: ElementType, shape: Iterable[int]) -> bytes:
    return b"".join(int_field(1, size) for size in shape) + int_field(2, element) + bytes_field(8, name)


def _value(value: ValueInfo) -> bytes:
    # A dimension is a number (field 1) or a name (field 2) that stands for any number.
    dims = (int_field(1, size) if isinstance(size, int) else bytes_field(2, size) for size in value.shape)
    tensor = int_field(1, value.type) + bytes_field(2, each_field(1, dims))
    return bytes_field(1, value.name) + bytes_field(2, bytes_field(1, tensor))
