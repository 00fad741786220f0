"""Execution providers of ONNX Runtime: which run a device, and how they are set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import BundleError, ModelError
from .protobuf import fields
from .storage import cache_folder

if TYPE_CHECKING:
    from .tensorrt_profiles import Profile

Device = Literal["cpu", "cuda", "tensorrt"]
DEVICES: tuple[str, ...] = get_args(Device)

PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
NAMES: dict[str, str] = {"cpu": "the CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}

_CUDA = {
    # Exact float32: TF32 would round the inputs of every product to 10 bits.
    "use_tf32": 0,
    # Memory grows by what is asked for; the default doubles it each time, up to all of the card.
    "arena_extend_strategy": "kSameAsRequested",
    # There is no convolution, so no time goes into comparing algorithms for one.
    "cudnn_conv_algo_search": "DEFAULT",
}
_WORKSPACE_BYTES = 4 << 30


def providers_for(onnxruntime: Any, device: Device, graph: Path) -> list[Any]:
    """What runs a graph: the device asked for first, then those for nodes that it does not take.

    Raises:
        ModelError: this onnxruntime does not have the device.
        BundleError: the graph cannot be read.
    """
    if device == "cpu":
        return [PROVIDERS["cpu"]]
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise ModelError(
            f"The device {device} was asked for, but this onnxruntime has no {NAMES[device]}. "
            "Install it with: pip uninstall onnxruntime && pip install 'qvl-local[gpu]', "
            "or choose the device cpu."
        )
    cuda = (PROVIDERS["cuda"], dict(_CUDA))
    if device == "cuda":
        return [cuda, PROVIDERS["cpu"]]
    return [(PROVIDERS["tensorrt"], _tensorrt(graph)), cuda, PROVIDERS["cpu"]]


def _tensorrt(graph: Path) -> dict[str, Any]:
    """Engines and timings are kept, and made for all sizes that the encoder runs, not for the first."""
    try:
        inputs = _inputs(graph.read_bytes())
        status = graph.stat()
    except (OSError, ValueError, IndexError) as error:
        raise BundleError(f"{graph}: cannot be read ({error}). Export the bundle again.") from error
    stamp = f"{graph.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    engines = cache_folder() / "engines" / "onnxruntime"
    folder = engines / hashlib.sha256(stamp.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{folder}: the cache folder cannot be made ({error.strerror}). Choose another: QVL_CACHE_DIR=DIR"
        ) from error
    from .tensorrt_profiles import RunLimits, free_profiles

    profiles = free_profiles(inputs, RunLimits())
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(engines),
        "trt_max_workspace_size": _WORKSPACE_BYTES,
        "trt_profile_min_shapes": _shapes(profiles, 0),
        "trt_profile_opt_shapes": _shapes(profiles, 1),
        "trt_profile_max_shapes": _shapes(profiles, 2),
    }


def _shapes(profiles: list[Profile], which: int) -> str:
    """`name:1x2x3` for every input of every profile."""
    return ",".join(
        f"{name}:{'x'.join(map(str, shapes[which]))}"
        for profile in profiles
        for name, shapes in profile.ranges.items()
    )


def _inputs(model: bytes) -> dict[str, tuple[int | str, ...]]:
    """Names and shapes of a graph's inputs; field numbers from `onnx.proto3`."""
    graph = next(value for number, value in fields(model) if number == 7 and isinstance(value, bytes))
    found = {}
    for number, value in fields(graph):
        if number == 11 and isinstance(value, bytes):
            name = b"".join(_messages(value, 1)).decode()
            tensor = b"".join(_messages(b"".join(_messages(value, 2)), 1))
            found[name] = tuple(map(_size, _messages(b"".join(_messages(tensor, 2)), 1)))
    return found


def _messages(message: bytes, wanted: int) -> list[bytes]:
    return [value for number, value in fields(message) if number == wanted and isinstance(value, bytes)]


def _size(dimension: bytes) -> int | str:
    _, value = next(fields(dimension))
    return value if isinstance(value, int) else value.decode()
