"""`Service`: the only thing that routes talk to. It owns the library, its models, and what a search keeps.

Its methods block and are safe between threads; routes call them through `searches` or `reads`, whose threads
and queues are bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from ..library.library import Library
from ..library.records import Filters, SearchResult
from ..library.search import RERANKED, Found
from ..library.store import Store
from .inputs import Inputs
from .limits import Gate
from .metrics import Metrics, resident_bytes
from .remote import Remote
from .settings import ServerSettings
from .sources import Sources

if TYPE_CHECKING:
    from ..model.embedder import Embedder
    from ..model.reranker import Reranker

_READS, _WAITING_READS = 8, 256
_PROGRAMS = 2


@dataclass(frozen=True, slots=True)
class Query:
    """What somebody looks for: words, a picture (uint8 [h, w, 3]), an item like this one, or words with one.

    `like` is a media id.
    """

    text: str | None = None
    picture: NDArray[np.uint8] | None = None
    like: int | None = None
    limit: int = 20
    filters: Filters | None = None
    rerank: bool = True


@dataclass(frozen=True, slots=True)
class Search:
    """A search after its fast step. Both results may be asked for, in any thread."""

    query: Query
    found: Found
    _library: Library

    def result(self) -> SearchResult:
        """The hits in the embedder's order."""
        return self.found.result()

    def rerank(self) -> SearchResult:
        """The hits in the final order; the slow step."""
        return self._library.rerank(self.found, image=self.query.picture)


class Service:
    """An open library that is served. Made by `Service.open`; a context manager."""

    def __init__(self, settings: ServerSettings, library: Library) -> None:
        """Use `Service.open`."""
        self.settings = settings
        self.library = library
        self.metrics = Metrics()
        self.searches = Gate("searches", running=settings.max_searches, waiting=settings.max_waiting)
        self.reads = Gate("reads", running=_READS, waiting=_WAITING_READS)
        # Apart from searches, so that a program with thousands of inputs keeps nobody from finding things.
        self.programs = Gate("requests", running=_PROGRAMS, waiting=settings.max_waiting)
        self.inputs = Inputs(
            Sources(
                roots=(lambda: self.library.status().folders) if settings.allow_local_paths else None,
                remote=Remote() if settings.allow_remote_urls else None,
            )
        )
        self.stopping = threading.Event()
        self._running_searches = 0
        self._lock = threading.Lock()
        self.metrics.gauge("qvl_searches_running", "Searches that run now.", lambda: self._running_searches)
        self.metrics.gauge("qvl_resident_bytes", "Memory held by the server.", resident_bytes)

    @classmethod
    def open(cls, settings: ServerSettings) -> Self:
        """Open the library of `settings`, made when missing. No model is loaded yet.

        Raises:
            LibraryError: as `Library.open`.
        """
        Store.create(settings.library)
        library = Library.open(
            settings.library,
            model=settings.model,
            backend=settings.backend,
            device=settings.device,
            precision=settings.precision,
            create=False,
        )
        return cls(settings, library)

    def find(self, query: Query) -> Search:
        """The fast step of a search.

        Raises:
            InputError: nothing to look for, or a limit or filter that makes no sense.
            LibraryError: nothing was indexed yet.
        """
        top = RERANKED if query.rerank else 0
        found = self.library.find(
            query.text, image=query.picture, limit=query.limit, filters=query.filters, top=top
        )
        return Search(query, found, self.library)

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Mark a search while it runs: indexing makes room for it."""
        with self._lock:
            self._running_searches += 1
        try:
            yield
        finally:
            with self._lock:
                self._running_searches -= 1

    @property
    def is_searching(self) -> bool:
        """Whether a search runs now."""
        return self._running_searches > 0

    def embedder(self) -> Embedder:
        """The library's embedder, loaded when it is first needed."""
        return self.library.embedder()

    def reranker(self) -> Reranker:
        """The library's reranker, loaded when it is first needed."""
        return self.library.reranker()

    def stop(self) -> None:
        """End event streams and begin nothing new; called when the server is told to stop."""
        self.stopping.set()

    def close(self) -> None:
        """Finish what runs, drop what waits, and close the library."""
        self.stop()
        self.searches.close()
        self.reads.close()
        self.programs.close()
        self.inputs.close()
        self.library.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
