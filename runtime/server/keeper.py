"""The life of the models: kept while they are used, let go when nobody has used them for a while."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import threading
from contextlib import suppress

from ..library.library import Library

log = logging.getLogger(__name__)

_LOOKS_A_TTL = 10
_LONGEST_LOOK_S = 30.0


class Keeper:
    """A thread that unloads the models of libraries after `ttl_s` idle seconds; 0 keeps them for good."""

    def __init__(self, *libraries: Library, ttl_s: float) -> None:
        self._libraries = libraries
        self._ttl_s = ttl_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def open(self) -> None:
        """Begin to look after the models."""
        if self._ttl_s > 0:
            self._thread.start()

    def close(self) -> None:
        """Stop looking; the library frees its models itself."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._closing.wait(min(self._ttl_s / _LOOKS_A_TTL, _LONGEST_LOOK_S)):
            released = [library.release_models(idle_s=self._ttl_s) for library in self._libraries]
            if any(released):
                log.info("models unloaded", extra={"idle_s": self._ttl_s})
                return_memory()


def return_memory() -> None:
    """Give the system what was freed; the C library keeps it for later otherwise."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
