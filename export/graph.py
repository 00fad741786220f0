"""A graph under construction: nodes named like paths, constants stored once, weights read when written.

Knows ONNX, not models. A weight is a promise: its bytes are asked for when the model is saved, one tensor
at a time, so building a graph costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_file import Attribute, Constant, Dim, ElementType, Initializer, Model, Node, ValueInfo

OPSET = 23
CONTRIB = "com.microsoft"


@dataclass(slots=True, eq=False)
class Value:
    """An edge between nodes. Its name is final once the graph is finished."""

    name: str


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    op: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    domain: str
    attributes: Mapping[str, Attribute]


class Graph:
    """One ONNX graph under construction. Nodes are kept in the order they are made."""

    def __init__(self, name: str, opsets: Mapping[str, int] | None = None) -> None:
        self._name = name
        self._opsets = dict(opsets or {"": OPSET, CONTRIB: 1})
        self._inputs: list[ValueInfo] = []
        self._nodes: list[_Node] = []
        self._weights: dict[str, Initializer] = {}
        self._constants: list[Constant] = []
        self._known_constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._uses: dict[str, int] = {}
        self._made: dict[tuple[str, Value], tuple[Value, ...]] = {}

    def input(self, name: str, dtype: ElementType, shape: Sequence[Dim]) -> Value:
        """Declare an input; names in `shape` are free dimensions."""
        self._inputs.append(ValueInfo(name, dtype, tuple(shape)))
        return Value(name)

    def op(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        at: str,
        domain: str = "",
    ) -> Value:
        """Add a node with one output and return that output. `at` is the node's path, as `/layers.3/mlp`."""
        return self.ops(op_type, inputs, attributes, at=at, domain=domain, outputs=1)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        at: str,
        outputs: int,
        domain: str = "",
    ) -> tuple[Value, ...]:
        """Add a node with several outputs."""
        name = self._node_name(at, op_type)
        suffixes = [""] if outputs == 1 else [f"_{i}" for i in range(outputs)]
        values = tuple(Value(f"{name}:out{suffix}") for suffix in suffixes)
        self._nodes.append(_Node(name, op_type, tuple(inputs), values, domain, attributes or {}))
        return values

    def constant(self, value: NDArray[Any] | np.generic) -> Value:
        """A small array stored in the graph, once however often it is used."""
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known_constants:
            constant = Constant(f"constant_{len(self._constants)}", array)
            self._constants.append(constant)
            self._known_constants[key] = Value(constant.name)
        return self._known_constants[key]

    def int64(self, *values: int) -> Value:
        """A one-dimensional int64 constant: shapes, axes, indices."""
        return self.constant(np.array(values, np.int64))

    def once(self, what: str, x: Value, make: Callable[[], tuple[Value, ...]]) -> tuple[Value, ...]:
        """What `make` makes of x, made once: products of one input share what is done to the input."""
        key = (what, x)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def weight(
        self, name: str, dtype: ElementType, shape: Sequence[int], read: Callable[[], NDArray[Any]]
    ) -> Value:
        """A large array that `read` yields when the graph is saved; used twice, it is stored once."""
        new = Initializer(name, dtype, tuple(shape), read)
        known = self._weights.setdefault(name, new)
        if (known.type, known.shape) != (new.type, new.shape):
            raise ValueError(f"{name}: is {known.type.name} {known.shape}, not {new.type.name} {new.shape}")
        return Value(name)

    def finish(self, outputs: Mapping[str, tuple[Value, ElementType, Sequence[Dim]]]) -> Model:
        """Name the outputs and close the graph."""
        for name, (value, _, _) in outputs.items():
            value.name = name
        return Model(
            name=self._name,
            opsets=self._opsets,
            inputs=tuple(self._inputs),
            outputs=tuple(
                ValueInfo(name, dtype, tuple(shape)) for name, (_, dtype, shape) in outputs.items()
            ),
            nodes=tuple(_named(node) for node in self._nodes),
            weights=tuple(self._weights.values()),
            constants=tuple(self._constants),
        )

    def _node_name(self, at: str, op_type: str) -> str:
        name = f"{at}/{op_type}"
        count = self._uses.get(name, 0)
        self._uses[name] = count + 1
        return f"{name}_{count}" if count else name


def _named(node: _Node) -> Node:
    """The node with the names that its edges ended up with."""
    inputs = tuple("" if value is None else value.name for value in node.inputs)
    outputs = tuple(value.name for value in node.outputs)
    return Node(node.name, node.op, inputs, outputs, node.domain, node.attributes)
