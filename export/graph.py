"""A thin layer over onnx_ir: nodes named like paths, constants stored once, weights read when written.

Knows ONNX, not models. A weight is a promise: its bytes are asked for when the graph is saved, one tensor at
a time, so building a graph costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

OPSET = 23
CONTRIB = "com.microsoft"

# ONNX Runtime reads the IR version that introduced opset 23.
_IR_VERSION = 11

Dim = int | str


class Graph:
    """One ONNX graph under construction. Nodes are kept in the order they are made."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._uses: dict[str, int] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> ir.Value:
        """Declare an input; names in `shape` are free dimensions."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._inputs.append(value)
        return value

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        at: str,
        domain: str = "",
    ) -> ir.Value:
        """Add a node with one output and return that output. `at` is the node's path, as `/layers.3/mlp`."""
        return self.ops(op_type, inputs, attributes, at=at, domain=domain, outputs=1)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        at: str,
        outputs: int,
        domain: str = "",
    ) -> Sequence[ir.Value]:
        """Add a node with several outputs."""
        name = self._node_name(at, op_type)
        suffixes = [""] if outputs == 1 else [f"_{i}" for i in range(outputs)]
        values = [ir.Value(name=f"{name}:out{suffix}") for suffix in suffixes]
        node = ir.node(op_type, inputs, attributes or None, domain=domain, outputs=values, name=name)
        self._nodes.append(node)
        return values

    def constant(self, value: NDArray[Any] | np.generic) -> ir.Value:
        """A small array stored in the graph, once however often it is used."""
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            constant = ir.Value(
                name=f"constant_{len(self._constants)}",
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                shape=ir.Shape(array.shape),
                const_value=ir.tensor(array),
            )
            self._constants[key] = constant
            self._initializers.append(constant)
        return self._constants[key]

    def int64(self, *values: int) -> ir.Value:
        """A one-dimensional int64 constant: shapes, axes, indices."""
        return self.constant(np.array(values, np.int64))

    def weight(
        self, name: str, dtype: ir.DataType, shape: Sequence[int], read: Callable[[], NDArray[Any]]
    ) -> ir.Value:
        """A large array whose contents `read` yields when the graph is saved."""
        lazy = ir.LazyTensor(
            lambda: ir.tensor(np.ascontiguousarray(read()), dtype=dtype, name=name),
            dtype=dtype,
            shape=ir.Shape(shape),
            cache=False,
            name=name,
        )
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape), const_value=lazy)
        self._initializers.append(value)
        return value

    def finish(self, outputs: Mapping[str, tuple[ir.Value, ir.DataType, Sequence[Dim]]]) -> ir.Model:
        """Name the outputs and close the graph."""
        values = []
        for name, (value, dtype, shape) in outputs.items():
            value.name = name
            value.type = ir.TensorType(dtype)
            value.shape = ir.Shape(shape)
            values.append(value)
        graph = ir.Graph(
            self._inputs,
            values,
            nodes=self._nodes,
            initializers=self._initializers,
            opset_imports={"": OPSET, CONTRIB: 1},
            name=self._name,
        )
        return ir.Model(graph, ir_version=_IR_VERSION, producer_name="qvl-local")

    def _node_name(self, at: str, op_type: str) -> str:
        name = f"{at}/{op_type}"
        count = self._uses.get(name, 0)
        self._uses[name] = count + 1
        return f"{name}_{count}" if count else name
