"""One model of a bundle under ONNX Runtime: its two graphs, token table and head."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, Role
from .encoder import open_table
from .head import open_head
from .ort_session import OrtSession, SessionOptions
from .session import Rows, Session


class LazySession:
    """A session made on first use and dropped on demand; safe to share between threads."""

    def __init__(self, graph: Path, options: SessionOptions) -> None:
        self._graph = graph
        self._options = options
        self._session: Session | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Session:
        """The session."""
        with self._lock:
            if self._session is None:
                self._session = OrtSession(self._graph, self._options)
            return self._session

    def drop(self) -> None:
        """Free the graph's memory; the next use loads it again."""
        with self._lock:
            self._session = None


class OrtEngine:
    """The embedder or the reranker of a bundle; see `Engine`."""

    def __init__(self, bundle: Bundle, role: Role, options: SessionOptions) -> None:
        """Map the table; graphs load when they are first needed.

        Raises:
            BundleError: the bundle holds no such part, or its table or head is damaged.
        """
        part = bundle.part(role)
        self.bundle = bundle
        self.table: Rows = open_table(bundle, role)
        self.head: NDArray[np.float32] | None = open_head(bundle) if role == "reranker" else None
        self._vision = LazySession(bundle.file(part.vision), options)
        self._decoder = LazySession(bundle.file(part.decoder), options)

    def vision(self) -> Session:
        """The vision tower."""
        return self._vision()

    def decoder(self) -> Session:
        """The decoder."""
        return self._decoder()

    def unload(self) -> None:
        """Free both graphs."""
        self._vision.drop()
        self._decoder.drop()
