"""ONNX Runtime's own dialect: fused contrib operators that keep heads side by side, [B, T, heads * d].

GroupQueryAttention and MultiHeadAttention have flash kernels on the CPU and on CUDA, and take heads as they
come out of a projection, so nothing is transposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .dialect import attend_once, padding_mask
from .graph import CONTRIB, OPSET, Graph, Value
from .onnx_file import ElementType

if TYPE_CHECKING:
    from .blocks import Network

_INT32 = ElementType.INT32
_INT64 = ElementType.INT64


@dataclass(frozen=True, slots=True)
class OrtDialect:
    """Graphs for ONNX Runtime."""

    @property
    def opsets(self) -> Mapping[str, int]:
        """ONNX's operators, and those of com.microsoft."""
        return {"": OPSET, CONTRIB: 1}

    def rms_norm(self, graph: Graph, x: Value, scale: Value, epsilon: float, *, at: str) -> Value:
        """As fast as the contrib one."""
        return graph.op("RMSNormalization", [x, scale], {"axis": -1, "epsilon": epsilon}, at=at)

    def decoder_attention(
        self, net: Network, cos: Value, sin: Value, last: Value, *, heads: int, groups: int, size: int
    ) -> OrtDecoderAttention:
        """By GroupQueryAttention."""
        return OrtDecoderAttention(net, cos, sin, last, heads=heads, groups=groups, size=size)

    def vision_attention(
        self,
        net: Network,
        patches: Value,  # noqa: ARG002 - one row of cos and sin serves every image
        cos: Value,
        sin: Value,
        *,
        heads: int,
        size: int,
    ) -> OrtVisionAttention:
        """By MultiHeadAttention."""
        return OrtVisionAttention(net, cos, sin, heads=heads, size=size)


ORT = OrtDialect()


