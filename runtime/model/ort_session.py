"""A `Session` on ONNX Runtime. onnxruntime is imported when the first session is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, InputError, ModelError, ModelMemoryError
from ..machine import usable_cores
from .ort_providers import DEVICES, NAMES, PROVIDERS, Device, providers_for
from .session import Array, Interruption

# Products of bytes add up in 16 bits on x86 without VNNI, where they overflow: errors of 65,000 were measured
# in sums of 2048. With this entry ONNX Runtime takes its exact kernel there, and changes nothing elsewhere.
EXACT_INT8 = ("session.x64quantprecision", "1")

# How ONNX Runtime and CUDA say that memory ran out: their bindings raise no class for it.
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad alloc", "bad_alloc", "out of memory", "ALLOC_FAILED")

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How graphs are run. `threads` None means every core that this process may use; `brief` as for `open`
    of `PairModel`, for graphs whose weights are float32.
    """

    device: Device = "cpu"
    threads: int | None = None
    brief: bool = False

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise InputError(f"Unknown device {self.device!r}. Use one of: {', '.join(DEVICES)}.")
        if self.threads is not None and self.threads < 1:
            raise InputError("The number of threads must be at least 1.")


class OrtSession:
    """One graph loaded into ONNX Runtime; see `Session` for what it takes and gives."""

    def __init__(self, graph: Path, options: SessionOptions) -> None:
        """Load a graph.

        Raises:
            ModelError: a device was asked for and cannot be had; it never falls back to another.
            BundleError: the graph is damaged or uses something unknown.
        """
        import onnxruntime

        providers = providers_for(onnxruntime, options.device, graph)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3  # errors; they also come as exceptions
        settings.intra_op_num_threads = options.threads or usable_cores()
        settings.inter_op_num_threads = 1
        # A plan of the memory is made and kept for every shape; ours change from run to run. And tensors that
        # could take each other's place are looked for in time quadratic in the nodes, half of what the vision
        # tower takes to load in int8; without it runs took no longer and no more memory.
        settings.enable_mem_pattern = False
        settings.enable_mem_reuse = False
        # Threads that spin between runs would take the cores from decoding.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry(*EXACT_INT8)
        # Rearranging the weights for the processor pays from some ten runs on: for qvl-tiny it is half of the
        # time to load a graph, during which no thread of Python gets on, and saves 3 to 30 % of a run.
        settings.add_session_config_entry("session.disable_prepacking", "1" if options.brief else "0")
        try:
            self._session = onnxruntime.InferenceSession(str(graph), settings, providers=providers)
        except Exception as error:  # the bindings raise classes of their own, all directly under Exception
            raise BundleError(
                f"{graph}: cannot be loaded ({_first_line(error)}). Export the bundle again."
            ) from error
        wanted = PROVIDERS[options.device]
        if wanted not in self._session.get_providers():
            raise ModelError(
                f"{graph}: ONNX Runtime could not start {NAMES[options.device]} and would have used another "
                f"device. Check the driver and {NAMES[options.device]}'s libraries, or choose --device cpu."
            )
        self._graph = graph
        self._inputs = {arg.name: _DTYPES[arg.type] for arg in self._session.get_inputs()}
        self._outputs = [arg.name for arg in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once.

        Raises:
            ModelMemoryError: the batch does not fit into memory; a smaller one may.
            ModelError: ONNX Runtime failed.
        """
        return self._run(feeds, None)

    def run_until(
        self, interruption: Interruption, feeds: Mapping[str, Array]
    ) -> dict[str, NDArray[np.float32]] | None:
        """Run the graph once; None when `interruption` was set, which ends it behind the node at work.

        Raises:
            ModelMemoryError, ModelError: as for `run`.
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        interruption.on_set(lambda: setattr(options, "terminate", True))
        try:
            return self._run(feeds, options)
        except ModelError:
            if interruption.is_set:
                return None
            raise

    def _run(self, feeds: Mapping[str, Array], options: Any) -> dict[str, NDArray[np.float32]]:
        cast: dict[str, Any] = {
            name: np.ascontiguousarray(feeds[name], dtype=dtype) for name, dtype in self._inputs.items()
        }
        try:
            values = self._session.run(self._outputs, cast, options)
        except Exception as error:
            if any(words in str(error) for words in _OUT_OF_MEMORY):
                raise ModelMemoryError(
                    f"{self._graph}: the batch does not fit into memory. "
                    "Choose fewer pixels an image, or weights of a lower precision."
                ) from error
            raise ModelError(f"{self._graph}: failed to run ({_first_line(error)}).") from error
        return {
            name: np.asarray(value, dtype=np.float32)
            for name, value in zip(self._outputs, values, strict=True)
        }


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
