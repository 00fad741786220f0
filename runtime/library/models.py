"""The two models of an open library, each opened when it is first needed, the reranker ahead of its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ..errors import StoppedError
from .running import Running

if TYPE_CHECKING:
    from ..model.embedder import Embedder
    from ..model.pair import PairModel
    from ..model.reranker import Reranker

    _Model = TypeVar("_Model", bound=PairModel)


class Models:
    """Embedder and reranker, or what is open of them. Safe between threads; done with after `close`."""

    def __init__(
        self, choose: Callable[[], Running], *, progress: Callable[[str, float], None] | None
    ) -> None:
        """`choose` is asked once, when the first model is opened. `progress` as for `Library.open`."""
        self._choose = choose
        self._progress = progress
        self._running: Running | None = None
        self._embedder: Embedder | None = None
        self._reranker: Reranker | None = None
        self._ahead: threading.Thread | None = None
        self._closed = threading.Event()
        self._opening = threading.RLock()  # held for minutes where a model is fetched or exported
        self._calls = threading.Lock()  # held for a moment

    def embedder(self, stop: threading.Event | None = None) -> Embedder:
        """The embedder; errors as for `PairModel.open`.

        Raises:
            StoppedError: `stop` was set while the model was fetched or exported.
        """
        from ..model.embedder import Embedder

        with self._opening:
            if self._embedder is None:
                self._embedder = self._open(Embedder, stop)
            return self._embedder

    def reranker(self) -> Reranker:
        """The reranker; errors as for `PairModel.open`."""
        from ..model.reranker import Reranker

        with self._opening:
            if self._reranker is None:
                self._reranker = self._open(Reranker, None)
            return self._reranker

    def load_reranker_ahead(self) -> None:
        """Load the reranker in a thread, while the query is embedded and the vectors are searched."""
        running = self.running()
        with self._calls:
            if self._closed.is_set() or self._ahead is not None:
                return
            name = f"loading the reranker of {running.model}"
            self._ahead = threading.Thread(target=self._load_reranker, name=name)
            self._ahead.start()

    def running(self) -> Running:
        """Which model, and how it is run."""
        if self._running is None:
            self._running = self._choose()
        return self._running

    def close(self, *, wait: bool) -> None:
        """Free the models.

        Args:
            wait: for one that is just being loaded, so that its memory is free on return. Without, it is
                dropped as soon as it is loaded: nobody should wait for it to be told of an error.
        """
        with self._calls:
            self._closed.set()
            ahead, self._ahead = self._ahead, None
        if wait and ahead is not None:
            ahead.join()
        self._embedder = self._reranker = None

    def _load_reranker(self) -> None:
        # Whatever it is, `rerank` meets the same error, and reports it.
        with suppress(Exception):
            reranker = self.reranker()
            if not self._closed.is_set():
                reranker.load()

    def _open(self, kind: type[_Model], stop: threading.Event | None) -> _Model:
        def tell(step: str, fraction: float) -> None:
            if self._closed.is_set() or (stop is not None and stop.is_set()):
                raise StoppedError("Stopped while the model was made ready.")
            if self._progress is not None:
                self._progress(step, fraction)

        running = self.running()
        return kind.open(
            running.model,
            backend=running.backend,
            device=running.device,
            precision=running.precision,
            progress=tell,
        )
