"""The two towers computed in float32 with numpy, straight from a checkpoint: what an export is held against.

Written from the architecture, not from the graph builder, so that a mistake in one shows against the other.
All batches go through a layer together, so a checkpoint is read once and memory holds one layer. It is made
for a handful of tokens, not for speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.model.config import TextConfig, VisionConfig

from .checkpoint import Checkpoint

Floats = NDArray[np.float32]
# Told the weight's canonical name and the input [..., columns] of every product, layer after layer.
Observer = Callable[[str, Floats], None]

_LAYER_NORM_EPSILON = 1e-6
_exact_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, slots=True)
class VisionInputs:
    """One call of the vision graph; shapes as in `Session`."""

    patches: Floats
    pos_idx: NDArray[np.int64]
    pos_w: Floats
    cos: Floats
    sin: Floats


@dataclass(frozen=True, slots=True)
class VisionOutputs:
    """`features` float32 [S, M, H] and `deepstack` float32 [K, S, M, H]."""

    features: Floats
    deepstack: Floats


@dataclass(frozen=True, slots=True)
class DecoderInputs:
    """One call of the decoder graph; shapes as in `Session`."""

    embeds: Floats
    cos: Floats
    sin: Floats
    deepstack: Floats
    last: NDArray[np.int64]


def run_vision(
    checkpoint: Checkpoint, batches: Sequence[VisionInputs], *, observe: Observer | None = None
) -> list[VisionOutputs]:
    """Features of each batch."""
    vision = checkpoint.config.vision
    weight = checkpoint.float32("visual.patch_embed.proj.weight").reshape(vision.hidden_size, -1)
    bias = checkpoint.float32("visual.patch_embed.proj.bias")
    table = checkpoint.float32("visual.pos_embed.weight")
    states: list[Floats] = []
    for batch in batches:
        if observe is not None:
            observe("visual.patch_embed.proj.weight", batch.patches)
        learned = (table[batch.pos_idx] * batch.pos_w[..., None]).sum(axis=1, dtype=np.float32)
        states.append(batch.patches @ weight.T + bias + learned)
    levels: list[list[Floats]] = [[] for _ in batches]
    for block in range(vision.depth):
        layer = _Layer(checkpoint, f"visual.blocks.{block}.", observe)
        states = [_vision_block(layer, vision, x, batch) for x, batch in zip(states, batches)]
        if block in vision.deepstack_layers:
            level = vision.deepstack_layers.index(block)
            merger = _Layer(checkpoint, f"visual.deepstack_merger_list.{level}.", observe)
            for kept, x in zip(levels, states):
                kept.append(_merge(merger, vision, x, norm_first=False))
    merger = _Layer(checkpoint, "visual.merger.", observe)
    outputs = []
    for kept, x in zip(levels, states):
        features = _merge(merger, vision, x, norm_first=True)
        stacked = np.stack(kept) if kept else np.zeros((0, *features.shape), np.float32)
        outputs.append(VisionOutputs(features, stacked))
    return outputs


def run_decoder(
    checkpoint: Checkpoint, batches: Sequence[DecoderInputs], *, observe: Observer | None = None
) -> list[Floats]:
    """Pooled states float32 [B, H] of each batch."""
    text = checkpoint.config.text
    states = [batch.embeds for batch in batches]
    for index in range(text.num_layers):
        # In steps that hold a part of the layer's weights each: those of a wide MLP are large.
        prefix = f"language_model.layers.{index}."
        layer = _Layer(checkpoint, prefix, observe)
        states = [_decoder_attention(layer, text, x, batch) for x, batch in zip(states, batches)]
        layer = _Layer(checkpoint, prefix, observe)
        products = [_gated(layer, text, x) for x in states]
        layer = _Layer(checkpoint, prefix, observe)
        states = [x + layer.project(y, "mlp.down_proj", bias=False) for x, y in zip(states, products)]
        del products, layer
        states = [
            x + batch.deepstack[index] if index < len(batch.deepstack) else x
            for x, batch in zip(states, batches)
        ]
    scale = checkpoint.float32("language_model.norm.weight")
    return [
        _rms_norm(x[np.arange(len(x)), batch.last], scale, text.rms_norm_eps)
        for x, batch in zip(states, batches)
    ]


class _Layer:
    """Weights of one layer, each read once."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, observe: Observer | None) -> None:
        self._checkpoint = checkpoint
        self._prefix = prefix
        self._observe = observe
        self._read: dict[str, Floats] = {}

    def __getitem__(self, name: str) -> Floats:
        if name not in self._read:
            self._read[name] = self._checkpoint.float32(self._prefix + name)
        return self._read[name]

    def project(self, x: Floats, name: str, *, bias: bool) -> Floats:
        if self._observe is not None:
            self._observe(f"{self._prefix}{name}.weight", x)
        y: Floats = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if bias else y


