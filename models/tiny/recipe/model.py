"""A batched fp32 forward on the weights of a `transformers` Qwen3-VL checkpoint, made for training on a CPU.

Differences to the library's own forward, none of them in the result: constant prompt prefixes run once a
batch, vision features may come from a cache, the last layer is computed for the last token only, and layers
are compiled. `tests/models` compares both. This module knows nothing about losses or data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from .prompts import Layout, Prompts

NEGATIVE = -30000.0  # added to a masked attention weight: far below any real one, and finite in fp16
LORA_MATRICES = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")


def load(folder: Path) -> Qwen3VLForConditionalGeneration:
    """The checkpoint in fp32; ValueError when a tensor is missing or left over."""
    model, info = Qwen3VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    if info["missing_keys"] or info["unexpected_keys"]:
        raise ValueError(f"{folder} is not a complete checkpoint: {info}")
    return model.eval()


def average(first: Path, second: Path) -> Qwen3VLForConditionalGeneration:
    """The mean of two checkpoints. Of an embedder and a reranker with one base it does both tasks, half as
    well as either.
    """
    model, other = load(first), load(second).state_dict()
    model.load_state_dict({name: (tensor + other[name]) / 2 for name, tensor in model.state_dict().items()})
    return model


def fresh(folder: Path, *, seed: int) -> Qwen3VLForConditionalGeneration:
    """Random weights for the configuration of a checkpoint."""
    torch.manual_seed(seed)
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_pretrained(folder)).eval()


# -- vision ------------------------------------------------------------


def patchify(pixels: np.ndarray) -> Tensor:
    """uint8 [S, F, H, W, 3] (F = 1: a still, F = 2: a pair of frames) -> uint8 [S, P, 3, F, 256] in merge
    order.
    """
    x = torch.from_numpy(np.ascontiguousarray(pixels))
    s, f, h, w, _ = x.shape
    x = x.view(s, f, h // 32, 2, 16, w // 32, 2, 16, 3).permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return x.reshape(s, (h // 16) * (w // 16), 3, f, 256)


@dataclass(frozen=True, slots=True)
class Features:
    """Output of the vision tower: `merged` [S, V, C], and what deepstack adds after text layer i, `deep` [S,
    D, V, C].
    """

    merged: Tensor
    deep: Tensor


class VisionForward:
    """The vision tower over square grids of any even size."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        self.tower = model.model.visual
        self._geometry: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def __call__(self, patches: Tensor) -> Features:
        tower = self.tower
        s, p, _, frames, _ = patches.shape
        index, weight, cos, sin = self._positions(int(p**0.5))
        kernel = tower.patch_embed.proj.weight.reshape(-1, 3, 2, 256)
        kernel = kernel.sum(2, keepdim=True) if frames == 1 else kernel  # a still is its own pair
        x = patches.reshape(s, p, -1).float() / 127.5 - 1
        x = F.linear(x, kernel.reshape(kernel.shape[0], -1), tower.patch_embed.proj.bias)
        x = x + (tower.pos_embed(index) * weight[..., None]).sum(1)
        deep = []
        for number, block in enumerate(tower.blocks):
            h = block.norm1(x)
            q, k, v = block.attn.qkv(h).view(s, p, 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
            q, k = q * cos + rotate(q) * sin, k * cos + rotate(k) * sin
            o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(s, p, -1)
            x = x + block.attn.proj(o)
            x = x + block.mlp.linear_fc2(F.gelu(block.mlp.linear_fc1(block.norm2(x)), approximate="tanh"))
            if number in tower.deepstack_visual_indexes:
                place = tower.deepstack_visual_indexes.index(number)
                deep.append(merge(tower.deepstack_merger_list[place], x, after=True))
        return Features(merge(tower.merger, x, after=False), torch.stack(deep, 1))

    def _positions(self, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if side not in self._geometry:
            n = self.tower.num_grid_per_side
            order = torch.arange(side * side).view(side // 2, 2, side // 2, 2).permute(0, 2, 1, 3).reshape(-1)
            rows, columns = order // side, order % side
            line = torch.linspace(0, n - 1, side)
            y, x = line[rows], line[columns]
            y0, x0 = y.long(), x.long()
            y1, x1 = (y0 + 1).clamp(max=n - 1), (x0 + 1).clamp(max=n - 1)
            dy, dx = y - y0, x - x0
            index = torch.stack([y0 * n + x0, y0 * n + x1, y1 * n + x0, y1 * n + x1], 1)
            weight = torch.stack([(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx], 1)
            inverse = self.tower.rotary_pos_emb.inv_freq
            angle = torch.cat([rows[:, None] * inverse, columns[:, None] * inverse], 1)
            angle = torch.cat([angle, angle], 1)
            self._geometry[side] = (index, weight, angle.cos(), angle.sin())
        return self._geometry[side]


def merge(merger: nn.Module, x: Tensor, *, after: bool) -> Tensor:
    """Four patches to one visual token; deepstack mergers normalise after joining, the last one before."""
    s = x.shape[0]
    x = (
        merger.norm(x.reshape(s, -1, merger.hidden_size))
        if after
        else merger.norm(x).reshape(s, -1, merger.hidden_size)
    )
    return merger.linear_fc2(F.gelu(merger.linear_fc1(x)))


def rotate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


# -- text ------------------------------------------------------------


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


Matrix = tuple[Tensor, ...]
"""A weight, or a weight and the two factors of its LoRA."""


def project(x: Tensor, matrix: Matrix) -> Tensor:
    """x @ W.T, plus the LoRA path where there is one: W gets no gradient then, which saves a third of the
    step.
    """
    out = F.linear(x, matrix[0])
    return out + F.linear(F.linear(x, matrix[1]), matrix[2]) if len(matrix) == 3 else out


def keys_values(
    x: Tensor, cos: Tensor, sin: Tensor, norm: Tensor, wk: Matrix, wv: Matrix, nk: Tensor
) -> tuple[Tensor, Tensor]:
    b, n, _ = x.shape
    h, size = rms(x, norm), nk.shape[0]
    k = rms(project(h, wk).view(b, n, -1, size), nk).transpose(1, 2)
    v = project(h, wv).view(b, n, -1, size).transpose(1, 2)
    return k * cos + rotate(k) * sin, v


def queries(x: Tensor, cos: Tensor, sin: Tensor, norm: Tensor, wq: Matrix, nq: Tensor) -> Tensor:
    b, n, _ = x.shape
    q = rms(project(rms(x, norm), wq).view(b, n, -1, nq.shape[0]), nq).transpose(1, 2)
    return q * cos + rotate(q) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """[B, h, N, d] x [B, kv, M, d] -> [B, N, h * d]; grouped heads share keys and values."""
    b, heads, n, size = q.shape
    kv = k.shape[1]
    scores = torch.matmul(
        q.reshape(b, kv, heads // kv, n, size) * size**-0.5, k[:, :, None].transpose(-1, -2)
    )
    out = torch.matmul((scores + mask[:, None]).softmax(-1), v[:, :, None])
    return out.reshape(b, heads, n, size).transpose(1, 2).flatten(2)


def feed(x: Tensor, o: Tensor, wo: Matrix, norm: Tensor, gate: Matrix, up: Matrix, down: Matrix) -> Tensor:
    x = x + project(o, wo)
    h = rms(x, norm)
    return x + project(F.silu(project(h, gate)) * project(h, up), down)


@dataclass(frozen=True, slots=True)
class Angles:
    """cos and sin of rotary positions, broadcastable to [B, heads, N, d]."""

    cos: Tensor
    sin: Tensor

    def part(self, start: int | None, stop: int | None = None) -> Angles:
        return Angles(self.cos[..., start:stop, :], self.sin[..., start:stop, :])

    def rows(self, index: Tensor) -> Angles:
        """One position a row: [B] -> [B, 1, 1, d]."""
        return Angles(self.cos[index][:, None, None], self.sin[index][:, None, None])


class LowRank(nn.Module):
    """LoRA (Hu et al., 2021): factors of what is added to a frozen matrix, scale * up @ down."""

    def __init__(
        self, outputs: int, inputs: int, rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Parameter(torch.randn(rank, inputs, generator=generator) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.down, self.up * self.scale


class TextForward:
    """The text tower as training needs it: over documents, over queries, and over queries with documents."""

    def __init__(
        self, model: Qwen3VLForConditionalGeneration, prompts: Prompts, *, compiled: bool = False
    ) -> None:
        self.tower = model.model.language_model
        self.prompts = prompts
        self.adapters: dict[tuple[int, str], LowRank] = {}
        pieces = (keys_values, queries, attend, feed)
        if compiled:
            torch._dynamo.config.cache_size_limit = 128
            pieces = tuple(torch.compile(piece, dynamic=True) for piece in pieces)  # type: ignore[assignment]
        self._keys_values, self._queries, self._attend, self._feed = pieces

    # weights, through LoRA when there is one

    def adapt(self, rank: int, *, scale: float, seed: int) -> list[nn.Parameter]:
        """Freeze the tower, put LoRA on its six kinds of matrices, and return what trains."""
        generator = torch.Generator().manual_seed(seed)
        self.tower.requires_grad_(False)
        for number, layer in enumerate(self.tower.layers):
            for name in LORA_MATRICES:
                outputs, inputs = matrix_of(layer, name).weight.shape
                self.adapters[number, name] = LowRank(outputs, inputs, rank, scale, generator)
        return [p for adapter in self.adapters.values() for p in adapter.parameters()]

    def fold(self) -> None:
        """Add every LoRA to its matrix and drop it."""
        with torch.no_grad():
            for (number, name), adapter in self.adapters.items():
                down, up = adapter.factors()
                matrix_of(self.tower.layers[number], name).weight.add_(up @ down)
        self.adapters = {}

    def _weights(self) -> list[dict[str, Any]]:
        """Of every layer: its matrices by name, and its norms n1, n2 (layer), nq, nk (heads)."""
        layers = []
        for number, layer in enumerate(self.tower.layers):
            a = layer.self_attn
            w: dict[str, Any] = {"o": (a.o_proj.weight,), "nq": a.q_norm.weight, "nk": a.k_norm.weight}
            w |= {"n1": layer.input_layernorm.weight, "n2": layer.post_attention_layernorm.weight}
            for name in LORA_MATRICES:
                adapter = self.adapters.get((number, name))
                w[name] = (matrix_of(layer, name).weight, *(adapter.factors() if adapter else ()))
            layers.append(w)
        return layers

    # the three forwards

    def documents(self, layout: Layout, features: Features) -> Tensor:
        """Embedding prompts of B documents of one layout -> float32 [B, C], not yet normalised."""
        b, start = len(features.merged), layout.prefix
        x = self._embed(layout.ids)
        angles = self.angles(layout.positions)
        visual = layout.visual - start
        rows = x[:, start:].expand(b, -1, -1).index_copy(1, visual, features.merged)
        prefix = self._run_prefix(x[:, :start], angles.part(None, start))
        mask = causal(rows.shape[1], start)
        last = torch.full((b,), rows.shape[1] - 1)
        return self._run(rows, angles.part(start), prefix, mask, last, visual, features.deep)[0]

    def texts(self, instruction: str, texts: Sequence[str]) -> Tensor:
        """Embedding prompts of B texts -> float32 [B, C], not yet normalised; rows are grouped by length
        inside.
        """
        ids = [self.prompts.query(text, instruction=instruction)[1] for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        groups = [order[: len(order) // 2], order[len(order) // 2 :]] if len(order) > 40 else [order]
        head = self.prompts.query_prefix(instruction)
        out = torch.cat([self._texts(head, [ids[i] for i in group]) for group in groups])
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor([i for group in groups for i in group])] = torch.arange(len(order))
        return out[back]

    def _texts(self, head: list[int], ids: list[list[int]]) -> Tensor:
        rows, lengths = self._pad(ids)
        start = len(head)
        angles = self.angles(torch.arange(start + rows.shape[1])[None].expand(3, -1))
        prefix = self._run_prefix(self._embed(torch.tensor(head)), angles.part(None, start))
        mask = causal(rows.shape[1], start)
        return self._run(
            self.tower.embed_tokens(rows), angles.part(start), prefix, mask, lengths - 1, None, None
        )[0]

    def judged(self, texts: Sequence[str], layout: Layout, features: Features) -> tuple[Tensor, Tensor]:
        """Reranking prompts: n queries with K documents each (features of n * K, query-major).

        Returns the last token's final hidden state [n * K, C] and the visual tokens before the last layer [n
        * K, V, C].
        """
        n, rows = len(texts), len(features.merged)
        k = rows // n
        head = torch.tensor(self.prompts.judge_prefix)
        ids, lengths = self._pad([self.prompts.judged_query(text) for text in texts])
        h, q, d = len(head), ids.shape[1], len(layout.ids)
        prefix = self._run_prefix(self._embed(head), self.angles(torch.arange(h)[None].expand(3, -1)))
        query_angles = self.angles(h + torch.arange(q)[None].expand(3, -1))
        shift = (h + lengths).repeat_interleave(k)
        document_angles = self.angles(layout.positions[:, None] + shift[None, :, None])
        padding = torch.where(torch.arange(q)[None] < lengths[:, None], 0.0, NEGATIVE)
        past = torch.cat([torch.zeros(n, h), padding], 1).repeat_interleave(k, 0)
        mask = torch.cat([past[:, None].expand(-1, d, -1), causal(d, 0)[0].expand(rows, -1, -1)], -1)[:, None]
        x = self.tower.embed_tokens(ids)
        keys = []
        for number, (w, (pk, pv)) in enumerate(zip(self._weights(), prefix, strict=True)):
            key, value = self._keys_values(
                x, query_angles.cos, query_angles.sin, w["n1"], w["k_proj"], w["v_proj"], w["nk"]
            )
            key, value = (
                torch.cat([pk.expand(n, -1, -1, -1), key], 2),
                torch.cat([pv.expand(n, -1, -1, -1), value], 2),
            )
            keys.append((key.repeat_interleave(k, 0), value.repeat_interleave(k, 0)))
            if number < len(prefix) - 1:
                turned = self._queries(x, query_angles.cos, query_angles.sin, w["n1"], w["q_proj"], w["nq"])
                x = self._layer_out(x, turned, key, value, causal(q, h), w)
        row = self._embed(layout.ids).expand(rows, -1, -1).index_copy(1, layout.visual, features.merged)
        last = torch.full((rows,), d - 1)
        return self._run(row, document_angles, keys, mask, last, layout.visual, features.deep)

    def yes_no(self, hidden: Tensor) -> Tensor:
        """Logit of yes minus logit of no: [B]."""
        table = self.tower.embed_tokens.weight
        return hidden @ (table[self.prompts.yes] - table[self.prompts.no])

    # shared parts

    def _run(
        self,
        x: Tensor,
        angles: Angles,
        past: list[tuple[Tensor, Tensor]],
        mask: Tensor,
        last: Tensor,
        visual: Tensor | None,
        deep: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """All layers over rows x [B, N, C] after `past` keys and values; the last layer for one token a row
        only.
        """
        weights, b = self._weights(), x.shape[0]
        seen = x
        for number, (w, (pk, pv)) in enumerate(zip(weights, past, strict=True)):
            k, v = self._keys_values(x, angles.cos, angles.sin, w["n1"], w["k_proj"], w["v_proj"], w["nk"])
            k, v = torch.cat([pk.expand(b, -1, -1, -1), k], 2), torch.cat([pv.expand(b, -1, -1, -1), v], 2)
            if number == len(weights) - 1:
                rows = torch.arange(b)
                seen = x if visual is None else x[:, visual]
                x = x[rows, last][:, None]
                mask = mask[rows if mask.shape[0] > 1 else torch.zeros_like(rows), :, last][:, :, None]
                angles = pick(angles, rows, last)
            q = self._queries(x, angles.cos, angles.sin, w["n1"], w["q_proj"], w["nq"])
            x = self._layer_out(x, q, k, v, mask, w)
            if deep is not None and visual is not None and number < deep.shape[1]:
                x = x.index_add(1, visual, deep[:, number])
        return rms(x[:, 0], self.tower.norm.weight), seen

    def _run_prefix(self, x: Tensor, angles: Angles) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of a constant prefix [1, P, C], layer by layer."""
        past = []
        weights = self._weights()
        for number, w in enumerate(weights):
            k, v = keys_values(x, angles.cos, angles.sin, w["n1"], w["k_proj"], w["v_proj"], w["nk"])
            past.append((k, v))
            if number < len(weights) - 1:
                q = queries(x, angles.cos, angles.sin, w["n1"], w["q_proj"], w["nq"])
                o = attend(q, k, v, causal(x.shape[1], 0))
                x = feed(x, o, w["o"], w["n2"], w["gate_proj"], w["up_proj"], w["down_proj"])
        return past

    def _layer_out(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, w: dict[str, Any]
    ) -> Tensor:
        o = self._attend(q, k, v, mask)
        return self._feed(x, o, w["o"], w["n2"], w["gate_proj"], w["up_proj"], w["down_proj"])

    def _embed(self, ids: Tensor) -> Tensor:
        return self.tower.embed_tokens(ids)[None]

    def _pad(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(row) for row in ids])
        rows = torch.full((len(ids), int(lengths.max())), self.prompts.pad)
        for number, row in enumerate(ids):
            rows[number, : len(row)] = torch.tensor(row)
        return rows, lengths

    def angles(self, positions: Tensor) -> Angles:
        """Interleaved mrope: positions [3, N] -> cos, sin [N, d]; [3, B, N] -> [B, 1, N, d]."""
        inverse, sections = self.tower.rotary_emb.inv_freq, self.tower.rotary_emb.mrope_section
        frequency = positions[..., None].float() * inverse
        mixed = frequency[0].clone()
        for axis in (1, 2):
            part = slice(axis, sections[axis] * 3, 3)
            mixed[..., part] = frequency[axis][..., part]
        mixed = torch.cat([mixed, mixed], -1)
        mixed = mixed[:, None] if mixed.ndim == 3 else mixed
        return Angles(mixed.cos(), mixed.sin())


def pick(angles: Angles, rows: Tensor, last: Tensor) -> Angles:
    """The angles of one token a row."""
    if angles.cos.ndim == 2:
        return angles.rows(last)
    return Angles(angles.cos[rows, :, last][:, :, None], angles.sin[rows, :, last][:, :, None])


def causal(n: int, past: int) -> Tensor:
    """[1, 1, n, past + n]: row i sees the past and itself and what came before."""
    return torch.full((n, past + n), NEGATIVE).triu(1 + past)[None, None]


def matrix_of(layer: nn.Module, name: str) -> nn.Linear:
    part = layer.self_attn if name in ("q_proj", "k_proj", "v_proj") else layer.mlp
    return getattr(part, name)
