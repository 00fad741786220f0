"""The seam between a model and what runs it: ONNX Runtime or TensorRT on a bundle, others on a checkpoint.

A backend is found through the entry point group "qvl_local.backends" by its name, so that the runtime never
imports one: "torch" lives in the quantization package and needs an extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, get_args

from ..errors import InputError, ModelError, ModelNotFoundError
from .bundle import Role, holds_bundle
from .checkpoints import Checkpoint, find_checkpoints
from .ort_engine import OrtEngine
from .ort_session import SessionOptions
from .progress import Progress
from .resolve import resolve
from .session import Engine
from .storage import folder_named

BackendName = Literal["onnx", "tensorrt", "torch"]
BACKENDS: tuple[str, ...] = get_args(BackendName)
GROUP = "qvl_local.backends"


class Backend(Protocol):
    """What an entry point of the group is: it opens one checkpoint."""

    def __call__(
        self, checkpoint: Checkpoint, role: Role, *, precision: str | None, options: SessionOptions
    ) -> Engine:
        """Open a checkpoint; weights may load later.

        Raises:
            InputError: a precision that this backend does not have.
            MissingExtraError: a library that it needs is not installed.
            ModelError: the device cannot be had, or the checkpoint cannot be used.
        """
        ...


def open_engine(
    model: str | Path,
    role: Role,
    *,
    backend: BackendName,
    precision: str | None,
    options: SessionOptions,
    progress: Progress | None = None,
) -> Engine:
    """One model of a pair, ready to run; arguments and errors as for `PairModel.open`."""
    if backend not in BACKENDS:
        raise InputError(f"Unknown backend {backend!r}. Use one of: {', '.join(BACKENDS)}.")
    if backend == "onnx":
        place: Literal["cpu", "cuda"] = "cpu" if options.device == "cpu" else "cuda"
        bundle = resolve(model, precision=precision, device=place, progress=progress)
        if options.device == "tensorrt" and bundle.manifest.flavour != "portable":
            raise InputError(
                f"{model}: is of the flavour {bundle.manifest.flavour}, of which TensorRT reads little. "
                f"Make another bundle: qvl-local export {model} --flavour portable --precision fp16 -o DIR"
            )
        return OrtEngine(bundle, role, options)
    is_bundle = holds_bundle(folder_named(model))
    if backend == "tensorrt":
        if not is_bundle:
            raise InputError(
                f"{model}: is not a bundle; the backend tensorrt runs engines that were built from one. "
                f"Make it: qvl-local export {model} --tensorrt -o DIR, and give DIR as the model."
            )
        from .tensorrt_backend import TensorrtEngine

        return TensorrtEngine(resolve(model, precision=precision), role, options)
    if is_bundle:
        raise InputError(
            f"{model}: is an exported bundle, which the backend {backend} does not run. "
            "Give the checkpoint that it was made from, or choose the backend onnx."
        )
    if options.device == "tensorrt":
        raise InputError(f"The backend {backend} runs on the CPU or with CUDA: --device cpu or cuda.")
    open_checkpoint = _registered(backend)
    checkpoint = find_checkpoints(model, progress=progress).get(role)
    if checkpoint is None:
        raise ModelNotFoundError(f"{model}: there is no {role} with it. Name the checkpoint of one.")
    return open_checkpoint(checkpoint, role, precision=precision, options=options)


def _registered(name: str) -> Backend:
    """The backend that this installation registers under a name."""
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=name):
        backend: Backend = point.load()
        return backend
    raise ModelError(
        f"The backend {name} is not registered. "
        "Install qvl-local again: pip install --force-reinstall qvl-local"
    )
