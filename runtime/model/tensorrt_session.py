"""A `Session` on a TensorRT engine: pinned buffers, one stream, shapes that change from run to run.

TensorRT and the CUDA runtime are imported when the first session is made. An engine was built for ranges of
shapes, its profiles; a run takes the first profile that its shapes fit into.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, MissingExtraError, ModelError, ModelMemoryError
from .cuda_memory import Buffer, CudaStream
from .session import Array

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Profile:
    """The smallest and the largest shape of each input."""

    ranges: Mapping[str, tuple[Shape, Shape]]

    def takes(self, shapes: Mapping[str, Shape]) -> bool:
        """Does every shape lie within?"""
        return all(
            len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high))
            for shape, (low, high) in ((shapes[name], self.ranges[name]) for name in self.ranges)
        )


class TensorrtSession:
    """One engine in memory; see `Session` for what it takes and gives. Runs of several threads take turns."""

    def __init__(self, engine: Path) -> None:
        """Load an engine.

        Raises:
            MissingExtraError: TensorRT is not installed.
            BundleError: the engine does not fit this TensorRT or this card.
            ModelError: there is no CUDA device.
        """
        tensorrt = import_tensorrt()
        self._path = engine
        self._stream = CudaStream()
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        # The runtime must outlive its engine, the engine its context.
        self._runtime = tensorrt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise BundleError(
                f"{engine}: does not fit this TensorRT ({tensorrt.__version__}) or this card. "
                "Delete it and build it again: qvl-local export BUNDLE --tensorrt -o BUNDLE"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ModelMemoryError(f"{engine}: its working memory does not fit on the card.")
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names}
        self._types = {name: np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))) for name in names}
        self._inputs = [name for name in names if is_input[name]]
        self._outputs = [name for name in names if not is_input[name]]
        self._profiles = [self._profile(number) for number in range(self._engine.num_optimization_profiles)]
        self._current = 0
        self._buffers = {name: Buffer(self._stream) for name in names}
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, _free, self._stream, list(self._buffers.values()))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run the engine once.

        Raises:
            ModelMemoryError: the batch is larger than the engine was built for, or than the card holds.
            ModelError: TensorRT failed.
        """
        arrays = {name: np.ascontiguousarray(feeds[name], self._types[name]) for name in self._inputs}
        with self._lock:
            self._choose_profile({name: array.shape for name, array in arrays.items()})
            for name, array in arrays.items():
                if not self._context.set_input_shape(name, array.shape):
                    raise ModelError(f"{self._path}: does not take {name} of shape {list(array.shape)}.")
                self._buffers[name].put(array)
                self._context.set_tensor_address(name, self._buffers[name].device)
            shapes = self._output_shapes()
            for name, shape in shapes.items():
                self._buffers[name].reserve(self._size(name, shape))
                self._context.set_tensor_address(name, self._buffers[name].device)
            if not self._context.execute_async_v3(self._stream.handle):
                raise ModelError(
                    f"{self._path}: failed to run. Build the engine again, or use --backend onnx."
                )
            for name, shape in shapes.items():
                self._buffers[name].fetch(self._size(name, shape))
            self._stream.wait()
            return {
                name: self._buffers[name].take(shape, self._types[name]) for name, shape in shapes.items()
            }

    def close(self) -> None:
        """Give buffers and stream back; the session cannot run any more."""
        self._close()

    def _choose_profile(self, shapes: Mapping[str, Shape]) -> None:
        number = next((n for n, profile in enumerate(self._profiles) if profile.takes(shapes)), None)
        if number is None:
            asked = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise ModelMemoryError(
                f"{self._path}: was built for smaller batches than {asked}. "
                "Build it with larger limits, or use --backend onnx."
            )
        if number != self._current:
            if not self._context.set_optimization_profile_async(number, self._stream.handle):
                raise ModelError(f"{self._path}: profile {number} cannot be used. Build the engine again.")
            self._current = number

    def _output_shapes(self) -> dict[str, Shape]:
        missing = self._context.infer_shapes()
        if missing:
            raise ModelError(
                f"{self._path}: needs the shape of {', '.join(missing)}. Build the engine again."
            )
        return {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}

    def _profile(self, number: int) -> _Profile:
        ranges = {}
        for name in self._inputs:
            low, _, high = self._engine.get_tensor_profile_shape(name, number)
            ranges[name] = (tuple(low), tuple(high))
        return _Profile(ranges)

    def _size(self, name: str, shape: Shape) -> int:
        return int(math.prod(shape) * self._types[name].itemsize)


def import_tensorrt() -> Any:
    """The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import tensorrt
    except ImportError:
        raise MissingExtraError("TensorRT", "tensorrt") from None
    return tensorrt


def _free(stream: CudaStream, buffers: list[Buffer]) -> None:
    for buffer in buffers:
        buffer.free()
    stream.close()
