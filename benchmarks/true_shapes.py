"""Checkpoints of the real models' shapes with random weights: bfloat16 shards with an index, as on the hub.

The embedder and the reranker are one random base with a merged update of rank 32 each on q, k, v, gate, up
and down, so their difference is what that of the real pair is reported to be. Everything else they share: the
reranker's folder links to the embedder's shard. Tokenizer and templates are qvl-tiny's.

Weights are slices of one pool of normal numbers, scaled to keep activations of the order of one. Memory holds
the pool and one matrix.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

TINY = Path(__file__).resolve().parent.parent / "models" / "tiny"
ROLES = {"embedder": "embedding", "reranker": "reranker"}
RANK = 32
PHOTO_TOKENS = 384
TRAINED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")

_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
_POOL = 1 << 24
_LAYERS_A_SHARD = 6
# Size of a merged update as a part of its matrix.
_UPDATE = 0.05


@dataclass(frozen=True, slots=True)
class Shape:
    """What config.json says of a model's size."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vision_intermediate: int
    deepstack: tuple[int, ...]
    tied: bool
    vocabulary: int = 151_936
    positions: int = 2304

    def cut(self, layers: int) -> Shape:
        """The same width with fewer layers in the decoder."""
        return replace(self, layers=min(layers, self.layers))


SHAPES: Mapping[str, Shape] = {
    "2b": Shape(2048, 28, 16, 8, 128, 6144, 1024, 24, 16, 4096, (5, 11, 17), tied=True),
    "8b": Shape(4096, 36, 32, 8, 128, 12288, 1152, 27, 16, 4304, (8, 16, 24), tied=False),
}


def write_pair(folder: Path, shape: Shape, *, seed: int = 0) -> dict[str, Path]:
    """Write both checkpoints below `folder`; folders by role."""
    source = _Source(seed)
    folders = {role: folder / name for role, name in ROLES.items()}
    for role, own in folders.items():
        own.mkdir(parents=True)
        for name in _COPIED:
            shutil.copyfile(TINY / ROLES[role] / name, own / name)
        (own / "config.json").write_text(json.dumps(config(shape), indent=2), encoding="utf-8")
        _allow_pixels(own / "preprocessor_config.json", PHOTO_TOKENS)
    groups = [list(_shared_tensors(shape))]
    for start in range(0, shape.layers, _LAYERS_A_SHARD):
        layers = range(start, min(start + _LAYERS_A_SHARD, shape.layers))
        groups.append([tensor for layer in layers for tensor in _layer_tensors(shape, layer)])
    for role, own in folders.items():
        weight_map, total = {}, 0
        for number, group in enumerate(groups):
            file = f"model-{number + 1:05d}-of-{len(groups):05d}.safetensors"
            if number == 0 and role == "reranker":
                os.link(folders["embedder"] / file, own / file)
            else:
                _write_shard(own / file, group, source, role)
            weight_map |= {one.name: file for one in group}
            total += sum(one.nbytes for one in group)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (own / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folders


def write_hollow(folder: Path, shape: Shape) -> Path:
    """A checkpoint whose weights are holes in the file: it has every shape and takes no space on the disk."""
    folder.mkdir(parents=True)
    for name in _COPIED:
        shutil.copyfile(TINY / "embedding" / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2), encoding="utf-8")
    tensors = [*_shared_tensors(shape)]
    for layer in range(shape.layers):
        tensors += _layer_tensors(shape, layer)
    with (folder / "model.safetensors").open("wb") as stream:
        start = _write_header(stream, tensors)
        stream.truncate(start + sum(one.nbytes for one in tensors))
    return folder


