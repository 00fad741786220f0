"""The search for duplicates, which can take minutes, as something that is asked how far it is."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING

from ..errors import StoppedError
from ..library.duplicates import DuplicateGroup, DuplicateProgress

if TYPE_CHECKING:
    from .service import Service


class DuplicateSearch:
    """At most one search at a time, begun by whoever asks first. Thread-safe."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._running: Future[tuple[DuplicateGroup, ...]] | None = None
        self._progress = DuplicateProgress("look", 0, 0)

    @property
    def progress(self) -> DuplicateProgress:
        """How far the search is that runs."""
        return self._progress

    def ask(self, *, wait_s: float) -> tuple[DuplicateGroup, ...] | None:
        """All groups, None where they are not known within `wait_s` seconds; the search then goes on.

        Raises:
            QvlError: the search failed.
        """
        with self._lock:
            if self._running is None:
                self._progress = DuplicateProgress("look", 0, 0)
                self._running = Future()
                threading.Thread(
                    target=self._run, args=[self._running], name="duplicates", daemon=True
                ).start()
            running = self._running
        try:
            return running.result(timeout=wait_s)
        except NotYet:
            return None

    def _run(self, running: Future[tuple[DuplicateGroup, ...]]) -> None:
        service = self._service
        try:
            running.set_result(service.library.duplicates(progress=self._tell, stop=service.stopping))
        except BaseException as error:
            closed = StoppedError("The server is stopping.")
            running.set_exception(closed if service.stopping.is_set() else error)
        finally:
            with self._lock:
                self._running = None

    def _tell(self, progress: DuplicateProgress) -> None:
        self._progress = progress
