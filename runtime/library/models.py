"""The two models of an open library, each opened when it is first needed, the reranker ahead of its turn.

They can be let go while nobody uses them, and open again with their next use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from ..errors import ModelError, ModelLoadingError, StoppedError
from .running import Running

if TYPE_CHECKING:
    from ..model.embedder import Embedder
    from ..model.pair import PairModel
    from ..model.reranker import Reranker

    _Model = TypeVar("_Model", bound=PairModel)

LOADING = "Loading"
_TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class ModelState:
    """Where a library's models stand.

    `step` and its `fraction` done, in [0, 1] or None where that is not known, belong to "loading"; `error`
    says why "failed".
    """

    name: str
    state: Literal["unloaded", "loading", "ready", "failed"]
    step: str | None = None
    fraction: float | None = None
    error: str | None = None


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
        # What `state` tells: the step of fetching or exporting, how many runs load graphs, how it went.
        self._step: tuple[str, float] | None = None
        self._loads = 0
        self._is_ready = False
        self._error: str | None = None
        self._uses = 0
        self._used_at = time.monotonic()

    def embedder(self, stop: threading.Event | None = None, *, wait: bool = True) -> Embedder:
        """The embedder; errors as for `PairModel.open`.

        Raises:
            StoppedError: `stop` was set while the model was fetched or exported.
            ModelLoadingError: another thread is fetching or exporting it, and `wait` is False.
        """
        from ..model.embedder import Embedder

        with self._opened(wait=wait):
            if self._embedder is None:
                self._embedder = self._open(Embedder, stop)
            return self._embedder

    def reranker(self, *, wait: bool = True) -> Reranker:
        """The reranker; errors as for `embedder`."""
        from ..model.reranker import Reranker

        with self._opened(wait=wait):
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

    def state(self) -> ModelState:
        """Where the models stand now; opens nothing."""
        name = self.running().model
        if (step := self._step) is not None:
            return ModelState(name, "loading", step[0], step[1])
        if self._loads:
            return ModelState(name, "loading", LOADING)
        if self._error is not None:
            return ModelState(name, "failed", error=self._error)
        return ModelState(name, "ready" if self._is_ready else "unloaded")

    @contextmanager
    def use(self, *, counts: bool = True) -> Iterator[None]:
        """For so long the models are not released.

        `counts`: this is a use already. A look at folders in which nothing has changed is none; the runs that
        it may lead to are.
        """
        with self._calls:
            self._uses += 1
        try:
            yield
        finally:
            with self._calls:
                self._uses -= 1
                if counts:
                    self._used_at = time.monotonic()

    @contextmanager
    def first_run(self) -> Iterator[None]:
        """Around every run of a model: the first one loads its graphs, and `state` tells of that."""
        if self._is_ready:
            yield
            self._used_at = time.monotonic()
            return
        with self._calls:
            self._loads += 1
        try:
            yield
        except Exception as error:
            with self._calls:
                self._loads -= 1
                self._error = str(error) if isinstance(error, ModelError) else self._error
            raise
        with self._calls:
            self._loads -= 1
            self._is_ready = True
            self._error = None
            self._used_at = time.monotonic()

    def release(self, *, idle_s: float = 0.0) -> bool:
        """Free the models unless they were used in the last `idle_s` seconds; the next use opens them.

        Returns whether any was freed.
        """
        if not self._opening.acquire(blocking=False):
            return False
        try:
            with self._calls:
                is_idle = not self._uses and time.monotonic() - self._used_at >= idle_s
                is_ahead = self._ahead is not None and self._ahead.is_alive()
                held = [model for model in (self._embedder, self._reranker) if model is not None]
                if not is_idle or is_ahead or not held:
                    return False
                self._embedder = self._reranker = self._ahead = None
                self._is_ready = False
            for model in held:
                model.unload()
            return True
        finally:
            self._opening.release()

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

    @contextmanager
    def _opened(self, *, wait: bool) -> Iterator[None]:
        while not self._opening.acquire(timeout=_TICK_S):
            if not wait and (step := self._step) is not None:
                raise ModelLoadingError(
                    f"The model {self.running().model} is being made ready: {step[0]}, {step[1]:.0%}. "
                    "Search again when that is done."
                )
        try:
            yield
        finally:
            self._opening.release()

    def _open(self, kind: type[_Model], stop: threading.Event | None) -> _Model:
        def tell(step: str, fraction: float) -> None:
            if self._closed.is_set() or (stop is not None and stop.is_set()):
                raise StoppedError("Stopped while the model was made ready.")
            self._step = (step, fraction)
            if self._progress is not None:
                self._progress(step, fraction)

        running = self.running()
        try:
            model = kind.open(
                running.model,
                backend=running.backend,
                device=running.device,
                precision=running.precision,
                brief=running.brief,
                progress=tell,
            )
        except StoppedError:
            raise
        except Exception as error:
            self._error = str(error)
            raise
        finally:
            self._step = None
        self._error = None
        return model
