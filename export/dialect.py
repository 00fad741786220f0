"""How a graph writes what engines disagree about: RMS norms, rotary turns and attention.

A dialect is what lies between two projections. The builders of the towers say what is computed; a dialect
says with which operators, and in which layout heads travel between its own methods: values that it returns
as "heads" mean something to itself alone.

    OrtDialect        contrib operators of ONNX Runtime, heads side by side: [B, T, heads * d]
    PortableDialect   standard operators only, heads apart: [B, heads, T, d]

This module also holds the attention of one query a row, which both write alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .graph import Graph, Value

if TYPE_CHECKING:
    from .blocks import Network


class Dialect(Protocol):
    """One way of writing norms and attention."""

    @property
    def opsets(self) -> Mapping[str, int]:
        """Operator sets of the graph by domain; "" is ONNX's own."""
        ...

    def rms_norm(self, graph: Graph, x: Value, scale: Value, epsilon: float, *, at: str) -> Value:
        """Divide float32 x by its root mean square over the last axis, and scale."""
        ...

    def decoder_attention(
        self, net: Network, cos: Value, sin: Value, last: Value, *, heads: int, groups: int, size: int
    ) -> DecoderAttention:
        """The attention of a decoder's layers.

        `cos` and `sin` are float32 [B, T, size / 2], `last` int64 [B]; `heads` queries share `groups` keys.
        """
        ...

    def vision_attention(
        self, net: Network, patches: Value, cos: Value, sin: Value, *, heads: int, size: int
    ) -> VisionAttention:
        """The attention of a vision tower's blocks.

        `patches` is [S, N, P], `cos` and `sin` are float32 [N, size / 2].
        """
        ...


class DecoderAttention(Protocol):
    """Causal attention of one decoder graph, its positions already in place."""

    @property
    def last(self) -> Value:
        """int64 [B, 1]: the place of each row's last token."""
        ...

    def batch_and_length(self, *, at: str) -> Value:
        """int64 [2]: B and T."""
        ...

    def turned(self, x: Value, heads: int, *, at: str) -> Value:
        """Queries or keys, float32 [B, T, heads, d] -> heads, turned to their positions."""
        ...

    def turned_last(self, x: Value, heads: int, *, at: str) -> Value:
        """The last token's queries, float32 [B, 1, heads, d] -> heads."""
        ...

    def values(self, x: Value, *, at: str) -> Value:
        """Values as they are projected, [B, T, groups * d] -> heads."""
        ...

    def causal(self, q: Value, k: Value, v: Value, *, at: str) -> Value:
        """Every token attends to itself and those before it -> [B, T, heads * d]."""
        ...

    def of_last(self, q: Value, k: Value, v: Value, *, at: str) -> Value:
        """The last token of each row attends to its row -> float32 [B, heads * d]."""
        ...


class VisionAttention(Protocol):
    """Attention inside each image of one vision graph."""

    def full(self, qkv: Value, *, at: str) -> Value:
        """Turn queries and keys and attend: [S, N, 3 * heads * d] -> [S, N, heads * d]."""
        ...


def attend_once(
    graph: Graph, q: Value, k: Value, v: Value, mask: Callable[[], Value], *, width: int, at: str
) -> Value:
    """Attention of one scaled query a head, in float32 -> [B, width].

    q [B, groups, heads / groups, d] x k [B, groups, d, T] and v [B, groups, T, d]: keys are shared without
    copies. `mask` makes the nodes of [B, 1, 1, T] that is added to the scores.
    """
    weights = graph.op("MatMul", [q, k], at=at)
    weights = graph.op("Add", [weights, mask()], at=at)
    weights = graph.op("Softmax", [weights], {"axis": -1}, at=at)
    y = graph.op("MatMul", [weights, v], at=at)
    return graph.op("Reshape", [y, graph.int64(0, width)], at=at)


def padding_mask(graph: Graph, length: Value, last: Value, *, at: str) -> Value:
    """float32 [B, 1, 1, T]: 0 up to each row's last token, a large negative number behind it.

    `length` is int64 [] and holds T; `last` is int64 [B, 1].
    """
    zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
    places = graph.op("Range", [zero, length, one], at=at)
    seen = graph.op("LessOrEqual", [places, last], at=at)  # [T] <= [B, 1]
    low = graph.constant(np.array(-1e9, np.float32))
    mask = graph.op("Where", [seen, graph.constant(np.array(0, np.float32)), low], at=at)
    return graph.op("Unsqueeze", [mask, graph.int64(1, 2)], at=at)
