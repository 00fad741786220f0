"""The decoder as a graph: token embeddings -> the last token's state after the final norm.

    embeds[B,T,H] -> layer 0 (+ deepstack 0) -> layer 1 (+ deepstack 1) ... -> last layer, last token only
                                                                                 -> norm -> pooled[B,H]

Rows are padded on the right and attention is causal, so no row's last token ever sees padding and no mask is
needed; only the last layer, which has one query a row, masks the padded keys. Keys and values of the last
layer are computed for all tokens, its query, output projection and MLP for one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from qvl_local.runtime.model.config import TextConfig

from .adapters import Adapters
from .blocks import Network, Precision
from .checkpoint import Checkpoint
from .dialect import DecoderAttention, Dialect
from .graph import Graph, Value
from .onnx_file import ElementType, Model
from .ort_dialect import ORT

_FLOAT = ElementType.FLOAT
_INT64 = ElementType.INT64


@dataclass(frozen=True, slots=True)
class _Shared:
    """What every layer reads: the attention with its positions, and the deepstack features."""

    attention: DecoderAttention
    deepstack: Value
    deepstack_levels: int


def build_decoder(
    checkpoint: Checkpoint,
    precision: Precision,
    dialect: Dialect = ORT,
    *,
    adapters: Adapters | None = None,
) -> Model:
    """The decoder graph, as `Session` describes it; inputs and outputs are float32.

    With `adapters` it takes one more input, `adapter` [1]: see `export/adapters.py`.
    """
    text, levels = checkpoint.config.text, len(checkpoint.config.vision.deepstack_layers)
    net = Network(Graph("decoder", dialect.opsets), checkpoint, precision, dialect)
    graph = net.graph
    half = text.head_dim // 2
    x = graph.input("embeds", _FLOAT, ["B", "T", text.hidden_size])
    cos = graph.input("cos", _FLOAT, ["B", "T", half])
    sin = graph.input("sin", _FLOAT, ["B", "T", half])
    deepstack = graph.input("deepstack", _FLOAT, [levels, "DB", "DT", text.hidden_size])
    last = graph.input("last", _INT64, ["B"])
    if adapters:
        net = replace(net, adapters=adapters.activate(graph, precision.activation))

    attention = dialect.decoder_attention(
        net, cos, sin, last, heads=text.num_heads, groups=text.num_kv_heads, size=text.head_dim
    )
    shared = _Shared(attention, deepstack, levels)
    for layer in range(text.num_layers - 1):
        x = _layer(net, text, layer, x, shared)
    x = _last_layer(net, text, text.num_layers - 1, x, shared)
    pooled = net.rms_norm(x, "language_model.norm", text.hidden_size, text.rms_norm_eps)
    return graph.finish({"pooled": (pooled, _FLOAT, ["B", text.hidden_size])})


def _layer(net: Network, text: TextConfig, layer: int, x: Value, shared: _Shared) -> Value:
    graph, prefix, at = net.graph, f"language_model.layers.{layer}", f"/layers.{layer}"
    attention, at_attention = shared.attention, f"{at}/self_attn"
    y = net.rms_norm(x, f"{prefix}.input_layernorm", text.hidden_size, text.rms_norm_eps)
    y = net.narrowed(y, at=f"{at}/input_layernorm")
    q = _query_or_key(net, text, prefix, "q", y, text.num_heads)
    q = attention.turned(q, text.num_heads, at=f"{at_attention}/q")
    k, v = _keys_and_values(net, text, prefix, y, shared)
    y = attention.causal(q, k, v, at=at_attention)
    x = _finish_layer(net, text, prefix, x, y)
    if layer < shared.deepstack_levels:
        level = graph.op("Gather", [shared.deepstack, graph.constant(np.int64(layer))], {"axis": 0}, at=at)
        x = graph.op("Add", [x, level], at=f"{at}/deepstack")
    return x


def _last_layer(net: Network, text: TextConfig, layer: int, x: Value, shared: _Shared) -> Value:
    """The layer whose output is needed for one token a row: x [B, T, H] -> [B, H]."""
    graph, prefix, at = net.graph, f"language_model.layers.{layer}", f"/layers.{layer}"
    attention, at_attention = shared.attention, f"{at}/self_attn"
    y = net.rms_norm(x, f"{prefix}.input_layernorm", text.hidden_size, text.rms_norm_eps)
    y = net.narrowed(y, at=f"{at}/input_layernorm")
    k, v = _keys_and_values(net, text, prefix, y, shared)
    q = _query_or_key(net, text, prefix, "q", _last_row(graph, y, shared, at, keep=True), text.num_heads)
    q = attention.turned_last(q, text.num_heads, at=f"{at_attention}/q")
    y = attention.of_last(q, k, v, at=at_attention)
    x = _last_row(graph, x, shared, at, keep=False)
    x = _finish_layer(net, text, prefix, x, net.narrowed(y, at=at_attention))
    if layer < shared.deepstack_levels:
        level = graph.op("Gather", [shared.deepstack, graph.constant(np.int64(layer))], {"axis": 0}, at=at)
        shape = attention.batch_and_length(at=at)
        shape = graph.op("Concat", [shape, graph.int64(text.hidden_size)], {"axis": 0}, at=at)
        level = graph.op("Expand", [level, shape], at=f"{at}/deepstack")
        x = graph.op("Add", [x, _last_row(graph, level, shared, at, keep=False)], at=f"{at}/deepstack")
    return x


def _keys_and_values(
    net: Network, text: TextConfig, prefix: str, y: Value, shared: _Shared
) -> tuple[Value, Value]:
    """Turned keys, and values, as the attention's heads."""
    at = f"/{prefix.removeprefix('language_model.')}/self_attn"
    k = _query_or_key(net, text, prefix, "k", y, text.num_kv_heads)
    k = shared.attention.turned(k, text.num_kv_heads, at=f"{at}/k")
    width = text.num_kv_heads * text.head_dim
    v = net.linear(y, f"{prefix}.self_attn.v_proj", width, text.hidden_size, bias=False)
    return k, shared.attention.values(v, at=f"{at}/v")


def _query_or_key(net: Network, text: TextConfig, prefix: str, which: str, y: Value, heads: int) -> Value:
    """Project to `heads` heads and normalise each, float32 [B, T, heads, d]; not yet turned."""
    graph, size = net.graph, text.head_dim
    at = f"/{prefix.removeprefix('language_model.')}/self_attn/{which}"
    x = net.linear(y, f"{prefix}.self_attn.{which}_proj", heads * size, text.hidden_size, bias=False)
    x = graph.op("Reshape", [net.widened(x, at=at), graph.int64(0, 0, heads, size)], at=at)
    return net.rms_norm(x, f"{prefix}.self_attn.{which}_norm", size, text.rms_norm_eps)


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
    row = graph.op("GatherND", [x, shared.attention.last], {"batch_dims": 1}, at=f"{at}/last")
    return graph.op("Unsqueeze", [row, graph.int64(1)], at=f"{at}/last") if keep else row
