"""Memory that the host and a CUDA device exchange quickly: pinned on one side, allocated on the other.

Uses the CUDA runtime through NVIDIA's cuda-python, which is imported when the first stream is made.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtraError, ModelError, ModelMemoryError

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation


class CudaStream:
    """One stream of work on a device, and the calls that go into it."""

    def __init__(self) -> None:
        """Make a stream.

        Raises:
            MissingExtraError: cuda-python is not installed.
            ModelError: there is no CUDA device.
        """
        try:
            from cuda.bindings import runtime
        except ImportError:
            raise MissingExtraError("cuda-python", "tensorrt") from None
        self._runtime: Any = runtime
        (self.handle,) = self._checked(runtime.cudaStreamCreate(), "no stream could be made")

    def allocate_device(self, size: int) -> int:
        """Address of `size` bytes on the device."""
        (address,) = self._checked(self._runtime.cudaMalloc(size), f"{size} bytes on the device")
        return int(address)

    def allocate_pinned(self, size: int) -> int:
        """Address of `size` bytes on the host that the device can read by itself."""
        (address,) = self._checked(self._runtime.cudaMallocHost(size), f"{size} pinned bytes")
        return int(address)

    def free_device(self, address: int) -> None:
        """Give device memory back."""
        self._runtime.cudaFree(address)

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""
        self._runtime.cudaFreeHost(address)

    def upload(self, device: int, host: int, size: int) -> None:
        """Copy to the device, in the order of the stream."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked(self._runtime.cudaMemcpyAsync(device, host, size, kind, self.handle), "an upload")

    def download(self, host: int, device: int, size: int) -> None:
        """Copy from the device, in the order of the stream."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._checked(self._runtime.cudaMemcpyAsync(host, device, size, kind, self.handle), "a download")

    def wait(self) -> None:
        """Return when everything in the stream is done."""
        self._checked(self._runtime.cudaStreamSynchronize(self.handle), "the run")

    def close(self) -> None:
        """Give the stream back."""
        self._runtime.cudaStreamDestroy(self.handle)

    def _checked(self, answer: tuple[Any, ...], what: str) -> tuple[Any, ...]:
        """The values behind a call's status.

        Raises:
            ModelMemoryError: the device is out of memory.
            ModelError: anything else went wrong.
        """
        status, *values = answer
        if int(status) == _OUT_OF_MEMORY:
            raise ModelMemoryError(f"CUDA: out of memory ({what}). Choose fewer pixels an image.")
        if int(status) != 0:
            raise ModelError(f"CUDA failed: {what} ({getattr(status, 'name', status)}). Check the driver.")
        return tuple(values)


class Buffer:
    """A tensor's memory on both sides. It grows when a larger shape comes, and never shrinks."""

    def __init__(self, stream: CudaStream) -> None:
        self._stream = stream
        self._size = 0
        self.device = 0
        self._pinned = 0

    def reserve(self, size: int) -> None:
        """Make room for `size` bytes; what was in it is lost if it grows."""
        size = max(size, 1)  # an empty tensor has an address too
        if size <= self._size:
            return
        size = max(size, min(2 * self._size, size + (64 << 20)))  # growing shapes do not allocate each time
        self.free()
        self.device = self._stream.allocate_device(size)
        self._pinned = self._stream.allocate_pinned(size)
        self._size = size

    def put(self, values: NDArray[Any]) -> None:
        """Copy an array into pinned memory and send it to the device."""
        self.reserve(values.nbytes)
        np.copyto(self._view(values.shape, values.dtype), values)
        self._stream.upload(self.device, self._pinned, values.nbytes)

    def fetch(self, size: int) -> None:
        """Send `size` bytes from the device into pinned memory; they are there once the stream is done."""
        self._stream.download(self._pinned, self.device, size)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[np.float32]:
        """A copy of what was fetched, as float32."""
        return np.array(self._view(shape, dtype), np.float32)

    def free(self) -> None:
        """Give the memory back."""
        if self.device:
            self._stream.free_device(self.device)
        if self._pinned:
            self._stream.free_pinned(self._pinned)
        self.device = self._pinned = self._size = 0

    def _view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        size = max(math.prod(shape) * dtype.itemsize, 1)
        memory = memoryview((ctypes.c_ubyte * size).from_address(self._pinned))
        return np.ndarray(shape, dtype, memory)
