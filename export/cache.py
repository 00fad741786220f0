"""What the runtime calls when a checkpoint is opened whose bundle is not in the cache yet.

A bundle in the cache is for this machine: its int8 weights lie as the processor's kernels take them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from qvl_local.runtime.hardware import is_known_without_vnni
from qvl_local.runtime.model.bundle import Role
from qvl_local.runtime.model.checkpoints import Checkpoint

from .pipeline import export_bundle
from .recipe import Recipe


def export_into_cache(
    checkpoints: Mapping[Role, Path],
    folder: Path,
    *,
    names: Mapping[Role, str],
    precision: str,
    progress: Callable[[str, float], None] | None = None,
) -> None:
    """Make a complete bundle at `folder`, or nothing. Of two processes at once, the later finds it done.

    Registered in the entry point group `qvl_local.exporters`.
    """
    sources = {role: Checkpoint(path=path, name=names[role]) for role, path in checkpoints.items()}
    recipe = recipe_for_this_machine(precision)
    export_bundle(sources, folder, recipe=recipe, progress=progress, keep_existing=True)


def recipe_for_this_machine(precision: str) -> Recipe:
    """What a precision stands for, stored as this processor loads it fastest."""
    return replace(Recipe.of(precision), unsigned=is_known_without_vnni())
