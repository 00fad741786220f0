"""Which precision fits a machine: arithmetic over a model's shapes, before anything is exported.

    shapes (config.json) x precision -> bytes of vision tower, decoder, token table
    + shapes x pixels and batch      -> bytes of activations
    + layout                         -> what both models together hold in memory and on disk
    against the machine              -> what fits, and what is recommended

Counts tensors and measures nothing. What a run really takes is `benchmarks`' business; the tests hold the
bytes of weights against bundles that were exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from .config import ModelConfig, TextConfig, VisionConfig
from .encoder import PATCHES_A_RUN, TOKENS_A_RUN
from .loading import VISUAL_TOKENS_A_WAVE
from .pixels import RETRIEVAL_IMAGE_TOKENS

Layout = Literal["separate", "shared"]
Place = Literal["cpu", "cuda"]

# What the process takes beside the tensors counted here: Python, the libraries, an open library's caches. On
# a GPU: the driver's context and the workspaces of the matrix library (not measured: no GPU was at hand).
PROCESS_BYTES = 400_000_000
GPU_CONTEXT_BYTES = 800_000_000
# Memory left to everything else that runs: a quarter of it, at least 2 GB.
_SHARE_LEFT = 4
_LEAST_LEFT = 2_000_000_000
# Models whose weights take less than this stay in float32 on the CPU: there is nothing to gain.
_SMALL_MODEL = 500_000_000
# A prompt has about so many tokens around a photo.
_PROMPT_TOKENS = 64
# ONNX Runtime holds about twice what is live at the widest point. Measured in float32 on a CPU: 98.6 kB a
# token for a decoder of width 1024 with MLPs of 3072, 59 kB a patch for a vision tower of 512 and 2048.
_ARENA = 2
# The text layers' q, k, v, gate, up and down differ between the models by two merged updates of rank 32.
ADAPTER_RANK = 64

RERANKED_PHOTOS = 20


@dataclass(frozen=True, slots=True)
class Format:
    """How the matrices of a tower are stored: `bits` a weight, `block_bytes` a block, `row_bytes` a row,
    `own_bytes` a matrix.

    `block` counts weights, within a row (which a last, filled-up block may lengthen) or, if `flat`, through
    the whole matrix; 0 means no blocks. `activation_bytes`: of one number that flows through the graph.
    `cpu_held`: bytes that ONNX Runtime holds on a CPU for one that is stored, measured.
    """

    bits: int
    activation_bytes: int = 4
    block: int = 0
    block_bytes: int = 0
    row_bytes: int = 0
    own_bytes: int = 0
    flat: bool = False
    cpu_held: float = 1.0

    def matrix_bytes(self, rows: int, columns: int) -> int:
        """Bytes of a stored matrix [rows, columns] with its scales."""
        if not self.block:
            return rows * columns * self.bits // 8 + rows * self.row_bytes + self.own_bytes
        if self.flat:
            count = rows * columns
            return -(-count * self.bits // 8) + -(-count // self.block) * self.block_bytes
        blocks = rows * -(-columns // self.block)
        return blocks * (self.block * self.bits // 8 + self.block_bytes) + rows * self.row_bytes


@dataclass(frozen=True, slots=True)
class Storage:
    """What one precision means for each part. `table_bytes`: of one number of the token table."""

    vision: Format
    decoder: Format
    table_bytes: int


_FP32 = Format(bits=32)
# Its CPU kernels multiply in float32, from a copy that is made at loading.
_FP16 = Format(bits=16, activation_bytes=2, cpu_held=2.2)
# Repacked for its kernel at loading, like the 4-bit blocks below.
_INT8 = Format(bits=8, row_bytes=4, own_bytes=1, cpu_held=1.65)
_INT8_WEIGHT = Format(bits=8, block=128, block_bytes=4)
_INT4 = Format(bits=4, block=32, block_bytes=4, cpu_held=1.25)
_NF4 = Format(bits=4, block=64, block_bytes=4, flat=True)

STORAGE: Mapping[str, Storage] = MappingProxyType(
    {
        "fp32": Storage(_FP32, _FP32, table_bytes=4),
        "fp16": Storage(_FP16, _FP16, table_bytes=2),
        "int8": Storage(_INT8, _INT8, table_bytes=2),
        "int8-weight": Storage(_INT8_WEIGHT, _INT8_WEIGHT, table_bytes=2),
        "int4": Storage(_INT8_WEIGHT, _INT4, table_bytes=2),
        "nf4": Storage(_INT8_WEIGHT, _NF4, table_bytes=2),
    }
)
"""The precisions that can be planned, and exported by name."""

# The best first. On a CPU int8 takes a quarter of float32's disk and is faster, without VNNI too (measured on
# AVX2 with one byte everywhere: 1.8 times at 32 tokens, 1.4 times at 256); blocks are slower than float32 and
# spare memory. On CUDA products of bytes have no kernel for unsigned activations.
_PREFERRED: Mapping[Place, tuple[str, ...]] = MappingProxyType(
    {
        "cpu": ("int8", "int8-weight", "int4", "nf4", "fp32", "fp16"),
        "cuda": ("fp16", "int8-weight", "int4", "nf4", "fp32"),
    }
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of the models at once: `photos` of at most `tokens` visual tokens (32x32 pixels) each."""

    tokens: int = RETRIEVAL_IMAGE_TOKENS
    photos: int = RERANKED_PHOTOS


