"""Loaded graphs, each once a process: models that name one file share one session and its weights.

Embedder and reranker of a bundle share the vision tower, and often the decoder; loading either twice would
double the memory that the bundle was made to save.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary

from ..errors import BundleError
from .ort_session import OrtSession, SessionOptions
from .session import Session

# A process has each file once, whoever opened it, so the table of what is loaded belongs to the process, as
# that of open files does. It holds nothing: a graph goes with the last lease.
_graphs: WeakValueDictionary[tuple[object, ...], _Graph] = WeakValueDictionary()
_lock = threading.Lock()


Loader = Callable[[Path, SessionOptions], Session]


class Lease:
    """One model's use of a graph: loaded on first call, freed when no model uses it. Safe between threads.

    `load` makes a session of the file; ONNX Runtime's unless another engine is named.
    """

    def __init__(self, graph: Path, options: SessionOptions, *, load: Loader = OrtSession) -> None:
        self._path = graph
        self._options = options
        self._load = load
        self._graph: _Graph | None = None

    def __call__(self) -> Session:
        """The session.

        Raises:
            BundleError, ModelError: the graph cannot be loaded.
        """
        graph = self._graph
        if graph is None:
            self._graph = graph = _find(self._path, self._options, self._load)
        return graph.session(self)

    def drop(self) -> None:
        """Be done with the graph for now. Its memory is freed unless another model is still using it."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.release(self)


class _Graph:
    """A graph file with fixed options, and the leases that are using it."""

    def __init__(self, path: Path, options: SessionOptions, load: Loader) -> None:
        self._path = path
        self._options = options
        self._load = load
        self._session: Session | None = None
        self._users: WeakSet[Lease] = WeakSet()
        self._lock = threading.Lock()

    def session(self, user: Lease) -> Session:
        with self._lock:
            if self._session is None:
                self._session = self._load(self._path, self._options)
            self._users.add(user)
            return self._session

    def release(self, user: Lease) -> None:
        with self._lock:
            self._users.discard(user)
            if not self._users:
                self._session = None


def _find(path: Path, options: SessionOptions, load: Loader) -> _Graph:
    """The graph of a file as it is now; a bundle that was exported again is another one."""
    try:
        status = path.stat()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error}). Export the bundle again.") from error
    key = (path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns, options, load)
    with _lock:
        graph = _graphs.get(key)
        if graph is None:
            graph = _graphs[key] = _Graph(path, options, load)
        return graph
