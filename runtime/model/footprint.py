"""What models of given shapes take: bytes of weights in a precision, bytes of activations for a workload.

Counts tensors and measures nothing. What a run really takes is `benchmarks`' business; the tests hold the
bytes of weights against bundles that were exported.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import ModelConfig, TextConfig
from .encoder import PATCHES_A_RUN, TOKENS_A_RUN
from .loading import VISUAL_TOKENS_A_WAVE
from .pixels import RETRIEVAL_IMAGE_TOKENS
from .weight_formats import STORAGE, Format, Storage

# A prompt has about so many tokens around a photo.
_PROMPT_TOKENS = 64
# ONNX Runtime holds about twice what is live at the widest point. Measured in float32 on a CPU: 98.6 kB a
# token for a decoder of width 1024 with MLPs of 3072, 59 kB a patch for a vision tower of 512 and 2048.
_ARENA = 2
# The text layers' q, k, v, gate, up and down differ between the models by two merged updates of rank 32.
ADAPTER_RANK = 64

RERANKED_PHOTOS = 20


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of the models at once: `photos` of at most `tokens` visual tokens (32x32 pixels) each."""

    tokens: int = RETRIEVAL_IMAGE_TOKENS
    photos: int = RERANKED_PHOTOS


# Weights


def attention_bytes(text: TextConfig, storage: Format) -> int:
    """The matrices of the decoder's attention."""
    queries, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    hidden = text.hidden_size
    return text.num_layers * (
        storage.matrix_bytes(queries, hidden)
        + 2 * storage.matrix_bytes(keys, hidden)
        + storage.matrix_bytes(hidden, queries)
    )


def mlp_bytes(text: TextConfig, storage: Format) -> int:
    """The matrices of the decoder's MLPs."""
    hidden, inner = text.hidden_size, text.intermediate_size
    return text.num_layers * (2 * storage.matrix_bytes(inner, hidden) + storage.matrix_bytes(hidden, inner))


def decoder_bytes(text: TextConfig, storage: Storage, *, held_on_cpu: bool = False) -> int:
    """The decoder's matrices and norms, without table and head: as stored, or as a CPU's session has them."""
    mlp, attention = storage.decoder, storage.attention or storage.decoder
    norms = text.num_layers * 4 * (2 * text.hidden_size + 2 * text.head_dim) + 4 * text.hidden_size
    return (
        round(mlp_bytes(text, mlp) * (mlp.cpu_held if held_on_cpu else 1))
        + round(attention_bytes(text, attention) * (attention.cpu_held if held_on_cpu else 1))
        + norms
    )


def vision_bytes(config: ModelConfig, storage: Storage, *, held_on_cpu: bool = False) -> int:
    """The vision tower's matrices, biases, norms and learned positions; as `decoder_bytes`."""
    stored = _vision_bytes(config, storage.vision)
    return round(stored * storage.vision.cpu_held) if held_on_cpu else stored


def _vision_bytes(config: ModelConfig, storage: Format) -> int:
    vision = config.vision
    hidden, inner = vision.hidden_size, vision.intermediate_size
    joined, width = hidden * vision.merge_size**2, vision.out_hidden_size
    bias = storage.activation_bytes
    block = (
        storage.matrix_bytes(3 * hidden, hidden)
        + storage.matrix_bytes(hidden, hidden)
        + storage.matrix_bytes(inner, hidden)
        + storage.matrix_bytes(hidden, inner)
        + bias * (3 * hidden + hidden + inner + hidden)
        + 4 * 4 * hidden
    )
    merger = (
        storage.matrix_bytes(joined, joined) + storage.matrix_bytes(width, joined) + bias * (joined + width)
    )
    deepstack = len(vision.deepstack_layers)
    return (
        vision.depth * block
        + (1 + deepstack) * merger
        + 4 * 2 * (hidden + deepstack * joined)
        + storage.matrix_bytes(hidden, vision.patch_dim)
        + bias * hidden
        + 4 * vision.grid_side**2 * hidden
    )


def checkpoint_bytes(config: ModelConfig) -> int:
    """The published weights of one model in bfloat16, with a head of its own where that may be."""
    half, text = STORAGE["fp16"], config.text
    table = 2 * text.vocab_size * text.hidden_size
    return vision_bytes(config, half) + decoder_bytes(text, half) + table * (1 if text.tied_head else 2)


def adapter_bytes(text: TextConfig, rank: int = ADAPTER_RANK) -> int:
    """Two float16 factors for each of q, k, v, gate, up and down, which alone differ between the models."""
    queries, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    hidden, inner = text.hidden_size, text.intermediate_size
    sides = (queries + hidden) + 2 * (keys + hidden) + 3 * (inner + hidden)
    return 2 * rank * sides * text.num_layers


# Activations


def vision_work(config: ModelConfig, workload: Workload, *, number: int) -> int:
    """Peak of one run of the vision tower: its patches, the widest point of a block, what it puts out.

    `number`: bytes of one that flows through the graph; norms and what lies between layers are float32.
    """
    vision = config.vision
    block = max(8 * vision.hidden_size, 3 * vision.hidden_size + 2 * vision.intermediate_size)
    out = (1 + len(vision.deepstack_layers)) * vision.out_hidden_size // vision.merge_size**2
    patch = 4 * vision.patch_dim + _ARENA * (4 * out + number * block)
    return _patches_a_run(config, workload) * patch


def decoder_work(config: ModelConfig, workload: Workload, *, number: int) -> int:
    """Peak of one run of the decoder: embeddings and deepstack features, the widest point of a layer."""
    text = config.text
    length = workload.tokens + _PROMPT_TOKENS
    rows = max(1, min(workload.photos, TOKENS_A_RUN // length))
    heads = (text.num_heads + text.num_kv_heads) * text.head_dim
    layer = 4 * 3 * text.hidden_size + number * 3 * max(heads, text.intermediate_size)
    inputs = (1 + len(config.vision.deepstack_layers)) * text.hidden_size
    return rows * length * (4 * inputs + _ARENA * layer)


def feature_bytes(config: ModelConfig, workload: Workload) -> int:
    """Visual features of the photos of one wave, in main memory between the two graphs."""
    tokens = min(workload.photos * workload.tokens, max(VISUAL_TOKENS_A_WAVE, workload.tokens))
    return 4 * tokens * (1 + len(config.vision.deepstack_layers)) * config.text.hidden_size


def _patches_a_run(config: ModelConfig, workload: Workload) -> int:
    one = workload.tokens * config.vision.merge_size**2
    return one * max(1, min(workload.photos, PATCHES_A_RUN // one))
