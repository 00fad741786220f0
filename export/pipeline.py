"""Checkpoint in, bundle out: the whole export in one function."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from qvl_local.runtime.errors import BundleError, InputError
from qvl_local.runtime.machine import installed_version
from qvl_local.runtime.model.bundle import (
    MANIFEST,
    Bundle,
    Manifest,
    Part,
    Role,
    Source,
    Table,
    open_bundle,
    record_files,
)
from qvl_local.runtime.model.checkpoints import Checkpoint as CheckpointFolder
from qvl_local.runtime.model.checkpoints import role_of, snapshot_revision
from qvl_local.runtime.model.fusion_weight import read_fusion
from qvl_local.runtime.model.ort_session import SessionOptions

from .bundle_writer import (
    PartLayout,
    copy_files,
    lay_out,
    write_graph,
    write_head,
    write_pooling,
    write_table,
)
from .calibration import Example, edge_examples, world_examples
from .card import write_card
from .checkpoint import EMBEDDINGS, Checkpoint
from .decoder import build_decoder
from .dynamic import check_optimum, quantize_dynamically
from .layout import AskedLayout, DecoderLayout, choose_layout
from .linear import LinearFormat, Tuning
from .onnx_file import ElementType, Model, Place
from .parity import check_parity, record_parity
from .recipe import DYNAMIC, PRECISIONS, Recipe, Tolerance, Tower, is_layer, tower_of
from .spool import Spool, open_spool
from .staging import check_target, locked, staged, storage_errors
from .tensorrt_operators import check_operators
from .tuning import format_of, tune, widest
from .vision import build_vision

Progress = Callable[[str, float], None]

_SPARE_BYTES = 64 << 20


def export_bundle(
    sources: Mapping[Role, CheckpointFolder],
    output: Path,
    *,
    recipe: Recipe,
    layout: AskedLayout = "auto",
    examples: Sequence[Example] | None = None,
    progress: Progress | None = None,
    keep_existing: bool = False,
) -> Manifest:
    """Export one checkpoint or a pair into the bundle folder `output`, which appears whole or not at all.

    Args:
        sources: checkpoint folders and what their user calls them.
        output: a new folder, an empty one, or a bundle to replace.
        recipe: precisions, flavour, width.
        layout: one decoder for both models of a pair or two; see `choose_layout`.
        examples: what a recipe that tunes layers to data is calibrated with; the sample world when not given.
        progress: told a stage ("waiting", "reading", "comparing", "calibrating", "writing", "checking",
            "finishing") and how far it is, in [0, 1].
        keep_existing: take the bundle that is there, or that another process is just making, as it is.

    Raises:
        InputError: nothing to export, or something that is not a bundle is in the way.
        CheckpointError: a checkpoint is incomplete or damaged.
        BundleError: the bundle cannot be written.
        ParityError: the bundle does not reproduce a checkpoint.
    """
    report = progress or _ignore
    output = output.absolute()
    if not sources:
        raise InputError("There is nothing to export. Name a model, or a checkpoint folder.")
    check_target(output)
    with (
        locked(output, waiting=lambda: report("waiting", 0.0)),
        storage_errors(output),
        open_spool(output.parent) as spool,
    ):
        if keep_existing and (output / MANIFEST).is_file():
            return open_bundle(output).manifest
        if DYNAMIC in (recipe.vision, recipe.decoder):
            check_optimum()
        checkpoints = {role: Checkpoint(sources[role].path) for role in sorted(sources)}
        _check_dims(recipe, checkpoints, sources)
        recipe.check_layers({name for checkpoint in checkpoints.values() for name in checkpoint.names()})
        plan = _plan(sources, checkpoints, recipe, layout, examples, spool, report)
        with staged(output) as stage:
            _write(checkpoints, plan, recipe, examples, spool, stage, report)
            report("checking", 0.0)
            record_parity(checkpoints, stage)
            draft = Manifest(
                flavour=recipe.flavour,
                opset=recipe.opset,
                created_by=_creator(),
                layout=plan.layout.name,
                adapters=plan.layout.record(),
                layout_reason=plan.layout.reason,
                parts=plan.parts,
                files={},
                parity=(),
                fusion=plan.fusion,
            )
            tolerance = _tolerance(recipe, plan.layout)
            figures = []
            for number, role in enumerate(plan.parts):
                report("checking", (number + 1) / (len(plan.parts) + 1))
                figures.append(check_parity(Bundle(stage, draft), role, tolerance, SessionOptions()))
            report("finishing", 0.0)
            manifest = replace(draft, parity=tuple(figures))
            write_card(stage / "README.md", manifest, sources=[source.path for source in sources.values()])
            manifest = replace(manifest, files=record_files(stage, _files(stage)))
            (stage / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        report("finishing", 1.0)
    return manifest


def name_sources(folders: Sequence[Path]) -> dict[Role, CheckpointFolder]:
    """One or two checkpoint folders by role: by "reranker" in a folder's name, else embedder first.

    Raises:
        InputError: not one or two folders, or two of one role.
    """
    if len(folders) not in (1, 2):
        raise InputError(
            f"An export takes an embedder, a reranker, or both; {len(folders)} folders were given."
        )
    roles: list[Role] = [role_of(folder.name) for folder in folders]
    if len(roles) == 2 and roles[0] == roles[1]:
        if roles[0] == "reranker":
            raise InputError(
                f"{folders[0]} and {folders[1]} are both rerankers. Give an embedder and a reranker."
            )
        roles[1] = "reranker"
    return {role: CheckpointFolder(path=folder, name=str(folder)) for role, folder in zip(roles, folders)}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is going to be written."""

    parts: dict[Role, Part]
    layout: DecoderLayout
    fusion: dict[str, float]


