"""Who goes first where searches and indexing share models and cores: searches.

A search marks itself. Work in the background waits before every run of a graph until no search is going on,
and a run that is on its way when a search begins is ended and made again later. So a search waits for one
node of a graph, milliseconds, and never for a batch of photos.

Nobody starves: work in the background that had to wait for long makes one run whatever is going on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ..errors import StoppedError
from .session import Array, Engine, Interruptible, Interruption, Session
from .wrapped_engine import WrappedEngine

QUIET_S = 0.2
"""A search comes in steps, and people search again: so long after one ended, it may still be going on."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0
"""Where searches never end, work in the background waits so long before it makes a run all the same."""

# The part of the time that such runs may take, within those bounds: one search in twenty meets one.
_SHARE = 0.05

_STOPPED = "Indexing was stopped; what was written is kept."


class Precedence:
    """Counts the searches that are going on. Safe between threads."""

    def __init__(self, *, quiet_s: float = QUIET_S, longest_wait_s: float = SHORTEST_WAIT_S) -> None:
        """`longest_wait_s` is where it begins; it follows how long runs take."""
        self._quiet_s = quiet_s
        self._longest_wait_s = longest_wait_s
        self._changed = threading.Condition()
        self._searches = 0
        self._ended_at = -quiet_s
        self._runs: set[Interruption] = set()
        self._is_ended = False

    @property
    def is_searching(self) -> bool:
        """Whether a search is going on, or was a moment ago."""
        return self._searches > 0 or time.monotonic() - self._ended_at < self._quiet_s

    @contextmanager
    def searching(self) -> Iterator[None]:
        """For the time of a search, work in the background stands back."""
        with self._changed:
            self._searches += 1
            runs = tuple(self._runs)
        for run in runs:
            run.set()
        try:
            yield
        finally:
            with self._changed:
                self._searches -= 1
                self._ended_at = time.monotonic()
                self._changed.notify_all()

    @property
    def is_ended(self) -> bool:
        """Whether there shall be no more work in the background."""
        return self._is_ended

    def drop(self) -> None:
        """End the runs in the background that are on their way now; they raise StoppedError."""
        with self._changed:
            runs = tuple(self._runs)
        for run in runs:
            run.set(final=True)

    def end(self) -> None:
        """End work in the background for good: every run of it, now or later, raises StoppedError."""
        with self._changed:
            self._is_ended = True
            runs = tuple(self._runs)
            self._changed.notify_all()
        for run in runs:
            run.set()

    def give_way(self, *, since: float | None = None, stop: threading.Event | None = None) -> bool:
        """Wait until no search is going on; returns whether that is so, and not that it took too long.

        `since`: when the waiting began, by `time.monotonic`; None is now. Ends early once `stop` is set.
        """
        until = (time.monotonic() if since is None else since) + self._longest_wait_s
        with self._changed:
            while (now := time.monotonic()) < until and not self._is_ended:
                if stop is not None and stop.is_set():
                    break
                if self._searches:
                    self._changed.wait(min(until - now, 0.2))
                elif (quiet := self._ended_at + self._quiet_s - now) > 0:
                    self._changed.wait(min(until - now, quiet))
                else:
                    return True
        return False

    def took(self, run_s: float) -> None:
        """A run that no search could end took so long: the next one is waited for accordingly."""
        self._longest_wait_s = min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, run_s / _SHARE))

    @contextmanager
    def interruptible(self) -> Iterator[Interruption]:
        """A run that ends when a search begins; it ends at once where one is going on already."""
        run = Interruption()
        with self._changed:
            self._runs.add(run)
            is_late = self._searches > 0 or self._is_ended
        if is_late:
            run.set()
        try:
            yield run
        finally:
            with self._changed:
                self._runs.discard(run)


class YieldingEngine(WrappedEngine):
    """An engine whose runs give way to searches."""

    def __init__(self, engine: Engine, precedence: Precedence) -> None:
        super().__init__(engine, lambda session: _YieldingSession(session, precedence))


class _YieldingSession:
    """A session that waits for its turn. Not every engine can end a run; those are waited for."""

    def __init__(self, session: Session, precedence: Precedence) -> None:
        self._session = session
        self._precedence = precedence

    def run(self, feeds: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once; see `Session`."""
        began = time.monotonic()
        while self._precedence.give_way(since=began) and isinstance(self._session, Interruptible):
            with self._precedence.interruptible() as interruption:
                outputs = self._session.run_until(interruption, feeds)
            if outputs is not None:
                return outputs
            if interruption.is_final:
                raise StoppedError(_STOPPED)
        if self._precedence.is_ended:
            raise StoppedError(_STOPPED)
        began = time.monotonic()
        outputs = self._session.run(feeds)
        self._precedence.took(time.monotonic() - began)
        return outputs
