"""From what a user names to a bundle: a name, a Hugging Face id, a checkpoint folder or a bundle folder.

name or id  -> checkpoint folders      `checkpoints`, which downloads them once
checkpoints -> precision               what is asked for, or what the planner says for this machine
both        -> bundle in the cache     `bundle_cache`, which exports them once
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import InputError, ParityError
from .bundle import Bundle, Role, holds_bundle, open_bundle, precision_name
from .bundle_cache import export_once, is_refused, note_refusal, was_exported
from .checkpoints import Checkpoint, find_checkpoints
from .config import load_config
from .progress import Progress, no_progress
from .storage import folder_named

if TYPE_CHECKING:
    from .planner import Budget


def resolve(
    model: str | Path,
    *,
    precision: str | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    progress: Progress | None = None,
) -> Bundle:
    """The bundle for a model, exported into the cache if need be.

    Args:
        model: "tiny", "2b", "8b", a Hugging Face id, a checkpoint folder, or a bundle folder.
        precision: of the weights; None is what the planner recommends for this machine (fp32 for small models
            on the CPU). A bundle folder has its own.
        device: where the model is to run, for the planner.
        progress: told a step's name and its fraction done, in [0, 1].

    Raises:
        ModelNotFoundError: no model of that name, folder or id.
        CheckpointError: the checkpoint cannot be used.
        BundleError: the bundle cannot be used.
    """
    folder = folder_named(model)
    if holds_bundle(folder):
        bundle = open_bundle(folder)
        if precision is not None:
            _check_precision(bundle, precision)
        return bundle
    export_bytes = partial(_export_bytes, str(model), precision=precision, device=device)
    checkpoints = find_checkpoints(model, progress=progress, export_bytes=export_bytes)
    if precision is not None:
        return export_once(checkpoints, precision=precision, progress=progress)
    return export_recommended(checkpoints, device=device, progress=progress)


def export_recommended(
    checkpoints: Mapping[Role, Checkpoint],
    *,
    device: Literal["cpu", "cuda"],
    progress: Progress | None = None,
) -> Bundle:
    """The cached bundle at the best precision that this machine can hold and that reproduces the checkpoints.

    A precision whose graphs strayed too far from a checkpoint is remembered and not tried again.

    Raises:
        CheckpointError: a checkpoint cannot be used.
        ParityError: no precision reproduces it.
    """
    *others, last = recommended_precisions(checkpoints, device=device)
    for precision in others:
        if is_refused(checkpoints, precision=precision):
            continue
        try:
            return export_once(checkpoints, precision=precision, progress=progress)
        except ParityError as error:
            note_refusal(checkpoints, str(error), precision=precision)
            report = progress or no_progress
            report(f"{precision} strays too far from this model; another precision is tried.", 0.0)
    return export_once(checkpoints, precision=last, progress=progress)


def is_exported(checkpoints: Mapping[Role, Checkpoint], *, device: Literal["cpu", "cuda"] = "cpu") -> bool:
    """Whether the bundle that `resolve` would take is in the cache. Quick: no weights are read."""
    return any(
        was_exported(checkpoints, precision=precision)
        for precision in recommended_precisions(checkpoints, device=device)
    )


def recommended_precisions(
    checkpoints: Mapping[Role, Checkpoint], *, device: Literal["cpu", "cuda"]
) -> list[str]:
    """The precisions at which these checkpoints fit this machine, the best first.

    Raises:
        CheckpointError: their config.json cannot be used.
    """
    from . import planner

    config = load_config(next(iter(checkpoints.values())).path)
    return planner.recommended_precisions(config, budget=_budget(device))


def _budget(device: Literal["cpu", "cuda"]) -> Budget:
    from .. import hardware
    from . import planner

    if device == "cuda":
        gpu = hardware.first_gpu(hardware.read_gpus())
        return planner.Budget("cuda", None if gpu is None else gpu.memory_bytes)
    return planner.Budget("cpu", hardware.memory_bytes())


def _export_bytes(model: str, *, precision: str | None, device: Literal["cpu", "cuda"]) -> int:
    """What the export of a published model takes at least; 0 where its shapes are not known beforehand."""
    from . import planner
    from .published import published_config, published_name

    config = published_config(published_name(model) or "")
    if config is None:
        return 0
    budget = _budget(device)
    wanted = precision or planner.recommended_precisions(config, budget=budget)[0]
    return min((one.disk for one in planner.plans(config, budget=budget, precision=wanted)), default=0)


def _check_precision(bundle: Bundle, precision: str) -> None:
    for part in bundle.manifest.parts.values():
        if precision not in (part.decoder_precision, precision_name(part.decoder_precision)):
            raise InputError(
                f"{bundle.path}: is a bundle of {precision_name(part.decoder_precision)} weights, not "
                f"{precision}. "
                "Leave the precision out, or export another bundle."
            )
