"""What both towers are made of: projections, norms, and the change between number formats.

The residual stream and the norms stay float32 in every precision, because the largest activations of these
models come close to float16's range; only products and attention run in the `activation` type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .adapters import ActiveAdapters
from .checkpoint import Checkpoint
from .dialect import Dialect
from .graph import Graph, Value
from .linear import LinearFormat, Tuning, Weight, narrow
from .onnx_file import ElementType


@dataclass(frozen=True, slots=True)
class Precision:
    """How one graph computes: the type of its activations, the format of its weights, and by weights' names
    what calibration chose for them.
    """

    activation: ElementType
    linear: LinearFormat
    tuning: Mapping[str, Tuning] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Network:
    """A graph being built from a checkpoint. Prefixes are canonical tensor names without `.weight`."""

    graph: Graph
    checkpoint: Checkpoint
    precision: Precision
    dialect: Dialect
    adapters: ActiveAdapters | None = None

    def linear(self, x: Value, prefix: str, rows: int, columns: int, *, bias: bool) -> Value:
        """x [..., columns] -> [..., rows], with the stored bias where the layer has one."""
        stored = self.checkpoint.stored(f"{prefix}.weight")
        if math.prod(stored.shape) != rows * columns or stored.shape[:1] != (rows,):
            self.checkpoint.stored(f"{prefix}.weight", (rows, columns))  # says what is wrong
        weight = Weight(
            f"{prefix}.weight",
            rows,
            columns,
            lambda: stored.float32().reshape(rows, columns),
            self.precision.tuning.get(f"{prefix}.weight"),
        )
        y = self.precision.linear.matmul(self.graph, x, weight, at=node_path(prefix))
        if self.adapters is not None:
            y = self.adapters.add(self.graph, x, y, weight.name, at=node_path(prefix))
        if not bias:
            return y
        values = self.vector(f"{prefix}.bias", rows, self.precision.activation)
        return self.graph.op("Add", [y, values], at=node_path(prefix))

    def vector(self, name: str, size: int, dtype: ElementType) -> Value:
        """A stored vector [size]: a bias or the scale of a norm."""
        stored = self.checkpoint.stored(name, (size,))
        return self.graph.weight(name, dtype, (size,), _narrowed(stored.float32, dtype, name))

    def rms_norm(self, x: Value, prefix: str, size: int, epsilon: float) -> Value:
        """Divide by the root mean square over the last axis, in float32 inside, and scale."""
        scale = self.vector(f"{prefix}.weight", size, ElementType.FLOAT)
        return self.dialect.rms_norm(self.graph, x, scale, epsilon, at=node_path(prefix))

    def layer_norm(self, x: Value, prefix: str, size: int, epsilon: float) -> Value:
        """Centre, divide by the deviation over the last axis, scale and shift."""
        scale = self.vector(f"{prefix}.weight", size, ElementType.FLOAT)
        shift = self.vector(f"{prefix}.bias", size, ElementType.FLOAT)
        attributes = {"axis": -1, "epsilon": epsilon}
        return self.graph.op("LayerNormalization", [x, scale, shift], attributes, at=node_path(prefix))

    def narrowed(self, x: Value, *, at: str) -> Value:
        """float32 -> the activation type."""
        return self._cast(x, self.precision.activation, at)

    def widened(self, x: Value, *, at: str) -> Value:
        """The activation type -> float32."""
        return self._cast(x, ElementType.FLOAT, at)

    def _cast(self, x: Value, dtype: ElementType, at: str) -> Value:
        if self.precision.activation == ElementType.FLOAT:
            return x
        return self.graph.op("Cast", [x], {"to": int(dtype)}, at=at)


def node_path(prefix: str) -> str:
    """`language_model.layers.3.self_attn.q_proj` -> `/layers.3/self_attn/q_proj`."""
    inner = prefix.removeprefix("language_model.").removeprefix("visual.")
    return "/" + re.sub(r"\.(?!\d)", "/", inner)


def _narrowed(
    read: Callable[[], NDArray[np.float32]], dtype: ElementType, name: str
) -> Callable[[], NDArray[np.floating]]:
    return lambda: narrow(read(), dtype, name)
