"""Ending the work of a model in the middle, when nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import StoppedError
from .bundle import Bundle
from .session import Array, Engine, Interruptible, Interruption, Rows, Session


class StoppableEngine:
    """An engine whose runs end with StoppedError once `stop` is set; all else is that of the engine below."""

    def __init__(self, engine: Engine, stop: Interruption) -> None:
        self._engine = engine
        self._stop = stop

    @property
    def bundle(self) -> Bundle:
        """See `Engine`."""
        return self._engine.bundle

    @property
    def table(self) -> Rows:
        """See `Engine`."""
        return self._engine.table

    @property
    def head(self) -> NDArray[np.float32] | None:
        """See `Engine`."""
        return self._engine.head

    def vision(self) -> Session:
        """The vision tower."""
        return _StoppableSession(self._engine.vision(), self._stop)

    def decoder(self) -> Session:
        """The decoder."""
        return _StoppableSession(self._engine.decoder(), self._stop)

    def unload(self) -> None:
        """Free the memory of both, of the engine below as well."""
        self._engine.unload()


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
