"""The seam between models and engines: a `Session` runs one graph on named arrays, an `Engine` has two."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle

Array = NDArray[np.generic]


class Session(Protocol):
    """One loaded graph, vision tower or decoder, whatever engine runs it.

    vision:  patches[S,N,P], pos_idx[N,4] int64, pos_w[N,4], cos[N,hd/2], sin[N,hd/2]
             -> features[S,N/4,H], deepstack[K,S,N/4,H]
             S images or frame pairs of one grid; N patches in merge order, P values a patch.
    decoder: embeds[B,T,H], cos[B,T,hd/2], sin[B,T,hd/2], deepstack[K,B|1,T|1,H], last[B] int64
             -> pooled[B,H], the last token's state after the final norm, not L2-normalised.

    Floating inputs are float32 whatever the graph's precision; `run` casts. Outputs are float32.
    """

    def run(self, feeds: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once.

        Raises:
            ModelMemoryError: the batch does not fit into memory; a smaller one may.
            ModelError: the engine failed.
        """
        ...


class Interruption:
    """A wish, from another thread, that one run of a graph ends early."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = self._is_final = False
        self._end: Callable[[], None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether the run shall end, or never begin."""
        return self._is_set

    @property
    def is_final(self) -> bool:
        """Whether the run shall not be made again later either."""
        return self._is_final

    def set(self, *, final: bool = False) -> None:
        """End the run. `final`: nobody needs what would have come of it any more."""
        with self._lock:
            self._is_set = True
            self._is_final = self._is_final or final
            if self._end is not None:
                self._end()

    def on_set(self, end: Callable[[], None]) -> None:
        """`end` ends the run; called at once when that was wished before."""
        with self._lock:
            self._end = end
            if self._is_set:
                end()


@runtime_checkable
class Interruptible(Protocol):
    """A `Session` that can end a run of its graph before it is done."""

    def run_until(
        self, interruption: Interruption, feeds: Mapping[str, Array]
    ) -> dict[str, NDArray[np.float32]] | None:
        """Run the graph once, as `Session.run`; None when `interruption` was set before it was done."""
        ...


class Rows(Protocol):
    """The token embedding table, in memory or mapped: rows [vocabulary, H] by number."""

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """int64 [n] -> floating [n, H]."""
        ...


class Engine(Protocol):
    """One model of the pair, ready to run. Sessions load when they are first asked for; safe between threads.

    `bundle` says what it is; for a checkpoint that is run as it lies, it describes that folder and is in no
    file. `head` is float32 [H], W_yes - W_no, for a reranker.
    """

    @property
    def bundle(self) -> Bundle:
        """What runs: sources, precisions, where its small files are."""
        ...

    @property
    def table(self) -> Rows:
        """The token embeddings."""
        ...

    @property
    def head(self) -> NDArray[np.float32] | None:
        """The reranker's yes/no head; None for an embedder."""
        ...

    def vision(self) -> Session:
        """The vision tower."""
        ...

    def decoder(self) -> Session:
        """The decoder."""
        ...

    def unload(self) -> None:
        """Free the memory of both; the next use loads them again."""
        ...