def _plan(
    sources: Mapping[Role, CheckpointFolder],
    checkpoints: Mapping[Role, Checkpoint],
    recipe: Recipe,
    asked: AskedLayout,
    examples: Sequence[Example] | None,
    spool: Spool,
    report: Progress,
) -> _Plan:
    """Hash the checkpoints, find what they share, and decide every file's place."""
    hashes = {}
    for number, (role, checkpoint) in enumerate(checkpoints.items()):
        step = partial(_report_part, report, "reading", number, len(checkpoints))
        hashes[role] = checkpoint.content_hash(step)
    layout = choose_layout(
        checkpoints,
        asked,
        quantized=recipe.shares_decoders,
        spool=spool,
        progress=partial(report, "comparing"),
    )
    places = lay_out(
        list(checkpoints),
        vision=recipe.vision,
        decoder=recipe.decoder,
        shared_vision=_same([(c.prefix_digest("visual."), c.config.vision) for c in checkpoints.values()]),
        shared_table=_same([c.digest(EMBEDDINGS) for c in checkpoints.values()]),
        shared_decoder=layout.name == "shared",
    )
    parts = {
        role: replace(
            _part(sources[role], hashes[role], checkpoints[role], places[role], recipe),
            adapter=layout.switch(role),
            calibration=_calibration(recipe, layout, examples),
        )
        for role in checkpoints
    }
    fusion = read_fusion(checkpoints["reranker"].folder) if "reranker" in checkpoints else {}
    return _Plan(parts, layout, fusion)


def _calibration(recipe: Recipe, layout: DecoderLayout, examples: Sequence[Example] | None) -> str | None:
    """What the manifest says of calibration."""
    if not recipe.tuned:
        return None
    seen = "sample world"
    if examples is not None:
        seen = f"{len(examples)} own picture{'' if len(examples) == 1 else 's'}"
    return f"{seen}, both models" if _scales_of_both(recipe, layout) else seen


def _scales_of_both(recipe: Recipe, layout: DecoderLayout) -> bool:
    """Do static scales have to hold the inputs of both models?"""
    return layout.name == "shared" and recipe.has_static_scales


def _tolerance(recipe: Recipe, layout: DecoderLayout) -> Tolerance:
    """The recipe's tolerance, but not below that of float16, which adapters are stored in."""
    tolerance, half = recipe.tolerance, PRECISIONS["fp16"].tolerance
    if not layout.adapters:
        return tolerance
    return Tolerance(
        max_abs_diff=max(tolerance.max_abs_diff, half.max_abs_diff),
        min_cosine=min(tolerance.min_cosine, half.min_cosine),
    )


def _part(
    source: CheckpointFolder, sha256: str, checkpoint: Checkpoint, layout: PartLayout, recipe: Recipe
) -> Part:
    text = checkpoint.config.text
    return Part(
        source=Source(
            name=source.name,
            revision=source.revision or snapshot_revision(source.path.resolve()),
            sha256=sha256,
        ),
        folder=layout.folder,
        vision=layout.vision,
        decoder=layout.decoder,
        table=Table(
            file=layout.table,
            dtype=recipe.table_type,
            rows=text.vocab_size,
            columns=text.hidden_size,
        ),
        vision_precision=recipe.vision,
        decoder_precision=recipe.decoder,
        dims=recipe.dims or text.hidden_size,
        head=layout.head,
        exceptions={
            **recipe.exceptions(checkpoint.names()),
            **recipe.padded(
                {name: _columns(checkpoint, name) for name in checkpoint.names() if is_layer(name)}
            ),
        },
    )