class OrtDecoderAttention:
    """Causal attention by GroupQueryAttention.

    The contrib rotary operator looks positions up: `rows` int64 [B, T] numbers the B * T rows of `cos` and
    `sin` [B * T, d / 2]. `key_ends` int32 [B] and `length` int32 [] are what GroupQueryAttention asks for:
    T - 1 a row, and T.
    """

    def __init__(
        self, net: Network, cos: Value, sin: Value, last: Value, *, heads: int, groups: int, size: int
    ) -> None:
        self._net, self._heads, self._groups, self._size = net, heads, groups, size
        graph, at, half = net.graph, "/positions", size // 2
        batch_and_length = graph.op("Shape", [cos], {"start": 0, "end": 2}, at=at)
        count = graph.op("ReduceProd", [batch_and_length], {"keepdims": 0}, at=at)
        zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
        rows = graph.op("Range", [zero, count, one], at=at)
        self._rows = graph.op("Reshape", [rows, batch_and_length], at=at)
        length = graph.op("Gather", [batch_and_length, one], {"axis": 0}, at=at)
        self._length = graph.op("Cast", [length], {"to": int(_INT32)}, at=at)
        batch = graph.op("Shape", [cos], {"start": 0, "end": 1}, at=at)
        key_end = graph.op("Sub", [self._length, graph.constant(np.int32(1))], at=at)
        flat = graph.int64(-1, half)
        self._cos = net.narrowed(graph.op("Reshape", [cos, flat], at="/cos"), at="/cos")
        self._sin = net.narrowed(graph.op("Reshape", [sin, flat], at="/sin"), at="/sin")
        self._last = graph.op("Unsqueeze", [last, graph.int64(1)], at="/last")
        self._key_ends = graph.op("Expand", [key_end, batch], at=at)

    @property
    def last(self) -> Value:
        """int64 [B, 1]."""
        return self._last

    def batch_and_length(self, *, at: str) -> Value:
        """int64 [2]: B and T."""
        return self._net.graph.op("Shape", [self._rows], at=at)

    def turned(self, x: Value, heads: int, *, at: str) -> Value:
        """float32 [B, T, heads, d] -> [B, T, heads * d]."""
        x = self._joined(x, heads, at)
        return _rotate(self._net.graph, x, self._rows, self._cos, self._sin, at=at)

    def turned_last(self, x: Value, heads: int, *, at: str) -> Value:
        """float32 [B, 1, heads, d] -> [B, 1, heads * d]."""
        graph = self._net.graph
        x = self._joined(x, heads, at)
        row = graph.op("GatherND", [self._rows, self._last], {"batch_dims": 1}, at=at)
        row = graph.op("Unsqueeze", [row, graph.int64(1)], at=at)
        return _rotate(graph, x, row, self._cos, self._sin, at=at)

    def values(self, x: Value, *, at: str) -> Value:  # noqa: ARG002 - no node is needed
        """[B, T, groups * d], as it is."""
        return x

    def causal(self, q: Value, k: Value, v: Value, *, at: str) -> Value:
        """[B, T, heads * d]. The node also returns keys and values for a cache; a single pass needs none."""
        attributes = {
            "num_heads": self._heads,
            "kv_num_heads": self._groups,
            "scale": self._size**-0.5,
        }
        inputs = [q, k, v, None, None, self._key_ends, self._length]
        y, _, _ = self._net.graph.ops(
            "GroupQueryAttention", inputs, attributes, at=at, domain=CONTRIB, outputs=3
        )
        return y

    def of_last(self, q: Value, k: Value, v: Value, *, at: str) -> Value:
        """float32 [B, heads * d]; only here padded keys must be masked."""
        net, graph = self._net, self._net.graph
        heads, groups, size = self._heads, self._groups, self._size
        scale = graph.constant(np.array(size**-0.5, np.float32))
        q = graph.op("Mul", [net.widened(q, at=at), scale], at=at)
        q = graph.op("Reshape", [q, graph.int64(0, groups, heads // groups, size)], at=at)
        split = graph.int64(0, 0, groups, size)
        k = graph.op("Reshape", [net.widened(k, at=at), split], at=at)
        k = graph.op("Transpose", [k], {"perm": [0, 2, 3, 1]}, at=at)
        v = graph.op("Reshape", [net.widened(v, at=at), split], at=at)
        v = graph.op("Transpose", [v], {"perm": [0, 2, 1, 3]}, at=at)

        def mask() -> Value:
            length = graph.op("Cast", [self._length], {"to": int(_INT64)}, at=at)
            return padding_mask(graph, length, self._last, at=at)

        return attend_once(graph, q, k, v, mask, width=heads * size, at=at)

    def _joined(self, x: Value, heads: int, at: str) -> Value:
        shape = self._net.graph.int64(0, 0, heads * self._size)
        return self._net.narrowed(self._net.graph.op("Reshape", [x, shape], at=at), at=at)


class OrtVisionAttention:
    """Attention inside images by MultiHeadAttention."""

    def __init__(self, net: Network, cos: Value, sin: Value, *, heads: int, size: int) -> None:
        self._net, self._heads, self._size = net, heads, size
        self._cos = net.narrowed(cos, at="/cos")
        self._sin = net.narrowed(sin, at="/sin")

    def full(self, qkv: Value, *, at: str) -> Value:
        """[S, N, 3 * heads * d] -> [S, N, heads * d]."""
        graph = self._net.graph
        q, k, v = graph.ops("Split", [qkv], {"axis": -1, "num_outputs": 3}, at=at, outputs=3)
        start = graph.int64(0)  # every image begins at the first row of cos and sin
        q = _rotate(graph, q, start, self._cos, self._sin, at=f"{at}/q")
        k = _rotate(graph, k, start, self._cos, self._sin, at=f"{at}/k")
        attributes = {"num_heads": self._heads, "scale": self._size**-0.5}
        return graph.op("MultiHeadAttention", [q, k, v], attributes, at=at, domain=CONTRIB)


def _rotate(graph: Graph, x: Value, position: Value, cos: Value, sin: Value, *, at: str) -> Value:
    """Turn the heads of x [B, T, heads * d] by rows `position` of cos, sin [rows, d / 2]."""
    return graph.op("RotaryEmbedding", [x, position, cos, sin], at=at, domain=CONTRIB)
