"""Ending the work of a model in the middle, when nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import StoppedError
from .session import Array, Engine, Interruptible, Interruption, Session
from .wrapped_engine import WrappedEngine


class StoppableEngine(WrappedEngine):
    """An engine whose runs end with StoppedError once `stop` is set."""

    def __init__(self, engine: Engine, stop: Interruption) -> None:
        super().__init__(engine, lambda session: _StoppableSession(session, stop))


class _StoppableSession:
    """A session that ends behind the node at work, or, where its engine cannot, behind the run."""

    def __init__(self, session: Session, stop: Interruption) -> None:
        self._session = session
        self._stop = stop

    def run(self, feeds: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once; see `Session`."""
        outputs: dict[str, NDArray[np.float32]] | None = None
        if not self._stop.is_set:
            if isinstance(self._session, Interruptible):
                outputs = self._session.run_until(self._stop, feeds)
            else:
                outputs = self._session.run(feeds)
        if outputs is None:
            raise StoppedError("Nobody waits for this any more.")
        return outputs
