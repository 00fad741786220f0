"""How the weight of a matrix product is stored, and the nodes that multiply by it.

A graph says "multiply by this weight", and a `LinearFormat` decides what is written. The floating-point
format is here, the quantized ones are in `quantized`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import CheckpointError

from .graph import Graph, Value
from .onnx_file import ElementType

NUMPY_TYPES: dict[ElementType, np.dtype[Any]] = {
    ElementType.FLOAT: np.dtype("<f4"),
    ElementType.FLOAT16: np.dtype("<f2"),
}

# Codes and their scales, as the format of a layer has them.
Packed = tuple[NDArray[Any], NDArray[np.float32]]

_TILE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """What calibration chose for a layer.

    `divisor` float32 [columns] divides the input and multiplies the weight's columns, which changes nothing
    but what rounding does; layers of one `group` share their input and its divisor. `absmax` is the largest
    magnitude of the divided input, which static scales are made from. `packed` reads codes and scales of
    a weight, its columns multiplied, that was rounded with its inputs in view.
    """

    group: str
    divisor: NDArray[np.float32] | None = None
    absmax: float | None = None
    packed: Callable[[], Packed] | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix of a checkpoint: `read()` yields float32 [rows, columns]; a product maps columns to rows."""

    name: str
    rows: int
    columns: int
    read: Callable[[], NDArray[np.float32]]
    tuning: Tuning | None = None

    @property
    def divisor(self) -> NDArray[np.float32] | None:
        """float32 [columns]: what the input is divided by."""
        return None if self.tuning is None else self.tuning.divisor

    def multiplied(self) -> NDArray[np.float32]:
        """The matrix with its columns multiplied by what the input is divided by."""
        return self.read() if self.divisor is None else self.read() * self.divisor

    def undone(self, multiplied: NDArray[np.float32]) -> NDArray[np.float32]:
        """A matrix whose columns were multiplied, for the input as it is."""
        return multiplied if self.divisor is None else multiplied / self.divisor


class LinearFormat(Protocol):
    """Emits the product with a weight. `x` and the result have the graph's activation type."""

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows]."""
        ...

    def loaded(self, weight: Weight) -> NDArray[np.float32]:
        """float32 [rows, columns]: what is stored, as it counts in a product."""
        ...


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """Weights kept as floating point of the activation type, transposed for `MatMul`."""

    dtype: ElementType

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows]."""
        stored = graph.weight(
            weight.name,
            self.dtype,
            (weight.columns, weight.rows),
            lambda: transposed(narrow(weight.read(), self.dtype, weight.name)),
        )
        return graph.op("MatMul", [x, stored], at=at)

    def loaded(self, weight: Weight) -> NDArray[np.float32]:
        """float32 [rows, columns]: what is stored, as it counts in a product."""
        return narrow(weight.read(), self.dtype, weight.name).astype(np.float32)


def narrow(values: NDArray[np.float32], dtype: ElementType, name: str) -> NDArray[np.floating]:
    """float32 values as float32 or float16.

    Raises:
        CheckpointError: a value is beyond float16's range (65504), or is not a number at all.
    """
    with np.errstate(over="ignore"):
        narrowed: NDArray[np.floating] = np.ascontiguousarray(values, dtype=NUMPY_TYPES[dtype])
    if not np.isfinite(narrowed).all():
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"tensor {name} holds infinite or undefined values. Use another checkpoint."
            )
        raise CheckpointError(
            f"tensor {name} reaches {np.abs(values).max():.4g}, beyond float16's 65504. "
            "Export with --precision fp32."
        )
    return narrowed


def transposed(matrix: NDArray[Any]) -> NDArray[Any]:
    """A transposed copy, made tile by tile: twice as fast as one strided pass over a large matrix."""
    rows, columns = matrix.shape
    result = np.empty((columns, rows), matrix.dtype)
    for top in range(0, rows, _TILE):
        for left in range(0, columns, _TILE):
            tile = matrix[top : top + _TILE, left : left + _TILE]
            result[left : left + _TILE, top : top + _TILE] = tile.T
    return result
