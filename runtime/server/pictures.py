"""Pictures to search by that a page has sent: kept in memory, bounded in number, bytes and time."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from .problems import NotFoundError

MOST = 32
MOST_BYTES = 96 << 20
KEPT_S = 30 * 60.0


class Pictures:
    """Query pictures by an id that nobody can guess. The oldest make room. Safe between threads."""

    def __init__(self, *, most: int = MOST, most_bytes: int = MOST_BYTES, kept_s: float = KEPT_S) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[float, NDArray[np.uint8]]] = OrderedDict()
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """The memory that they take."""
        return self._bytes

    def add(self, pixels: NDArray[np.uint8]) -> str:
        """Keep a picture, uint8 [h, w, 3]; returns its id."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._held[name] = (time.monotonic(), pixels)
            self._bytes += pixels.nbytes
            self._tidy()
        return name

    def get(self, name: str) -> NDArray[np.uint8]:
        """The picture of an id: uint8 [h, w, 3]. Asking for it keeps it longer.

        Raises:
            NotFoundError: it is not held any more, or never was.
        """
        with self._lock:
            self._tidy()
            entry = self._held.pop(name, None)
            if entry is None:
                raise NotFoundError("The picture to search by is not held any more. Send it again.")
            self._held[name] = (time.monotonic(), entry[1])
            return entry[1]

    def _tidy(self) -> None:
        oldest = time.monotonic() - self._kept_s
        while self._held:
            since, pixels = next(iter(self._held.values()))
            # The one that was just added stays, whatever its size.
            is_over = len(self._held) > 1 and (len(self._held) > self._most or self._bytes > self._most_bytes)
            if since > oldest and not is_over:
                return
            self._held.popitem(last=False)
            self._bytes -= pixels.nbytes
