"""The portable dialect: operators of the ONNX standard only, heads apart: [B, heads, T, d].

What importers such as TensorRT's parser take. Two sets of operators write the same graph:

    FusedOperators   opset 23: Attention (four-dimensional, one output), RotaryEmbedding, RMSNormalization
    PlainOperators   opset 20: the same by arithmetic, for engines that lack those or build them wrongly

Causality is an attribute in the first and a [T, T] mask in the second; grouped heads share their keys by the
operator's own rule or by broadcasting, never by copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .dialect import attend_once, padding_mask
from .graph import Graph, Value

if TYPE_CHECKING:
    from .blocks import Network

_HEADS_FIRST = (0, 2, 1, 3)


class _Operators(Protocol):
    """How norms, turns and attention are written with one operator set."""

    @property
    def opset(self) -> int: ...

    def rms_norm(self, graph: Graph, x: Value, scale: Value, epsilon: float, *, at: str) -> Value: ...

    def row_table(self, graph: Graph, table: Value, *, at: str) -> Value:
        """cos or sin [B, T, d / 2] as `rotate` wants it."""
        ...

    def image_table(self, graph: Graph, table: Value, patches: Value, *, half: int, at: str) -> Value:
        """cos or sin [N, d / 2], the same for every image of `patches` [S, N, P], as `rotate` wants it."""
        ...

    def rotate(self, graph: Graph, x: Value, cos: Value, sin: Value, *, at: str) -> Value:
        """Turn the pairs (i, i + d / 2) of x [B, heads, T, d]."""
        ...

    def causal_mask(self, graph: Graph, length: Value, *, at: str) -> Value | None:
        """What `attend` takes to be causal; `length` is int64 [] and holds T."""
        ...

    def attend(self, net: Network, heads: _Heads, *, causal: bool, mask: Value | None, at: str) -> Value:
        """[B, heads, T, d]."""
        ...


@dataclass(frozen=True, slots=True)
class _Heads:
    """Queries [B, count, T, size], keys and values [B, groups, T, size]."""

    q: Value
    k: Value
    v: Value
    count: int
    groups: int
    size: int


@dataclass(frozen=True, slots=True)
class PortableDialect:
    """Graphs for importers of the ONNX standard."""

    operators: _Operators

    @property
    def opsets(self) -> Mapping[str, int]:
        """ONNX's operators alone."""
        return {"": self.operators.opset}

    def rms_norm(self, graph: Graph, x: Value, scale: Value, epsilon: float, *, at: str) -> Value:
        """In float32."""
        return self.operators.rms_norm(graph, x, scale, epsilon, at=at)

    def decoder_attention(
        self, net: Network, cos: Value, sin: Value, last: Value, *, heads: int, groups: int, size: int
    ) -> PortableDecoderAttention:
        """Causal, keys shared by groups."""
        return PortableDecoderAttention(
            net, self.operators, cos, sin, last, heads=heads, groups=groups, size=size
        )

    def vision_attention(
        self, net: Network, patches: Value, cos: Value, sin: Value, *, heads: int, size: int
    ) -> PortableVisionAttention:
        """Every patch attends to every patch of its image."""
        return PortableVisionAttention(net, self.operators, patches, cos, sin, heads=heads, size=size)


