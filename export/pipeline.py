"""Checkpoint in, bundle out: the whole export in one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qvl_local.runtime.errors import InputError
from qvl_local.runtime.machine import installed_version
from qvl_local.runtime.model.bundle import (
    MANIFEST,
    Bundle,
    Manifest,
    Role,
    open_bundle,
    record_files,
)
from qvl_local.runtime.model.checkpoints import Checkpoint as CheckpointFolder
from qvl_local.runtime.model.checkpoints import role_of
from qvl_local.runtime.model.ort_session import SessionOptions
from qvl_local.runtime.model.progress import Progress, no_progress

from .calibration import Example
from .card import write_card
from .checkpoint import Checkpoint
from .contents import write_contents
from .dynamic import check_optimum
from .layout import AskedLayout
from .parity import check_parity, record_parity
from .plan import check_dims, make_plan, tolerance_of
from .recipe import DYNAMIC, Recipe
from .spool import open_spool
from .staging import check_target, locked, staged, storage_errors


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
    report = progress or no_progress
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
        check_dims(recipe, checkpoints, sources)
        recipe.check_layers({name for checkpoint in checkpoints.values() for name in checkpoint.names()})
        plan = make_plan(sources, checkpoints, recipe, layout, examples, spool, report)
        with staged(output) as stage:
            write_contents(checkpoints, plan, recipe, examples, spool, stage, report)
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
            tolerance = tolerance_of(recipe, plan.layout)
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


def _files(stage: Path) -> list[str]:
    return [path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()]


def _creator() -> str:
    return " ".join(filter(None, ("qvl-local", installed_version())))
