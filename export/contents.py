"""Everything of a bundle but its manifest: graphs with their weights, token tables, heads, copied files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from qvl_local.runtime.errors import BundleError
from qvl_local.runtime.model.bundle import Role, Table
from qvl_local.runtime.model.progress import Progress

from .bundle_writer import copy_files, write_graph, write_head, write_pooling, write_table
from .calibration import Example, edge_examples, world_examples
from .checkpoint import Checkpoint
from .decoder import build_decoder
from .dynamic import quantize_dynamically
from .linear import LinearFormat, Tuning
from .onnx_file import ElementType, Model, Place
from .plan import Plan, needs_scales_of_both
from .recipe import DYNAMIC, Recipe, Tower, tower_of
from .refit import refit_adapters
from .spool import Spool
from .tensorrt_operators import check_operators
from .tuning import format_of, tune, widest
from .vision import build_vision

_SPARE_BYTES = 64 << 20
_TABLE_TYPES = {"float32": ElementType.FLOAT, "float16": ElementType.FLOAT16}


@dataclass(frozen=True, slots=True)
class _Contents:
    """Graphs and token tables by their place in the bundle; those that two parts name are here once."""

    graphs: dict[str, Model]
    tables: dict[str, tuple[Checkpoint, Table]]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights, as they are going to be stored."""
        graphs = sum(weight.nbytes for model in self.graphs.values() for weight in model.weights)
        return graphs + sum(
            table.rows * table.columns * np.dtype(table.dtype).itemsize for _, table in self.tables.values()
        )


def write_contents(
    checkpoints: Mapping[Role, Checkpoint],
    plan: Plan,
    recipe: Recipe,
    examples: Sequence[Example] | None,
    spool: Spool,
    stage: Path,
    report: Progress,
) -> None:
    """Graphs, tables, heads and copied files; a file that two parts name is written once.

    Raises:
        BundleError: the disk has no room for it.
    """
    contents = _build(checkpoints, plan, recipe, examples, spool, report)
    total = contents.nbytes
    _check_space(stage, total)

    done = 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        report("writing", min(1.0, done / total))

    stored: dict[str, Place] = {}
    dynamic = {
        graph
        for part in plan.parts.values()
        for graph, precision in ((part.vision, recipe.vision), (part.decoder, recipe.decoder))
        if precision == DYNAMIC
    }
    for relative, model in contents.graphs.items():
        if relative in dynamic:  # its weights are made anew, so nothing of it can be shared
            write_graph(model, stage / relative, written=written, stored={})
            quantize_dynamically(stage / relative)
        else:
            write_graph(model, stage / relative, written=written, stored=stored)
    for relative, (checkpoint, table) in contents.tables.items():
        write_table(checkpoint, stage / relative, _TABLE_TYPES[table.dtype], written=written)
    for role, part in plan.parts.items():
        copy_files(checkpoints[role], stage / part.folder)
        if part.head is not None:
            write_head(checkpoints[role], stage / part.head)
        if role == "embedder":
            write_pooling(stage / part.folder, width=part.table.columns)
    report("writing", 1.0)


def _build(
    checkpoints: Mapping[Role, Checkpoint],
    plan: Plan,
    recipe: Recipe,
    examples: Sequence[Example] | None,
    spool: Spool,
    report: Progress,
) -> _Contents:
    """The graphs, calibrated where the recipe asks for it; no weight has been read for writing yet."""
    graphs: dict[str, Model] = {}
    tables: dict[str, tuple[Checkpoint, Table]] = {}
    for role, part in plan.parts.items():
        checkpoint = checkpoints[role]
        names = checkpoint.names()
        files: dict[Tower, str] = {"vision": part.vision, "decoder": part.decoder}
        missing = [tower for tower in recipe.tuned if files[tower] not in graphs]
        tuning = _tune(checkpoint, role, recipe, missing, examples, spool, report) if missing else {}
        if part.decoder not in graphs and needs_scales_of_both(recipe, plan.layout):
            for other in plan.parts.keys() - {role}:
                tuned = _tune(checkpoints[other], other, recipe, ["decoder"], examples, spool, report)
                tuning = widest(tuning, tuned)
        if part.vision not in graphs:
            precision = recipe.graph("vision", names, tuning)
            graphs[part.vision] = build_vision(checkpoint, precision, recipe.dialect)
        if part.decoder not in graphs:  # the first part is the base of a shared one
            precision = recipe.graph("decoder", names, tuning)
            if plan.layout.adapters:
                [other] = plan.parts.keys() - {role}
                progress = partial(report, "comparing")
                refit_adapters(
                    plan.layout.adapters, checkpoint, checkpoints[other], precision, progress=progress
                )
            graphs[part.decoder] = build_decoder(
                checkpoint, precision, recipe.dialect, adapters=plan.layout.adapters
            )
        tables.setdefault(part.table.file, (checkpoint, part.table))
    if recipe.flavour == "portable":
        for model in graphs.values():
            check_operators(model)
    return _Contents(graphs, tables)


def _tune(
    checkpoint: Checkpoint,
    role: Role,
    recipe: Recipe,
    towers: Sequence[Tower],
    examples: Sequence[Example] | None,
    spool: Spool,
    report: Progress,
) -> dict[str, Tuning]:
    """What calibration chooses for the layers of some towers."""
    names = checkpoint.names()
    formats = {tower: recipe.graph(tower, names).linear for tower in towers}

    def format_for(weight: str) -> LinearFormat | None:
        linear = formats.get(tower_of(weight))
        return None if linear is None else format_of(linear, weight)

    given = world_examples(recipe.pictures) if examples is None else examples
    if recipe.has_static_scales:
        given = [*given, *edge_examples()]
    progress = partial(report, "calibrating")
    return tune(checkpoint, role, given, format_for, spool=spool, progress=progress)


def _check_space(stage: Path, needed: int) -> None:
    free = shutil.disk_usage(stage).free
    if free < needed + _SPARE_BYTES:
        raise BundleError(
            f"{stage.parent}: the bundle needs {_size(needed + _SPARE_BYTES)} and {_size(free)} are free. "
            "Free some space, or choose another disk."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