class PortableDecoderAttention:
    """Causal attention of a decoder graph."""

    def __init__(
        self,
        net: Network,
        operators: _Operators,
        cos: Value,
        sin: Value,
        last: Value,
        *,
        heads: int,
        groups: int,
        size: int,
    ) -> None:
        self._net, self._operators = net, operators
        self._heads, self._groups, self._size = heads, groups, size
        graph, at = net.graph, "/positions"
        self._shape = graph.op("Shape", [cos], {"start": 0, "end": 2}, at=at)
        self._length = graph.op("Gather", [self._shape, graph.constant(np.int64(1))], {"axis": 0}, at=at)
        self._last = graph.op("Unsqueeze", [last, graph.int64(1)], at="/last")
        self._tables = [net.narrowed(cos, at="/cos"), net.narrowed(sin, at="/sin")]
        self._cos, self._sin = (operators.row_table(graph, table, at=at) for table in self._tables)
        self._mask = operators.causal_mask(graph, self._length, at=at)

    @property
    def last(self) -> Value:
        """int64 [B, 1]."""
        return self._last

    def batch_and_length(self, *, at: str) -> Value:  # noqa: ARG002 - known from the start
        """int64 [2]: B and T."""
        return self._shape

    def turned(self, x: Value, heads: int, *, at: str) -> Value:  # noqa: ARG002 - the shape says it
        """float32 [B, T, heads, d] -> [B, heads, T, d]."""
        return self._operators.rotate(
            self._net.graph, self._heads_first(x, at=at), self._cos, self._sin, at=at
        )

    def turned_last(self, x: Value, heads: int, *, at: str) -> Value:  # noqa: ARG002
        """float32 [B, 1, heads, d] -> [B, heads, 1, d]."""
        graph = self._net.graph
        tables = []
        for table in self._tables:
            row = graph.op("GatherND", [table, self._last], {"batch_dims": 1}, at=at)
            row = graph.op("Unsqueeze", [row, graph.int64(1)], at=at)
            tables.append(self._operators.row_table(graph, row, at=at))
        return self._operators.rotate(graph, self._heads_first(x, at=at), tables[0], tables[1], at=at)

    def values(self, x: Value, *, at: str) -> Value:
        """[B, T, groups * d] -> [B, groups, T, d]."""
        graph = self._net.graph
        x = graph.op("Reshape", [x, graph.int64(0, 0, self._groups, self._size)], at=at)
        return graph.op("Transpose", [x], {"perm": _HEADS_FIRST}, at=at)

    def causal(self, q: Value, k: Value, v: Value, *, at: str) -> Value:
        """[B, T, heads * d]."""
        heads = _Heads(q, k, v, self._heads, self._groups, self._size)
        y = self._operators.attend(self._net, heads, causal=True, mask=self._mask, at=at)
        return _joined(self._net.graph, y, self._heads * self._size, at=at)

    def of_last(self, q: Value, k: Value, v: Value, *, at: str) -> Value:
        """float32 [B, heads * d]; only here padded keys must be masked."""
        net, graph = self._net, self._net.graph
        heads, groups, size = self._heads, self._groups, self._size
        scale = graph.constant(np.array(size**-0.5, np.float32))
        q = graph.op("Mul", [net.widened(q, at=at), scale], at=at)
        q = graph.op("Reshape", [q, graph.int64(0, groups, heads // groups, size)], at=at)
        k = graph.op("Transpose", [net.widened(k, at=at)], {"perm": (0, 1, 3, 2)}, at=at)
        v = net.widened(v, at=at)

        def mask() -> Value:
            return padding_mask(graph, self._length, self._last, at=at)

        return attend_once(graph, q, k, v, mask, width=heads * size, at=at)

    def _heads_first(self, x: Value, *, at: str) -> Value:
        x = self._net.narrowed(x, at=at)
        return self._net.graph.op("Transpose", [x], {"perm": _HEADS_FIRST}, at=at)


class PortableVisionAttention:
    """Attention inside images."""

    def __init__(
        self,
        net: Network,
        operators: _Operators,
        patches: Value,
        cos: Value,
        sin: Value,
        *,
        heads: int,
        size: int,
    ) -> None:
        self._net, self._operators, self._heads, self._size = net, operators, heads, size

        def table(value: Value, at: str) -> Value:
            value = net.narrowed(value, at=at)
            return operators.image_table(net.graph, value, patches, half=size // 2, at=at)

        self._cos, self._sin = table(cos, "/cos"), table(sin, "/sin")

    def full(self, qkv: Value, *, at: str) -> Value:
        """[S, N, 3 * heads * d] -> [S, N, heads * d]."""
        graph, split = self._net.graph, self._net.graph.int64(0, 0, self._heads, self._size)
        parts = graph.ops("Split", [qkv], {"axis": -1, "num_outputs": 3}, at=at, outputs=3)
        apart = []
        for part, name in zip(parts, "qkv", strict=True):
            x = graph.op("Reshape", [part, split], at=f"{at}/{name}")
            apart.append(graph.op("Transpose", [x], {"perm": _HEADS_FIRST}, at=f"{at}/{name}"))
        q = self._operators.rotate(graph, apart[0], self._cos, self._sin, at=f"{at}/q")
        k = self._operators.rotate(graph, apart[1], self._cos, self._sin, at=f"{at}/k")
        heads = _Heads(q, k, apart[2], self._heads, self._heads, self._size)
        y = self._operators.attend(self._net, heads, causal=False, mask=None, at=at)
        return _joined(graph, y, self._heads * self._size, at=at)


@dataclass(frozen=True, slots=True)
class FusedOperators:
    """Opset 23."""

    @property
    def opset(self) -> int:
        """23."""
        return 23

    def rms_norm(self, graph: Graph, x: Value, scale: Value, epsilon: float, *, at: str) -> Value:
        """RMSNormalization."""
        return graph.op("RMSNormalization", [x, scale], {"axis": -1, "epsilon": epsilon}, at=at)

    def row_table(self, graph: Graph, table: Value, *, at: str) -> Value:  # noqa: ARG002
        """[B, T, d / 2], as it is."""
        return table

    def image_table(self, graph: Graph, table: Value, patches: Value, *, half: int, at: str) -> Value:
        """[S, N, d / 2]: the operator has no table without rows of positions that serves a whole batch."""
        shape = graph.op("Shape", [patches], {"start": 0, "end": 2}, at=at)
        shape = graph.op("Concat", [shape, graph.int64(half)], {"axis": 0}, at=at)
        return graph.op("Expand", [table, shape], at=at)

    def rotate(self, graph: Graph, x: Value, cos: Value, sin: Value, *, at: str) -> Value:
        """RotaryEmbedding with one row of cos and sin a token."""
        return graph.op("RotaryEmbedding", [x, cos, sin], at=at)

    def causal_mask(self, graph: Graph, length: Value, *, at: str) -> Value | None:  # noqa: ARG002
        """None: causality is an attribute."""
        return None

    def attend(self, net: Network, heads: _Heads, *, causal: bool, mask: Value | None, at: str) -> Value:  # noqa: ARG002
        """Attention; its scale is d ** -0.5 by default, and groups follow from the shapes."""
        attributes = {"is_causal": 1} if causal else {}
        return net.graph.op("Attention", [heads.q, heads.k, heads.v], attributes, at=at)


@dataclass(frozen=True, slots=True)
class PlainOperators:
    """Opset 20: arithmetic."""

    @property
    def opset(self) -> int:
        """20, the first with Gelu."""
        return 20

    def rms_norm(self, graph: Graph, x: Value, scale: Value, epsilon: float, *, at: str) -> Value:
        """x / sqrt(mean(x * x) + epsilon) * scale."""
        mean = graph.op("ReduceMean", [graph.op("Mul", [x, x], at=at), graph.int64(-1)], at=at)
        mean = graph.op("Add", [mean, graph.constant(np.array(epsilon, np.float32))], at=at)
        x = graph.op("Div", [x, graph.op("Sqrt", [mean], at=at)], at=at)
        return graph.op("Mul", [x, scale], at=at)

    def row_table(self, graph: Graph, table: Value, *, at: str) -> Value:
        """[B, 1, T, d / 2]."""
        return graph.op("Unsqueeze", [table, graph.int64(1)], at=at)

    def image_table(self, graph: Graph, table: Value, patches: Value, *, half: int, at: str) -> Value:  # noqa: ARG002
        """[N, d / 2], as it is."""
        return table

    def rotate(self, graph: Graph, x: Value, cos: Value, sin: Value, *, at: str) -> Value:
        """(low, high) -> (low cos - high sin, high cos + low sin)."""
        low, high = graph.ops("Split", [x], {"axis": -1, "num_outputs": 2}, at=at, outputs=2)

        def times(half: Value, table: Value) -> Value:
            return graph.op("Mul", [half, table], at=at)

        first = graph.op("Sub", [times(low, cos), times(high, sin)], at=at)
        second = graph.op("Add", [times(high, cos), times(low, sin)], at=at)
        return graph.op("Concat", [first, second], {"axis": -1}, at=at)

    def causal_mask(self, graph: Graph, length: Value, *, at: str) -> Value | None:
        """float32 [T, T]: 0 up to the diagonal, a large negative number above it."""
        zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
        places = graph.op("Range", [zero, length, one], at=at)
        seen = graph.op(
            "LessOrEqual", [places, graph.op("Unsqueeze", [places, graph.int64(1)], at=at)], at=at
        )
        low = graph.constant(np.array(-1e9, np.float32))
        return graph.op("Where", [seen, graph.constant(np.array(0, np.float32)), low], at=at)

    def attend(self, net: Network, heads: _Heads, *, causal: bool, mask: Value | None, at: str) -> Value:  # noqa: ARG002
        """Two products, softmax in float32 between; queries that share a key have an axis of their own."""
        graph, q, k, v = net.graph, heads.q, heads.k, heads.v
        together = heads.count // heads.groups
        scale = np.array(heads.size**-0.5, net.precision.activation.numpy)
        q = graph.op("Mul", [q, graph.constant(scale)], at=at)
        if together == 1:
            k = graph.op("Transpose", [k], {"perm": (0, 1, 3, 2)}, at=at)
        else:
            q = graph.op("Reshape", [q, graph.int64(0, heads.groups, together, -1, heads.size)], at=at)
            k = graph.op("Unsqueeze", [k, graph.int64(2)], at=at)
            k = graph.op("Transpose", [k], {"perm": (0, 1, 2, 4, 3)}, at=at)
            v = graph.op("Unsqueeze", [v, graph.int64(2)], at=at)
        scores = net.widened(graph.op("MatMul", [q, k], at=at), at=at)
        if mask is not None:
            scores = graph.op("Add", [scores, mask], at=at)
        weights = net.narrowed(graph.op("Softmax", [scores], {"axis": -1}, at=at), at=at)
        y = graph.op("MatMul", [weights, v], at=at)
        if together == 1:
            return y
        return graph.op("Reshape", [y, graph.int64(0, heads.count, -1, heads.size)], at=at)


def _joined(graph: Graph, y: Value, width: int, *, at: str) -> Value:
    """[B, heads, T, d] -> [B, T, heads * d]."""
    y = graph.op("Transpose", [y], {"perm": _HEADS_FIRST}, at=at)
    return graph.op("Reshape", [y, graph.int64(0, 0, width)], at=at)
