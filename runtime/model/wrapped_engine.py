"""An engine whose sessions are those of another one, with something around every run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .session import Engine, Rows, Session


class WrappedEngine:
    """An engine that hands out wrapped sessions; all else is that of the engine below."""

    def __init__(self, engine: Engine, wrap: Callable[[Session], Session]) -> None:
        self._engine = engine
        self._wrap = wrap

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
        return self._wrap(self._engine.vision())

    def decoder(self) -> Session:
        """The decoder."""
        return self._wrap(self._engine.decoder())

    def unload(self) -> None:
        """Free the memory of both, of the engine below as well."""
        self._engine.unload()