def _allow_pixels(path: Path, tokens: int) -> None:
    """Let a photo have so many visual tokens, of 32 x 32 pixels each; qvl-tiny's have 16."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["size"] = {"shortest_edge": 4 << 10, "longest_edge": tokens << 10}
    path.write_text(json.dumps(raw, indent=2), encoding="utf-8")


def config(shape: Shape) -> dict[str, Any]:
    """config.json: qvl-tiny's, resized."""
    raw: dict[str, Any] = json.loads((TINY / "embedding" / "config.json").read_text(encoding="utf-8"))
    half = shape.head_dim // 2
    side = half * 20 // 64  # 24, 20, 20 of 64
    raw["tie_word_embeddings"] = shape.tied
    raw["text_config"] |= {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "rope_theta": 5_000_000,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": 262_144,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [half - 2 * side, side, side],
            "rope_type": "default",
        },
    }
    raw["vision_config"] |= {
        "hidden_size": shape.vision_hidden,
        "depth": shape.vision_depth,
        "num_heads": shape.vision_heads,
        "intermediate_size": shape.vision_intermediate,
        "out_hidden_size": shape.hidden,
        "deepstack_visual_indexes": list(shape.deepstack),
        "num_position_embeddings": shape.positions,
    }
    return raw


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor to write: `centre` 1 for the scales of norms; `scale` of the normal numbers around it."""

    name: str
    shape: tuple[int, ...]
    scale: float
    centre: float = 0.0

    @property
    def nbytes(self) -> int:
        return 2 * int(np.prod(self.shape))


class _Source:
    """Random values by tensor name, always the same ones."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._pool = np.random.default_rng(seed).standard_normal(_POOL, dtype=np.float32)

    def pieces(self, tensor: _Tensor, role: str) -> Iterator[NDArray[np.uint16]]:
        """The tensor's bfloat16 values, a few million at a time."""
        width = tensor.shape[-1]
        rows = int(np.prod(tensor.shape)) // width
        start = int(np.random.default_rng([self._seed, *tensor.name.encode()]).integers(_POOL))
        update = self._update(tensor, role)
        step = max(1, _POOL // 2 // width)
        for first in range(0, rows, step):
            count = min(step, rows - first)
            values = self._normal(start + first * width, count * width).reshape(count, width)
            values *= np.float32(tensor.scale)
            values += np.float32(tensor.centre)
            if update is not None:
                up, down = update
                values += up[first : first + count] @ down
            yield _bfloat16(values)

    def _normal(self, start: int, count: int) -> NDArray[np.float32]:
        """A copy of `count` numbers of the pool, which begins again behind its end; `count` is below half."""
        start %= _POOL
        return np.concatenate(
            [self._pool[start : start + count], self._pool[: max(0, start + count - _POOL)]]
        )

    def _update(self, tensor: _Tensor, role: str) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        if not any(f".{kind}.weight" in tensor.name for kind in TRAINED):
            return None
        generator = np.random.default_rng([self._seed, len(role), *role.encode(), *tensor.name.encode()])
        rows, columns = tensor.shape
        up = generator.standard_normal((rows, RANK), dtype=np.float32)
        down = generator.standard_normal((RANK, columns), dtype=np.float32)
        up *= np.float32(_UPDATE * tensor.scale * RANK**-0.5)
        return up, down


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of float32 values, rounded to nearest."""
    bits = values.view(np.uint32)
    bits += np.uint32(0x8000)
    return (bits >> np.uint32(16)).astype(np.uint16)


def _write_shard(path: Path, tensors: list[_Tensor], source: _Source, role: str) -> None:
    with path.open("wb") as stream:
        _write_header(stream, tensors)
        for tensor in tensors:
            for piece in source.pieces(tensor, role):
                piece.tofile(stream)


def _write_header(stream: IO[bytes], tensors: list[_Tensor]) -> int:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    return 8 + len(text)


def _layer_tensors(shape: Shape, layer: int) -> Iterator[_Tensor]:
    at = f"model.language_model.layers.{layer}"
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    hidden, inner = shape.hidden, shape.intermediate
    yield _matrix(f"{at}.self_attn.q_proj.weight", queries, hidden)
    yield _matrix(f"{at}.self_attn.k_proj.weight", keys, hidden)
    yield _matrix(f"{at}.self_attn.v_proj.weight", keys, hidden)
    yield _matrix(f"{at}.self_attn.o_proj.weight", hidden, queries)
    yield _matrix(f"{at}.mlp.gate_proj.weight", inner, hidden)
    yield _matrix(f"{at}.mlp.up_proj.weight", inner, hidden)
    yield _matrix(f"{at}.mlp.down_proj.weight", hidden, inner)
    for name, size in (
        ("self_attn.q_norm", shape.head_dim),
        ("self_attn.k_norm", shape.head_dim),
        ("input_layernorm", hidden),
        ("post_attention_layernorm", hidden),
    ):
        yield _Tensor(f"{at}.{name}.weight", (size,), 0.1, centre=1.0)


def _shared_tensors(shape: Shape) -> Iterator[_Tensor]:
    """Token table, head, last norm and vision tower."""
    width, inner = shape.hidden, shape.vision_hidden
    # As small as trained ones: a tied table is the reranker's head too, whose scores must not saturate.
    yield _Tensor("model.language_model.embed_tokens.weight", (shape.vocabulary, width), 1 / 64)
    if not shape.tied:
        yield _matrix("lm_head.weight", shape.vocabulary, width)
    yield _Tensor("model.language_model.norm.weight", (width,), 0.1, centre=1.0)
    yield _Tensor("model.visual.patch_embed.proj.weight", (inner, 3, 2, 16, 16), 1536**-0.5)
    yield _Tensor("model.visual.patch_embed.proj.bias", (inner,), 0.1)
    yield _Tensor("model.visual.pos_embed.weight", (shape.positions, inner), 0.5)
    for block in range(shape.vision_depth):
        at = f"model.visual.blocks.{block}"
        yield from _norm(f"{at}.norm1", inner)
        yield from _norm(f"{at}.norm2", inner)
        yield from _linear(f"{at}.attn.qkv", 3 * inner, inner)
        yield from _linear(f"{at}.attn.proj", inner, inner)
        yield from _linear(f"{at}.mlp.linear_fc1", shape.vision_intermediate, inner)
        yield from _linear(f"{at}.mlp.linear_fc2", inner, shape.vision_intermediate)
    joined = 4 * inner
    mergers = [f"model.visual.deepstack_merger_list.{i}" for i in range(len(shape.deepstack))]
    for at in ["model.visual.merger", *mergers]:
        yield from _norm(f"{at}.norm", inner if at == "model.visual.merger" else joined)
        yield from _linear(f"{at}.linear_fc1", joined, joined)
        yield from _linear(f"{at}.linear_fc2", width, joined)


def _matrix(name: str, rows: int, columns: int) -> _Tensor:
    return _Tensor(name, (rows, columns), columns**-0.5)


def _linear(name: str, rows: int, columns: int) -> Iterator[_Tensor]:
    yield _matrix(f"{name}.weight", rows, columns)
    yield _Tensor(f"{name}.bias", (rows,), 0.1)


def _norm(name: str, size: int) -> Iterator[_Tensor]:
    yield _Tensor(f"{name}.weight", (size,), 0.1, centre=1.0)
    yield _Tensor(f"{name}.bias", (size,), 0.1)