def _vision_block(layer: _Layer, vision: VisionConfig, x: Floats, batch: VisionInputs) -> Floats:
    y = _layer_norm(x, layer["norm1.weight"], layer["norm1.bias"])
    images, patches, hidden = x.shape
    qkv = layer.project(y, "attn.qkv", bias=True).reshape(
        images, patches, 3, vision.num_heads, vision.head_dim
    )
    q, k, v = (qkv[:, :, which].transpose(0, 2, 1, 3) for which in range(3))
    q, k = _rotate(q, batch.cos, batch.sin), _rotate(k, batch.cos, batch.sin)
    y = _attend(q, k, v, mask=None).transpose(0, 2, 1, 3).reshape(images, patches, hidden)
    x = x + layer.project(y, "attn.proj", bias=True)
    y = _layer_norm(x, layer["norm2.weight"], layer["norm2.bias"])
    y = _gelu_tanh(layer.project(y, "mlp.linear_fc1", bias=True))
    return x + layer.project(y, "mlp.linear_fc2", bias=True)


def _merge(merger: _Layer, vision: VisionConfig, x: Floats, *, norm_first: bool) -> Floats:
    joined = vision.hidden_size * vision.merge_size**2
    if norm_first:
        x = _layer_norm(x, merger["norm.weight"], merger["norm.bias"]).reshape(len(x), -1, joined)
    else:
        x = _layer_norm(x.reshape(len(x), -1, joined), merger["norm.weight"], merger["norm.bias"])
    return merger.project(_gelu_exact(merger.project(x, "linear_fc1", bias=True)), "linear_fc2", bias=True)


def _decoder_attention(layer: _Layer, text: TextConfig, x: Floats, batch: DecoderInputs) -> Floats:
    rows, tokens, _ = x.shape
    epsilon = text.rms_norm_eps
    y = _rms_norm(x, layer["input_layernorm.weight"], epsilon)

    def heads(name: str, count: int) -> Floats:
        return layer.project(y, f"self_attn.{name}_proj", bias=False).reshape(
            rows, tokens, count, text.head_dim
        )

    q = _rms_norm(heads("q", text.num_heads), layer["self_attn.q_norm.weight"], epsilon)
    k = _rms_norm(heads("k", text.num_kv_heads), layer["self_attn.k_norm.weight"], epsilon)
    cos, sin = batch.cos[:, None], batch.sin[:, None]
    q = _rotate(q.transpose(0, 2, 1, 3), cos, sin)
    k = _rotate(k.transpose(0, 2, 1, 3), cos, sin)
    v = heads("v", text.num_kv_heads).transpose(0, 2, 1, 3)
    share = text.num_heads // text.num_kv_heads
    causal = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
    y = _attend(q, k.repeat(share, axis=1), v.repeat(share, axis=1), mask=causal)
    return x + layer.project(
        y.transpose(0, 2, 1, 3).reshape(rows, tokens, -1), "self_attn.o_proj", bias=False
    )


def _gated(layer: _Layer, text: TextConfig, x: Floats) -> Floats:
    """What goes into `down_proj`."""
    y = _rms_norm(x, layer["post_attention_layernorm.weight"], text.rms_norm_eps)
    return _silu(layer.project(y, "mlp.gate_proj", bias=False)) * layer.project(y, "mlp.up_proj", bias=False)


def _attend(q: Floats, k: Floats, v: Floats, *, mask: Floats | None) -> Floats:
    scores = q @ k.swapaxes(-1, -2) * np.float32(q.shape[-1] ** -0.5)
    if mask is not None:
        scores = scores + mask
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights: Floats = scores / scores.sum(axis=-1, keepdims=True)
    return weights @ v


def _rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Turn pairs (i, i + d / 2) of the last axis; cos and sin [..., d / 2]."""
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def _rms_norm(x: Floats, scale: Floats, epsilon: float) -> Floats:
    mean = np.mean(np.square(x, dtype=np.float32), axis=-1, keepdims=True)
    normed: Floats = scale * (x / np.sqrt(mean + np.float32(epsilon)))
    return normed


def _layer_norm(x: Floats, scale: Floats, shift: Floats) -> Floats:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(np.square(centred), axis=-1, keepdims=True)
    normed: Floats = centred / np.sqrt(variance + np.float32(_LAYER_NORM_EPSILON)) * scale + shift
    return normed


def _silu(x: Floats) -> Floats:
    # The logistic function through tanh, which cannot overflow.
    gate: Floats = np.tanh(x * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5)
    return x * gate


def _gelu_tanh(x: Floats) -> Floats:
    gate: Floats = 1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3))
    return np.float32(0.5) * x * gate


def _gelu_exact(x: Floats) -> Floats:
    gate: Floats = (1 + _exact_erf(x.astype(np.float64) / math.sqrt(2))).astype(np.float32)
    return np.float32(0.5) * x * gate
