"""Which precision fits a machine: arithmetic over a model's shapes, before anything is exported.

    shapes (config.json) x precision -> bytes of vision tower, decoder, token table
    + shapes x pixels and batch      -> bytes of activations
    + layout                         -> what both models together hold in memory and on disk
    against the machine              -> what fits, and what is recommended

The bytes are `footprint`'s to count. This module knows the machine's side, and which precision is preferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from .config import ModelConfig
from .footprint import (
    Workload,
    adapter_bytes,
    decoder_bytes,
    decoder_work,
    feature_bytes,
    vision_bytes,
    vision_work,
)
from .weight_formats import STORAGE

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
# The best first. On a CPU int8 takes a quarter of float32's disk and memory and is no slower, without VNNI;
# int8-safe is for who asks for it, and for models that int8 strays too far from. Blocks are slower than
# float32 and spare memory. On CUDA products of bytes have no kernel for unsigned activations.
_PREFERRED: Mapping[Place, tuple[str, ...]] = MappingProxyType(
    {
        "cpu": ("int8", "int8-safe", "int8-weight", "int4", "nf4", "fp32", "fp16"),
        "cuda": ("fp16", "int8-weight", "int4", "nf4", "fp32"),
    }
)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a machine can give, in bytes; None where it does not tell. `memory` is the card's for "cuda".

    `disk` is free where exports go, `hub_disk` where downloads go; of `is_one_disk` both are the same room.
    """

    place: Place
    memory: int | None
    disk: int | None = None
    hub_disk: int | None = None
    is_one_disk: bool = True

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
    loaded, `work` what a run adds at its peak, `disk` the bundle, `download` what is to be fetched for it and
    stays beside it. The vision tower is one for both models, as
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
    download: int
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


def plan(
    config: ModelConfig,
    precision: str,
    layout: Layout,
    *,
    workload: Workload,
    budget: Budget,
    download: int = 0,
) -> Plan:
    """Count what a pair of models of these shapes takes at one precision and layout.

    `download`: bytes of the checkpoints that are not on this machine yet.
    """
    storage = STORAGE[precision]
    vision, decoder = vision_bytes(config, storage), decoder_bytes(config.text, storage)
    table = config.text.vocab_size * config.text.hidden_size * storage.table_bytes
    adapters = adapter_bytes(config.text) if layout == "shared" else 0
    on_cpu = budget.place == "cpu"
    vision_held = vision_bytes(config, storage, held_on_cpu=on_cpu)
    decoder_held = decoder_bytes(config.text, storage, held_on_cpu=on_cpu)
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
        download=download,
        fits_memory=None if budget.usable is None else resident + work + process <= budget.usable,
        fits_disk=_fits_disk(disk, download, budget),
    )


def _fits_disk(export: int, download: int, budget: Budget) -> bool | None:
    """Whether a bundle and what is downloaded for it fit together; None where nobody knows."""
    if budget.disk is None:
        return None
    if budget.is_one_disk:
        return export + download <= budget.disk
    if export > budget.disk:
        return False
    if not download:
        return True
    return None if budget.hub_disk is None else download <= budget.hub_disk


def plans(
    config: ModelConfig,
    *,
    budget: Budget,
    workload: Workload | None = None,
    precision: str | None = None,
    download: int = 0,
) -> list[Plan]:
    """Every precision that suits the place in both layouts, the best first; or of those the given one.

    Of the layouts the one comes first that an export takes by itself: shared where the decoder is quantized.
    """
    workload = workload or Workload()
    return [
        plan(config, name, layout, workload=workload, budget=budget, download=download)
        for name in _order(config, budget)
        if precision in (None, name)
        for layout in _layouts(name)
    ]


def recommend(found: Sequence[Plan]) -> Plan:
    """The best plan of the precision that comes first in `precisions_that_fit`."""
    precision = precisions_that_fit(found)[0]
    of_precision = [one for one in found if one.precision == precision]
    return next(
        (one for one in of_precision if one.fits_memory is not False),
        min(of_precision, key=lambda one: one.memory),
    )


def precisions_that_fit(found: Sequence[Plan]) -> list[str]:
    """Precisions by preference: first those whose two decoders fit into memory, then those that fit with one.

    Whether two models can share a decoder shows only when their weights are compared, so what does not depend
    on it comes first. Where nothing fits, the one that takes least. Room on a disk decides nothing: people
    make some, and a precision stays.
    """
    fitting = [one for one in found if one.fits_memory is not False]
    certain = [one.precision for one in fitting if one.layout == "separate"]
    hopeful = [one.precision for one in fitting if one.layout == "shared"]
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
    return vision_bytes(config, STORAGE["fp32"]) + decoder_bytes(config.text, STORAGE["fp32"]) <= _SMALL_MODEL


def _order(config: ModelConfig, budget: Budget) -> list[str]:
    """Precisions by preference; those that are not named are unfit for the place."""
    order = [name for name in _PREFERRED[budget.place] if name in STORAGE]
    if budget.place == "cpu" and is_small(config):
        order.sort(key=lambda name: name != "fp32")
    return order