@dataclass(frozen=True, slots=True)
class Budget:
    """What a machine can give, in bytes; None where it does not tell. `memory` is the card's for "cuda"."""

    place: Place
    memory: int | None
    disk: int | None = None

    @property
    def usable(self) -> int | None:
        """Memory that models may take: the rest is left to everything else."""
        if self.memory is None:
            return None
        if self.place == "cuda":
            return max(0, self.memory - GPU_CONTEXT_BYTES)
        return max(0, self.memory - max(self.memory // _SHARE_LEFT, _LEAST_LEFT))


@dataclass(frozen=True, slots=True)
class Plan:
    """What embedder and reranker take together, in bytes.

    `vision`, `decoder`, `table`: one model's as stored; `adapters`: all, in the shared layout. The same names
    with `_held` are the same in memory (or on the card), `resident` is what stays there while both are
    loaded, `work` what a run adds at its peak, `disk` the bundle. The vision tower is one for both models, as
    it is in the published pairs. The token table is mapped from the disk and enters no memory of its own.
    """

    precision: str
    layout: Layout
    vision: int
    decoder: int
    table: int
    adapters: int
    vision_held: int
    decoder_held: int
    adapters_held: int
    resident: int
    work: int
    process: int
    disk: int
    fits_memory: bool | None
    fits_disk: bool | None

    @property
    def memory(self) -> int:
        """Everything that must be in memory at once."""
        return self.resident + self.work + self.process

    @property
    def fits(self) -> bool:
        """Whether nothing that is known speaks against it."""
        return self.fits_memory is not False and self.fits_disk is not False


def plan(config: ModelConfig, precision: str, layout: Layout, *, workload: Workload, budget: Budget) -> Plan:
    """Count what a pair of models of these shapes takes at one precision and layout."""
    storage = STORAGE[precision]
    vision, decoder = vision_bytes(config, storage.vision), decoder_bytes(config.text, storage.decoder)
    table = config.text.vocab_size * config.text.hidden_size * storage.table_bytes
    adapters = adapter_bytes(config.text) if layout == "shared" else 0
    on_cpu = budget.place == "cpu"
    vision_held = round(vision * storage.vision.cpu_held) if on_cpu else vision
    decoder_held = round(decoder * storage.decoder.cpu_held) if on_cpu else decoder
    # Stored in float16, widened at loading to what flows through the graph.
    adapters_held = adapters * (4 if on_cpu else storage.decoder.activation_bytes) // 2
    decoders = 1 if layout == "shared" else 2
    resident = vision_held + decoders * decoder_held + adapters_held
    # A CPU computes in float32 whatever a graph says; features wait in main memory, never on the card.
    work = max(
        vision_work(config, workload, number=4 if on_cpu else storage.vision.activation_bytes),
        decoder_work(config, workload, number=4 if on_cpu else storage.decoder.activation_bytes)
        + (feature_bytes(config, workload) if on_cpu else 0),
    )
    process = PROCESS_BYTES if budget.place == "cpu" else 0
    disk = vision + decoders * decoder + table + adapters
    return Plan(
        precision=precision,
        layout=layout,
        vision=vision,
        decoder=decoder,
        table=table,
        adapters=adapters,
        vision_held=vision_held,
        decoder_held=decoder_held,
        adapters_held=adapters_held,
        resident=resident,
        work=work,
        process=process,
        disk=disk,
        fits_memory=None if budget.usable is None else resident + work + process <= budget.usable,
        fits_disk=None if budget.disk is None else disk <= budget.disk,
    )


def plans(config: ModelConfig, *, budget: Budget, workload: Workload | None = None) -> list[Plan]:
    """Every precision in both layouts, the best for this place first.

    Of the layouts the one comes first that an export takes by itself: shared where the decoder is quantized.
    """
    workload = workload or Workload()
    return [
        plan(config, precision, layout, workload=workload, budget=budget)
        for precision in _order(config, budget)
        for layout in _layouts(precision)
    ]


def recommend(found: Sequence[Plan]) -> Plan:
    """The best plan of the precision that comes first in `precisions_that_fit`."""
    precision = precisions_that_fit(found)[0]
    of_precision = [one for one in found if one.precision == precision]
    return next((one for one in of_precision if one.fits), min(of_precision, key=lambda one: one.memory))


def precisions_that_fit(found: Sequence[Plan]) -> list[str]:
    """Precisions by preference: first those that fit with two decoders, then those that fit with one.

    Whether two models can share a decoder shows only when their weights are compared, so what does not depend
    on it comes first. Where nothing fits, the one that takes least.
    """
    certain = [one.precision for one in found if one.fits and one.layout == "separate"]
    hopeful = [one.precision for one in found if one.fits and one.layout == "shared"]
    least = min(found, key=lambda one: one.memory).precision
    return list(dict.fromkeys([*certain, *hopeful])) or [least]


def recommended_precisions(config: ModelConfig, *, budget: Budget) -> list[str]:
    """Precisions for a machine, given nothing else: the recommended one, then those to try if it fails.

    Depends on what the machine has in all, never on what is free at the moment, since vectors of different
    precisions do not mix: tomorrow's answer must be today's.
    """
    if budget.place == "cpu" and is_small(config):
        return ["fp32"]
    return precisions_that_fit(plans(config, budget=budget))


def _layouts(precision: str) -> tuple[Layout, Layout]:
    is_quantized = STORAGE[precision].decoder.bits < 16
    return ("shared", "separate") if is_quantized else ("separate", "shared")


def is_small(config: ModelConfig) -> bool:
    """Whether a model is so small that nothing is gained by storing it in less than float32."""
    return vision_bytes(config, _FP32) + decoder_bytes(config.text, _FP32) <= _SMALL_MODEL


def _order(config: ModelConfig, budget: Budget) -> list[str]:
    """Precisions by preference; those that are not named are unfit for the place."""
    order = [name for name in _PREFERRED[budget.place] if name in STORAGE]
    if budget.place == "cpu" and is_small(config):
        order.sort(key=lambda name: name != "fp32")
    return order


# Weights


def decoder_bytes(text: TextConfig, storage: Format) -> int:
    """The decoder's matrices and norms, without table and head."""
    queries, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    hidden, inner = text.hidden_size, text.intermediate_size
    matrices = (
        storage.matrix_bytes(queries, hidden)
        + 2 * storage.matrix_bytes(keys, hidden)
        + storage.matrix_bytes(hidden, queries)
        + 2 * storage.matrix_bytes(inner, hidden)
        + storage.matrix_bytes(hidden, inner)
    )
    norms = 4 * (2 * hidden + 2 * text.head_dim)
    return text.num_layers * (matrices + norms) + 4 * hidden


def vision_bytes(config: ModelConfig, storage: Format) -> int:
    """The vision tower's matrices, biases, norms and learned positions."""
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


# Shapes as published, for planning before a checkpoint is here; once it is, its own config.json counts.


def published_config(name: str) -> ModelConfig | None:
    """The shapes of "2b" and "8b" (Qwen3-VL technical report, and the published config.json files)."""
    if name == "2b":
        text, vision = (2048, 28, 16, 6144, True), (1024, 24, 16, 4096, (5, 11, 17))
    elif name == "8b":
        text, vision = (4096, 36, 32, 12288, False), (1152, 27, 16, 4304, (8, 16, 24))
    else:
        return None
    hidden, layers, heads, inner, tied = text
    vision_hidden, depth, vision_heads, vision_inner, deepstack = vision
    return ModelConfig(
        text=TextConfig(
            vocab_size=151_936,
            hidden_size=hidden,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=8,
            head_dim=128,
            intermediate_size=inner,
            rms_norm_eps=1e-6,
            rope_theta=5_000_000.0,
            mrope_section=(24, 20, 20),
            max_positions=262_144,
            tied_head=tied,
        ),
        vision=VisionConfig(
            depth=depth,
            hidden_size=vision_hidden,
            num_heads=vision_heads,
            intermediate_size=vision_inner,
            out_hidden_size=hidden,
            patch_size=16,
            temporal_patch_size=2,
            merge_size=2,
            in_channels=3,
            grid_side=48,
            deepstack_layers=deepstack,
        ),
        image_token_id=151_655,
        video_token_id=151_656,
        vision_start_token_id=151_652,
        vision_end_token_id=151_653,
    )
