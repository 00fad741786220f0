"""What was searched for lately, as vectors: another filter or more hits cost no model run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

REMEMBERED = 128

Key = tuple[int, int | None, str, bytes]


class QueryMemory:
    """Query vectors by what they were made of, and for which space. Safe between threads."""

    def __init__(self, *, most: int = REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._vectors: OrderedDict[Key, NDArray[np.float32]] = OrderedDict()

    def get(self, key: Key) -> NDArray[np.float32] | None:
        """The vector of a query, float32 [d], or None."""
        with self._lock:
            vector = self._vectors.get(key)
            if vector is not None:
                self._vectors.move_to_end(key)
            return vector

    def put(self, key: Key, vector: NDArray[np.float32]) -> None:
        """Remember a vector; the one that was not asked for longest goes."""
        with self._lock:
            self._vectors[key] = vector
            self._vectors.move_to_end(key)
            while len(self._vectors) > self._most:
                self._vectors.popitem(last=False)


def key_of(given: Mapping[str, Any], *, space_id: int, dims: int | None) -> Key | None:
    """What tells a query from others; None for one that is not worth remembering.

    `given` as the embedder takes it, a picture as uint8 [h, w, 3].
    """
    if "video" in given or not isinstance(given.get("image", np.empty(0)), np.ndarray):
        return None
    digest = blake2b(digest_size=16)
    if "image" in given:
        pixels = np.ascontiguousarray(given["image"])
        digest.update(repr(pixels.shape).encode())
        digest.update(pixels.data)
    return space_id, dims, given.get("text", ""), digest.digest()
