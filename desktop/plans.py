"""Which precision and layout of a model fits this machine, with the arithmetic, for `doctor`.

Brings together the planner's counting and the machine's facts; prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qvl_local.runtime.errors import InputError, QvlError
from qvl_local.runtime.hardware import first_gpu
from qvl_local.runtime.model.config import ModelConfig, load_config
from qvl_local.runtime.model.footprint import Workload, checkpoint_bytes
from qvl_local.runtime.model.hub import Hub
from qvl_local.runtime.model.hub_listing import Reference
from qvl_local.runtime.model.planner import Budget, Plan, is_small, plans, recommend
from qvl_local.runtime.model.published import published_config, published_name
from qvl_local.runtime.model.room import disk_of
from qvl_local.runtime.model.weight_formats import STORAGE

from .machine import Machine
from .text import count, size

if TYPE_CHECKING:
    from qvl_local.runtime.model.bundle import Role
    from qvl_local.runtime.model.checkpoints import Checkpoint

LAYOUT_WORDS = {"separate": "two decoders", "shared": "one decoder, adapters"}
PLACE_WORDS = {"cpu": "CPU", "cuda": "GPU"}


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What a pair of models takes in one place, in every way it can be exported, the best way first.

    `hub_folder` is where its download goes and stays, `cache_folder` where its export does.
    """

    model: str
    budget: Budget
    workload: Workload
    options: tuple[Plan, ...]
    recommended: Plan
    hub_folder: str
    cache_folder: str


def main_options(found: ModelPlan) -> list[Plan]:
    """One for each precision: the layout that an export takes by itself, and the recommended one."""
    first = {option.precision: option for option in reversed(found.options)}
    return [
        option for option in found.options if option == found.recommended or option == first[option.precision]
    ]


def plan_models(
    model: str | None,
    *,
    machine: Machine,
    cache: Path,
    workload: Workload,
    precision: str | None = None,
) -> Iterator[ModelPlan]:
    """Plans for the model in question, or for both published sizes; on the CPU, and on a GPU if there is one.

    A model whose shapes are not known without a download is left out. `cache` is the folder of exports.
    `precision`: of these plans alone.

    Raises:
        InputError: nothing is known of that precision.
    """
    if precision is not None and precision not in STORAGE:
        raise InputError(f"--precision {precision}: cannot be planned. Choose one of: {', '.join(STORAGE)}.")
    hub_folder = Hub.of_this_machine().cache
    exports, downloads = disk_of(cache), disk_of(hub_folder)
    budget = Budget(
        "cpu",
        machine.memory_bytes,
        disk=None if exports is None else exports.free,
        hub_disk=None if downloads is None else downloads.free,
        is_one_disk=exports is not None and downloads is not None and exports.device == downloads.device,
    )
    budgets = [budget]
    gpu = first_gpu(machine.gpus)
    if gpu is not None:
        budgets.append(replace(budget, place="cuda", memory=gpu.memory_bytes))
    for name in [model] if model is not None else ["2b", "8b"]:
        config = _shapes(name)
        if config is None:
            continue
        download = _lacking(name) * checkpoint_bytes(config)
        for budget in budgets:
            options = tuple(
                plans(config, budget=budget, workload=workload, precision=precision, download=download)
            )
            if options:
                yield ModelPlan(
                    name, budget, workload, options, recommend(options), str(hub_folder), str(cache)
                )


def arithmetic(found: ModelPlan) -> str:
    """How the recommended way adds up, in one sentence."""
    one, budget = found.recommended, found.budget
    decoders = f"{size(one.decoder_held)} decoder"
    if one.layout == "shared":
        decoders += f" + {size(one.adapters_held)} adapters"
    else:
        decoders = f"2 × {decoders}"
    held = f"{size(one.vision_held)} vision tower + {decoders}"
    parts = [held, f"{size(one.work)} for {_photos(found.workload)}"]
    if one.process:
        parts.append(f"{size(one.process)} for the process")
    needs = f"{' + '.join(parts)} = {size(one.memory)}"
    if budget.usable is None or budget.memory is None:
        return f"{needs}; how much memory there is, the system does not tell"
    left = size(budget.memory - budget.usable)
    return f"{needs} of {size(budget.usable)} ({size(budget.memory)} less {left} for everything else)"