def _write(
    checkpoints: Mapping[Role, Checkpoint],
    plan: _Plan,
    recipe: Recipe,
    examples: Sequence[Example] | None,
    spool: Spool,
    stage: Path,
    report: Progress,
) -> None:
    """Graphs, tables, heads and copied files; a file that two parts name is written once."""
    models: dict[str, Model] = {}
    tables: dict[str, tuple[Checkpoint, Table]] = {}
    for role, part in plan.parts.items():
        checkpoint = checkpoints[role]
        names = checkpoint.names()
        graphs: dict[Tower, str] = {"vision": part.vision, "decoder": part.decoder}
        missing = [tower for tower in recipe.tuned if graphs[tower] not in models]
        tuning = _tune(checkpoint, role, recipe, missing, examples, spool, report) if missing else {}
        if part.decoder not in models and _scales_of_both(recipe, plan.layout):
            for other in plan.parts.keys() - {role}:
                tuned = _tune(checkpoints[other], other, recipe, ["decoder"], examples, spool, report)
                tuning = widest(tuning, tuned)
        if part.vision not in models:
            precision = recipe.graph("vision", names, tuning)
            models[part.vision] = build_vision(checkpoint, precision, recipe.dialect)
        if part.decoder not in models:  # the first part is the base of a shared one
            precision = recipe.graph("decoder", names, tuning)
            models[part.decoder] = build_decoder(
                checkpoint, precision, recipe.dialect, adapters=plan.layout.adapters
            )
        tables.setdefault(part.table.file, (checkpoint, part.table))
    if recipe.flavour == "portable":
        for model in models.values():
            check_operators(model)
    total = sum(_weight_bytes(model) for model in models.values())
    total += sum(table.rows * table.columns * np.dtype(table.dtype).itemsize for _, table in tables.values())
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
    for relative, model in models.items():
        if relative in dynamic:  # its weights are made anew, so nothing of it can be shared
            write_graph(model, stage / relative, written=written, stored={})
            quantize_dynamically(stage / relative)
        else:
            write_graph(model, stage / relative, written=written, stored=stored)
    for relative, (checkpoint, table) in tables.items():
        write_table(checkpoint, stage / relative, _TABLE_TYPES[table.dtype], written=written)
    for role, part in plan.parts.items():
        copy_files(checkpoints[role], stage / part.folder)
        if part.head is not None:
            write_head(checkpoints[role], stage / part.head)
        if role == "embedder":
            write_pooling(stage / part.folder, width=part.table.columns)
    report("writing", 1.0)


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


_TABLE_TYPES = {"float32": ElementType.FLOAT, "float16": ElementType.FLOAT16}


def _weight_bytes(model: Model) -> int:
    return sum(weight.nbytes for weight in model.weights)


def _check_space(stage: Path, needed: int) -> None:
    free = shutil.disk_usage(stage).free
    if free < needed + _SPARE_BYTES:
        raise BundleError(
            f"{stage.parent}: the bundle needs {_size(needed + _SPARE_BYTES)} and {_size(free)} are free. "
            "Free some space, or choose another disk."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _check_dims(
    recipe: Recipe, checkpoints: Mapping[Role, Checkpoint], sources: Mapping[Role, CheckpointFolder]
) -> None:
    embedder = checkpoints.get("embedder")
    if recipe.dims is None or embedder is None:
        return
    width = embedder.config.text.hidden_size
    if recipe.dims > width:
        raise InputError(
            f"The embedder {sources['embedder'].name} has {width} dimensions; {recipe.dims} were asked for. "
            f"Ask for {width} or fewer."
        )


def _files(stage: Path) -> list[str]:
    return [path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()]


def _columns(checkpoint: Checkpoint, name: str) -> int:
    return math.prod(checkpoint.stored(name).shape[1:])


def _same(values: Sequence[object]) -> bool:
    return all(value == values[0] for value in values)


def _creator() -> str:
    return " ".join(filter(None, ("qvl-local", installed_version())))


def _report_part(report: Progress, stage: str, number: int, count: int, done: float) -> None:
    report(stage, (number + done) / count)


def _ignore(_stage: str, _fraction: float) -> None:
    return None
