"""The decoder as a graph: token embeddings -> the last token's state after the final norm.

    embeds[B,T,H] -> layer 0 (+ deepstack 0) -> layer 1 (+ deepstack 1) ... -> last layer, last token only
                                                                                 -> norm -> pooled[B,H]

Rows are padded on the right and attention is causal, so no row's last token ever sees padding and no mask is
needed; only the last layer, which has one query a row, masks the padded keys. Keys and values of the last
layer are computed for all tokens, its query, output projection and MLP for one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from qvl_local.runtime.model.config import TextConfig

from .blocks import Network, Precision
from .checkpoint import Checkpoint
from .graph import CONTRIB, Graph, Value
from .onnx_file import ElementType, Model

_FLOAT = ElementType.FLOAT
_INT32 = ElementType.INT32
_INT64 = ElementType.INT64


@dataclass(frozen=True, slots=True)
class _Shared:
    """Values that every layer reads.

    `rows` int64 [B, T] numbers the B * T rows of `cos` and `sin` [B * T, d / 2]. `last` is int64 [B, 1].
    `key_ends` int32 [B] and `length` int32 [] are what GroupQueryAttention asks for: T - 1 a row, and T.
    """

    rows: Value
    cos: Value
    sin: Value
    last: Value
    key_ends: Value
    length: Value
    deepstack: Value
    deepstack_levels: int


def build_decoder(checkpoint: Checkpoint, precision: Precision) -> Model:
    """The decoder graph, as `Session` describes it; inputs and outputs are float32."""
    text, levels = checkpoint.config.text, len(checkpoint.config.vision.deepstack_layers)
    net = Network(Graph("decoder"), checkpoint, precision)
    graph = net.graph
    half = text.head_dim // 2
    x = graph.input("embeds", _FLOAT, ["B", "T", text.hidden_size])
    cos = graph.input("cos", _FLOAT, ["B", "T", half])
    sin = graph.input("sin", _FLOAT, ["B", "T", half])
    deepstack = graph.input("deepstack", _FLOAT, [levels, "DB", "DT", text.hidden_size])
    last = graph.input("last", _INT64, ["B"])

    shared = _share(net, cos, sin, deepstack, last, levels)
    for layer in range(text.num_layers - 1):
        x = _layer(net, text, layer, x, shared)
    x = _last_layer(net, text, text.num_layers - 1, x, shared)
    pooled = net.rms_norm(x, "language_model.norm", text.hidden_size, text.rms_norm_eps)
    return graph.finish({"pooled": (pooled, _FLOAT, ["B", text.hidden_size])})


def _share(net: Network, cos: Value, sin: Value, deepstack: Value, last: Value, levels: int) -> _Shared:
    graph, at = net.graph, "/positions"
    half = net.checkpoint.config.text.head_dim // 2
    batch_and_length = graph.op("Shape", [cos], {"start": 0, "end": 2}, at=at)
    count = graph.op("ReduceProd", [batch_and_length], {"keepdims": 0}, at=at)
    zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
    rows = graph.op("Reshape", [graph.op("Range", [zero, count, one], at=at), batch_and_length], at=at)
    length = graph.op("Gather", [batch_and_length, one], {"axis": 0}, at=at)
    length = graph.op("Cast", [length], {"to": int(_INT32)}, at=at)
    batch = graph.op("Shape", [cos], {"start": 0, "end": 1}, at=at)
    key_end = graph.op("Sub", [length, graph.constant(np.int32(1))], at=at)
    return _Shared(
        rows=rows,
        cos=net.narrowed(graph.op("Reshape", [cos, graph.int64(-1, half)], at="/cos"), at="/cos"),
        sin=net.narrowed(graph.op("Reshape", [sin, graph.int64(-1, half)], at="/sin"), at="/sin"),
        last=graph.op("Unsqueeze", [last, graph.int64(1)], at="/last"),
        key_ends=graph.op("Expand", [key_end, batch], at=at),
        length=length,
        deepstack=deepstack,
        deepstack_levels=levels,
    )


def _layer(net: Network, text: TextConfig, layer: int, x: Value, shared: _Shared) -> Value:
    graph, prefix, at = net.graph, f"language_model.layers.{layer}", f"/layers.{layer}"
    y = net.rms_norm(x, f"{prefix}.input_layernorm", text.hidden_size, text.rms_norm_eps)
    y = net.narrowed(y, at=f"{at}/input_layernorm")
    q = _query_or_key(net, text, prefix, "q", y, text.num_heads)
    q = net.rotate(q, shared.rows, shared.cos, shared.sin, at=f"{at}/self_attn/q")
    k, v = _keys_and_values(net, text, prefix, y, shared)
    attributes = {
        "num_heads": text.num_heads,
        "kv_num_heads": text.num_kv_heads,
        "scale": text.head_dim**-0.5,
    }
    # The node also returns keys and values for a cache that a single pass does not need.
    y, _, _ = graph.ops(
        "GroupQueryAttention",
        [q, k, v, None, None, shared.key_ends, shared.length],
        attributes,
        at=f"{at}/self_attn",
        domain=CONTRIB,
        outputs=3,
    )
    x = _finish_layer(net, text, prefix, x, y)
    if layer < shared.deepstack_levels:
        level = graph.op("Gather", [shared.deepstack, graph.constant(np.int64(layer))], {"axis": 0}, at=at)
        x = graph.op("Add", [x, level], at=f"{at}/deepstack")
    return x


def _last_layer(net: Network, text: TextConfig, layer: int, x: Value, shared: _Shared) -> Value:
    """The layer whose output is needed for one token a row: x [B, T, H] -> [B, H]."""
    graph, prefix, at = net.graph, f"language_model.layers.{layer}", f"/layers.{layer}"
    heads, groups, size = text.num_heads, text.num_kv_heads, text.head_dim
    y = net.rms_norm(x, f"{prefix}.input_layernorm", text.hidden_size, text.rms_norm_eps)
    y = net.narrowed(y, at=f"{at}/input_layernorm")
    k, v = _keys_and_values(net, text, prefix, y, shared)
    q = _query_or_key(net, text, prefix, "q", _last_row(graph, y, shared, at, keep=True), heads)
    row = graph.op("GatherND", [shared.rows, shared.last], {"batch_dims": 1}, at=f"{at}/self_attn/q")
    row = graph.op("Unsqueeze", [row, graph.int64(1)], at=f"{at}/self_attn/q")
    q = net.rotate(q, row, shared.cos, shared.sin, at=f"{at}/self_attn/q")

    # One query a head: [B, groups, heads / groups, d] x [B, groups, d, T], so keys are shared without copies.
    at_attention = f"{at}/self_attn"
    scale = graph.constant(np.array(size**-0.5, np.float32))
    q = graph.op("Mul", [net.widened(q, at=at_attention), scale], at=at_attention)
    q = graph.op("Reshape", [q, graph.int64(0, groups, heads // groups, size)], at=at_attention)
    split = graph.int64(0, 0, groups, size)
    k = graph.op("Reshape", [net.widened(k, at=at_attention), split], at=at_attention)
    k = graph.op("Transpose", [k], {"perm": [0, 2, 3, 1]}, at=at_attention)
    v = graph.op("Reshape", [net.widened(v, at=at_attention), split], at=at_attention)
    v = graph.op("Transpose", [v], {"perm": [0, 2, 1, 3]}, at=at_attention)
    weights = graph.op("MatMul", [q, k], at=at_attention)
    weights = graph.op("Add", [weights, _padding_mask(graph, shared, at_attention)], at=at_attention)
    weights = graph.op("Softmax", [weights], {"axis": -1}, at=at_attention)
    y = graph.op("MatMul", [weights, v], at=at_attention)
    y = graph.op("Reshape", [y, graph.int64(0, heads * size)], at=at_attention)

    x = _last_row(graph, x, shared, at, keep=False)
    x = _finish_layer(net, text, prefix, x, net.narrowed(y, at=at_attention))
    if layer < shared.deepstack_levels:
        level = graph.op("Gather", [shared.deepstack, graph.constant(np.int64(layer))], {"axis": 0}, at=at)
        shape = graph.op("Shape", [shared.rows], at=at)
        shape = graph.op("Concat", [shape, graph.int64(text.hidden_size)], {"axis": 0}, at=at)
        level = graph.op("Expand", [level, shape], at=f"{at}/deepstack")
        x = graph.op("Add", [x, _last_row(graph, level, shared, at, keep=False)], at=f"{at}/deepstack")
    return x


def _keys_and_values(
    net: Network, text: TextConfig, prefix: str, y: Value, shared: _Shared
) -> tuple[Value, Value]:
    """Turned keys and values, each [B, T, groups * d]."""
    at = f"/{prefix.removeprefix('language_model.')}/self_attn"
    k = _query_or_key(net, text, prefix, "k", y, text.num_kv_heads)
    k = net.rotate(k, shared.rows, shared.cos, shared.sin, at=f"{at}/k")
    width = text.num_kv_heads * text.head_dim
    v = net.linear(y, f"{prefix}.self_attn.v_proj", width, text.hidden_size, bias=False)
    return k, v


def _query_or_key(net: Network, text: TextConfig, prefix: str, which: str, y: Value, heads: int) -> Value:
    """Project to `heads` heads and normalise each, [B, T, heads * d]; not yet turned."""
    graph, size = net.graph, text.head_dim
    at = f"/{prefix.removeprefix('language_model.')}/self_attn/{which}"
    x = net.linear(y, f"{prefix}.self_attn.{which}_proj", heads * size, text.hidden_size, bias=False)
    x = graph.op("Reshape", [net.widened(x, at=at), graph.int64(0, 0, heads, size)], at=at)
    x = net.rms_norm(x, f"{prefix}.self_attn.{which}_norm", size, text.rms_norm_eps)
    x = graph.op("Reshape", [x, graph.int64(0, 0, heads * size)], at=at)
    return net.narrowed(x, at=at)


def _finish_layer(net: Network, text: TextConfig, prefix: str, x: Value, attended: Value) -> Value:
    """Output projection and MLP with their residuals, for [B, T, ...] or [B, ...]."""
    graph, at = net.graph, f"/{prefix.removeprefix('language_model.')}"
    hidden, inner = text.hidden_size, text.intermediate_size
    y = net.linear(attended, f"{prefix}.self_attn.o_proj", hidden, text.num_heads * text.head_dim, bias=False)
    x = graph.op("Add", [x, net.widened(y, at=f"{at}/self_attn")], at=f"{at}/self_attn")
    y = net.rms_norm(x, f"{prefix}.post_attention_layernorm", hidden, text.rms_norm_eps)
    y = net.narrowed(y, at=f"{at}/post_attention_layernorm")
    gate = net.linear(y, f"{prefix}.mlp.gate_proj", inner, hidden, bias=False)
    up = net.linear(y, f"{prefix}.mlp.up_proj", inner, hidden, bias=False)
    gate = graph.op("Mul", [gate, graph.op("Sigmoid", [gate], at=f"{at}/mlp")], at=f"{at}/mlp")
    y = graph.op("Mul", [gate, up], at=f"{at}/mlp")
    y = net.linear(y, f"{prefix}.mlp.down_proj", hidden, inner, bias=False)
    return graph.op("Add", [x, net.widened(y, at=f"{at}/mlp")], at=f"{at}/mlp")


def _last_row(graph: Graph, x: Value, shared: _Shared, at: str, *, keep: bool) -> Value:
    """The last token of each row: [B, T, W] -> [B, W], or [B, 1, W] when the axis is to be kept."""
    row = graph.op("GatherND", [x, shared.last], {"batch_dims": 1}, at=f"{at}/last")
    return graph.op("Unsqueeze", [row, graph.int64(1)], at=f"{at}/last") if keep else row


def _padding_mask(graph: Graph, shared: _Shared, at: str) -> Value:
    """float32 [B, 1, 1, T]: 0 up to each row's last token, a large negative number behind it."""
    zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
    length = graph.op("Cast", [shared.length], {"to": int(_INT64)}, at=at)
    places = graph.op("Range", [zero, length, one], at=at)
    seen = graph.op("LessOrEqual", [places, shared.last], at=at)  # [T] <= [B, 1]
    low = graph.constant(np.array(-1e9, np.float32))
    mask = graph.op("Where", [seen, graph.constant(np.array(0, np.float32)), low], at=at)
    return graph.op("Unsqueeze", [mask, graph.int64(1, 2)], at=at)
