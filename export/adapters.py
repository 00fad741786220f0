"""One decoder for two models: what leads from the embedder's matrices to the reranker's, found and written.

    y = x @ W + adapter * (x @ down) @ up

`W` is the embedder's weight in whatever format the graph has. `adapter` is an input of the graph: 0 runs the
embedder exactly as if there were no adapter, 1 runs the reranker. The factors are weights of the graph, so
one session holds everything that both models need.

Only matrices may differ, each by few directions (see `quant/lowrank.py`); norms must be equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from qvl_local.quant.lowrank import FRACTION_BITS, LowRank, NotLowRank, Rounding, factorise
from qvl_local.runtime.model.bundle import Role

from .checkpoint import EMBEDDINGS, Checkpoint
from .graph import Graph, Value
from .onnx_file import ElementType
from .safetensors_file import StoredTensor
from .spool import Kept, Spool

BASE: Role = "embedder"
ADAPTER_INPUT = "adapter"
# What each model feeds as `adapter`.
SHARES: dict[Role, float] = {"embedder": 0.0, "reranker": 1.0}

_FRACTIONS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Adapters above this part of a second 4-bit decoder are not worth their time.
_LARGEST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Adapter:
    """The difference of one matrix [rows, columns]; figures as in `LowRank`.

    `down` float16 [columns, rank] and `up` float16 [rank, rows] lie in a spool; None is for an adapter whose
    values are never going to be read.
    """

    name: str
    rows: int
    columns: int
    rank: int
    error: float
    difference: float
    noise: float
    down: Kept | None = None
    up: Kept | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of both factors in float16."""
        return 2 * self.rank * (self.rows + self.columns)


class Adapters:
    """The adapters of a decoder by canonical tensor name. Their values lie in a spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._by_name: dict[str, Adapter] = {}

    def __iter__(self) -> Iterator[Adapter]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def keep(self, name: str, found: LowRank) -> Adapter:
        """Store the factors of a matrix."""
        (columns, rank), rows = found.down.shape, found.up.shape[1]
        down, up = self._spool.keep(found.down), self._spool.keep(found.up)
        return self.declare(
            Adapter(name, rows, columns, rank, found.error, found.difference, found.noise, down, up)
        )

    def refit(self, adapter: Adapter, down: NDArray[np.float16], up: NDArray[np.float16]) -> Adapter:
        """Have other factors of the same rank."""
        return self.declare(replace(adapter, down=self._spool.keep(down), up=self._spool.keep(up)))

    def declare(self, adapter: Adapter) -> Adapter:
        """Have an adapter whose values lie in the spool, or are never going to be read."""
        self._by_name[adapter.name] = adapter
        return adapter

    def find(self, name: str) -> Adapter | None:
        """The adapter of a weight, unless both models have the same."""
        return self._by_name.get(name)

    def activate(self, graph: Graph, activation: ElementType) -> ActiveAdapters:
        """Declare the input that switches them."""
        share = graph.input(ADAPTER_INPUT, ElementType.FLOAT, [1])
        if activation != ElementType.FLOAT:
            share = graph.op("Cast", [share], {"to": int(activation)}, at="/adapter")
        return ActiveAdapters(self, share, activation)


@dataclass(frozen=True, slots=True, eq=False)
class ActiveAdapters:
    """Adapters of a graph under construction, and how much of them counts: a value [1]."""

    adapters: Adapters
    share: Value
    activation: ElementType

    def add(self, graph: Graph, x: Value, y: Value, name: str, *, at: str) -> Value:
        """y [..., rows] and what the adapter of weight `name` makes of x [..., columns], if it has one."""
        adapter = self.adapters.find(name)
        if adapter is None:
            return y
        at, stem = f"{at}/adapter", name.removesuffix(".weight")
        inner = self._times(
            graph, x, f"{stem}.adapter_down", (adapter.columns, adapter.rank), adapter.down, at
        )
        inner = graph.op("Mul", [inner, self.share], at=at)
        change = self._times(graph, inner, f"{stem}.adapter_up", (adapter.rank, adapter.rows), adapter.up, at)
        return graph.op("Add", [y, change], at=at)

    def _times(
        self,
        graph: Graph,
        x: Value,
        name: str,
        shape: tuple[int, int],
        kept: Kept | None,
        at: str,
    ) -> Value:
        def read() -> NDArray[np.float16]:
            if kept is None:
                raise ValueError(f"{name}: this adapter was declared without values")
            return kept.read()

        factor = graph.weight(name, ElementType.FLOAT16, shape, read)
        if self.activation != ElementType.FLOAT16:
            # Half the size on disk; engines widen constants once, when they load.
            factor = graph.op("Cast", [factor], {"to": int(self.activation)}, at=at)
        return graph.op("MatMul", [x, factor], at=at)


@dataclass(frozen=True, slots=True)
class Unshareable:
    """Why one decoder cannot serve both models, as a clause: "norms differ"."""

    reason: str


def find_adapters(
    base: Checkpoint,
    other: Checkpoint,
    *,
    spool: Spool,
    progress: Callable[[float], None] | None = None,
) -> Adapters | Unshareable:
    """Compare two decoders and factorise every matrix in which they differ, one at a time.

    Args:
        base: whose weights the decoder holds.
        other: whose weights base and adapters together give.
        spool: where the factors wait until they are written.
        progress: told the fraction of bytes that is done.

    Raises:
        CheckpointError: a tensor is missing or cannot be read.
    """
    changed = _changed(base, other)
    if isinstance(changed, Unshareable):
        return changed
    adapters = Adapters(spool)
    total = sum(tensor.size for tensor in changed.values()) or 1
    done, likely, copy = 0, 16, 0.0
    for name, target in changed.items():
        rows, columns = target.shape
        stored = base.stored(name, target.shape)
        found = factorise(
            stored.rows,
            target.rows,
            (rows, columns),
            rounding=Rounding(_fraction(stored), _fraction(target)),
            # At this rank the factors take as many bytes as a second copy with 4 bits a weight.
            limit=rows * columns // (4 * (rows + columns)),
            likely=likely,
        )
        if isinstance(found, NotLowRank):
            return Unshareable(
                f"{name} differs by more than rank {found.limit} "
                f"({found.error:.2%} of it would be lost, {found.noise:.2%} is rounding)"
            )
        if found.rank:
            likely = adapters.keep(name, found).rank
        copy += rows * columns / 2
        done += target.size
        if progress is not None:
            progress(done / total)
    size = sum(adapter.nbytes for adapter in adapters)
    if size > _LARGEST_SHARE * copy:
        return Unshareable(f"adapters would take {size / copy:.0%} of what a second 4-bit decoder takes")
    return adapters


def _changed(base: Checkpoint, other: Checkpoint) -> dict[str, StoredTensor] | Unshareable:
    """The matrices in which two decoders differ, in order; the token table is not part of a decoder."""
    if base.config.text != other.config.text:
        return Unshareable("the configurations of the two decoders differ")
    if len(base.config.vision.deepstack_layers) != len(other.config.vision.deepstack_layers):
        return Unshareable("their vision towers feed different numbers of layers")
    names = [name for name in base.names() if name.startswith("language_model.") and name != EMBEDDINGS]
    changed = {}
    for name in names:
        if name not in other or base.digest(name) != other.digest(name):
            tensor = other.stored(name, base.stored(name).shape)
            if len(tensor.shape) != 2:
                return Unshareable(f"{name} differs, and is not the weight of a product")
            changed[name] = tensor
    return changed


def _fraction(tensor: StoredTensor) -> int:
    return FRACTION_BITS[_FRACTIONS[tensor.dtype]]