def disk_arithmetic(found: ModelPlan) -> str:
    """What goes where on the disk: download and export, and what is free there."""
    one, budget = found.recommended, found.budget
    export = f"{size(one.disk)} export"
    if not one.download:
        return f"disk: {export}{_of_free(budget.disk)}; nothing is to be downloaded"
    download = f"{size(one.download)} download, which stays beside it"
    if budget.is_one_disk:
        return f"disk: {export} + {download} = {size(one.disk + one.download)}{_of_free(budget.disk)}"
    return f"disk: {export}{_of_free(budget.disk)}; {download} on its own disk,{_of_free(budget.hub_disk)}"


def _of_free(free: int | None) -> str:
    return ", how much is free the system does not tell" if free is None else f" of {size(free)} free"


def verdict(found: ModelPlan) -> str:
    """`2b on the CPU: int8, two decoders`, or that nothing fits; and why it is no better precision."""
    one = found.recommended
    place = f"{found.model} on the {PLACE_WORDS[found.budget.place]}"
    how = f"{one.precision}, {LAYOUT_WORDS[one.layout]}"
    if one.fits_memory is False:
        return f"{place}: nothing fits; {how}, takes least"
    return f"{place}: {how}{_fallback(found)}{_passed_over(found)}{_disk_verdict(one)}"


def _disk_verdict(one: Plan) -> str:
    if one.fits_disk is not False:
        return ""
    return f"; fits into memory, but not on the disk{' with its download' if one.download else ''}"


def _passed_over(found: ModelPlan) -> str:
    """Why a better precision, of which one layout fits, is not the recommended one."""
    one = found.recommended
    better = dict.fromkeys(
        option.precision for option in found.options[: found.options.index(one)] if option.fits_memory
    )
    better.pop(one.precision, None)
    if not better:
        return ""
    *names, last = better
    names = [", ".join(names), last] if names else [last]
    return f". {' and '.join(names)} would fit only if the models can share a decoder, which shows at export"


def _fallback(found: ModelPlan) -> str:
    """What becomes of the shared layout where the models differ by too much."""
    one = found.recommended
    if one.layout == "separate":
        return ""
    other = next(
        option
        for option in found.options
        if option.precision == one.precision and option.layout == "separate"
    )
    fallback = "would not fit" if other.fits_memory is False else "would fit too"
    return f"; if the models differ by too much for that, two decoders {fallback}"


def _photos(workload: Workload) -> str:
    return f"{count(workload.photos, 'photo')} of {workload.tokens:,} tokens"


def is_at_hand(model: str) -> bool:
    """Whether a model opens without a download and without a long export; True for what is unknown."""
    from qvl_local.runtime.model.resolve import is_exported

    try:
        checkpoints = _held(model)
        if checkpoints is None or not checkpoints:
            return checkpoints is None
        config = load_config(next(iter(checkpoints.values())).path)
        return is_small(config) or is_exported(checkpoints)
    except QvlError:  # opening it says why
        return True


def _shapes(model: str) -> ModelConfig | None:
    """A model's shapes, if they can be had without a download."""
    from qvl_local.runtime.model.bundle import holds_bundle
    from qvl_local.runtime.model.storage import folder_named

    folder = folder_named(model)
    try:
        if holds_bundle(folder):
            return load_config(folder)
        checkpoints = _held(model)
        if checkpoints:
            return load_config(next(iter(checkpoints.values())).path)
    except QvlError:  # said elsewhere, when the model is opened
        return None
    return published_config(published_name(model) or "")


def _lacking(model: str) -> int:
    """How many models of a published pair are to be downloaded; 0 for any other."""
    from qvl_local.runtime.model.checkpoints import reference_of, sibling_names
    from qvl_local.runtime.model.storage import folder_named

    reference = None if folder_named(model).exists() else reference_of(model)
    if reference is None or published_name(model) is None:
        return 0
    names = (reference.repository, next(sibling_names(reference.repository)))
    hub = Hub.of_this_machine()
    return sum(hub.held(Reference(name)) is None for name in names)


def _held(model: str) -> dict[Role, Checkpoint] | None:
    """Checkpoints on this machine; empty where they would be downloaded, None for what is no checkpoint."""
    from qvl_local.runtime.model.bundle import holds_bundle
    from qvl_local.runtime.model.checkpoints import find_checkpoints, reference_of
    from qvl_local.runtime.model.storage import folder_named

    folder = folder_named(model)
    reference = None if folder.exists() else reference_of(model)
    if reference is None:
        return None if holds_bundle(folder) else find_checkpoints(model)
    if Hub.of_this_machine().held(reference) is None:
        return {}
    return find_checkpoints(model, offline=True)
