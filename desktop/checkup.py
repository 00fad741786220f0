"""What `doctor` finds out: machine, installation, folders, models at hand, what fits, what a photo costs.

Gathers facts into one record and judges them; prints nothing. Heavy parts are imported where they are asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qvl_local.runtime.errors import QvlError
from qvl_local.runtime.model.footprint import Workload

from .console import note
from .machine import Machine, can_write, free_bytes, read_machine
from .plans import ModelPlan, is_at_hand, plan_models
from .settings import Settings, qvl_version
from .text import size

if TYPE_CHECKING:
    from qvl_local.runtime.model.bundle_cache import OutdatedBundle

# Below this an index of some ten thousand photos may not fit.
LITTLE_SPACE = 1_000_000_000
# A photo of a phone camera, 4:3, and how many times it is embedded for the timing.
PHOTO_SIDES = (1600, 1200)
TIMED_RUNS = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that qvl-local writes to. `free_bytes` is None where the system does not tell."""

    path: str
    exists: bool
    writable: bool
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Engines:
    """Versions of what does the work; `providers` are ONNX Runtime's execution providers.

    `libraw` reads cameras' raw files; None without its extra.
    """

    python: str
    onnxruntime: str
    providers: tuple[str, ...]
    sqlite: str
    sqlite_vec: str
    apsw: str
    libraw: str | None


@dataclass(frozen=True, slots=True)
class ModelAtHand:
    """A model by its short name: in the package, whole in the Hugging Face cache, or still to be fetched."""

    name: str
    state: Literal["included", "downloaded", "not downloaded"]


@dataclass(frozen=True, slots=True)
class PhotoCost:
    """What one photo costs with a model: visual tokens, the size it is scaled to, the time to embed it."""

    model: str
    tokens: int
    width: int
    height: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything that `doctor` shows. `outdated`: exports in the cache that this version does not use.
    `place_names`: whether places have names here, which needs an extra. `problems` are what keeps qvl-local
    from working, with the remedy.
    """

    version: str
    machine: Machine
    engines: Engines
    library: Place
    cache: Place
    outdated: tuple[OutdatedBundle, ...]
    models: tuple[ModelAtHand, ...]
    plans: tuple[ModelPlan, ...]
    photo: PhotoCost | None
    place_names: bool
    problems: tuple[str, ...]


def check(settings: Settings, workload: Workload, *, precision: str | None = None) -> Checkup:
    """Look at everything; a model is loaded and timed only when that needs no download.

    `precision` is the one that plans are for; None means each.
    """
    from qvl_local.runtime.library.place_names import has_place_names
    from qvl_local.runtime.model.bundle_cache import outdated_bundles
    from qvl_local.runtime.model.storage import CACHE_VARIABLE, cache_folder

    engines = _engines()
    library, cache = _place(settings.library), _place(cache_folder())
    models = tuple(_models())
    machine = read_machine()
    photo, trouble = None, None
    try:
        # Where nothing can be written there is no model, and that is said already.
        photo = _photo_cost(settings.model or "tiny") if cache.writable else None
    except QvlError as error:
        trouble = str(error)
    return Checkup(
        version=qvl_version(),
        machine=machine,
        engines=engines,
        library=library,
        cache=cache,
        outdated=tuple(outdated_bundles()),
        models=models,
        plans=tuple(
            plan_models(
                settings.model,
                machine=machine,
                cache=Path(cache.path),
                workload=workload,
                precision=precision,
            )
        ),
        photo=photo,
        place_names=has_place_names(),
        problems=(
            *_place_problems("library", library, "--library DIR"),
            *_library_problems(settings.library),
            *_place_problems("model cache", cache, f"{CACHE_VARIABLE}=/some/folder"),
            *filter(None, [trouble]),
        ),
    )


def _engines() -> Engines:
    import platform

    import apsw
    import onnxruntime
    import sqlite_vec
    from qvl_local.runtime.model.raw_photo import libraw_version

    return Engines(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        onnxruntime=onnxruntime.__version__,
        providers=tuple(onnxruntime.get_available_providers()),
        sqlite=apsw.sqlite_lib_version(),
        sqlite_vec=sqlite_vec.__version__,
        apsw=apsw.apsw_version(),
        libraw=libraw_version(),
    )


def _place(folder: Path) -> Place:
    return Place(str(folder), folder.is_dir(), can_write(folder), free_bytes(folder))


def _place_problems(name: str, place: Place, choice: str) -> Iterator[str]:
    if not place.writable:
        yield f"{place.path}: the {name} cannot be written. Get access, or choose another folder: {choice}"
    elif place.free_bytes is not None and place.free_bytes < LITTLE_SPACE:
        yield f"{place.path}: less than 1 GB is free for the {name}. Make room, or choose another: {choice}"


def _library_problems(folder: Path) -> Iterator[str]:
    """Why a library that is there cannot be opened, or none can be made in a folder that is there."""
    from qvl_local.runtime.library.home import DATABASE, check_folder
    from qvl_local.runtime.library.library import Library

    if not folder.is_dir():
        return
    try:
        check_folder(folder)
        if not (folder / DATABASE).exists():
            return
        with Library.open(folder, create=False) as library:
            library.status()
    except QvlError as error:
        yield str(error)


def _models() -> Iterator[ModelAtHand]:
    from qvl_local.runtime.model.checkpoints import NAMES, TINY, sibling_names
    from qvl_local.runtime.model.hub import Hub
    from qvl_local.runtime.model.hub_listing import Reference

    yield ModelAtHand(TINY, "included")
    hub = Hub.of_this_machine()
    for name, repository in NAMES.items():
        pair = repository, next(sibling_names(repository))
        held = all(hub.held(Reference(one)) for one in pair)
        yield ModelAtHand(name, "downloaded" if held else "not downloaded")


def _photo_cost(model: str) -> PhotoCost | None:
    """Time the embedding of one synthetic photo, decoded already; None when the model is not ready for it.

    It is not when it would have to be downloaded, or exported at length.
    """
    if not is_at_hand(model):
        return None
    from PIL import Image
    from qvl_local.runtime import Embedder
    from qvl_local.runtime.model.pixels import fit_image_size

    embedder = Embedder.open(model)
    width, height = PHOTO_SIDES
    # Smooth and without meaning: what is in a picture does not change its cost.
    photo = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    embedder.embed([{"image": photo}])  # loads the graphs
    times = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        embedder.embed([{"image": photo}])
        times.append(time.perf_counter() - start)
    fitted_height, fitted_width = fit_image_size(height, width, embedder.budget)
    return PhotoCost(
        model=model,
        tokens=fitted_height * fitted_width // embedder.budget.factor**2,
        width=fitted_width,
        height=fitted_height,
        milliseconds=round(1000 * min(times), 3),
    )


def clean_cache() -> None:
    """Remove exports that another version of qvl-local made, and say on stderr what was removed.

    Raises:
        BundleError: one cannot be removed.
    """
    from qvl_local.runtime.model.bundle_cache import outdated_bundles, remove_outdated

    for bundle in outdated_bundles():
        remove_outdated(bundle)
        note(f"Removed {bundle.folder} ({size(bundle.size)}).")
