"""Photos as JPEG for browsers that cannot show their own format; a few are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 32 << 20
_QUALITY = 90


class Renderings:
    """JPEGs by the name of their content; the one that was not asked for longest goes. Thread-safe."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The JPEG of a name, made when it is not held."""
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
        jpeg = make()
        with self._lock:
            if name not in self._held:
                self._held[name] = jpeg
                self._bytes += len(jpeg)
            while self._bytes > self._most:
                self._bytes -= len(self._held.popitem(last=False)[1])
        return jpeg


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 [h, w, 3] as a JPEG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
