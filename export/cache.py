"""What the runtime calls when a checkpoint is opened whose bundle is not in the cache yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

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
    export_bundle(sources, folder, recipe=Recipe.of(precision), progress=progress, keep_existing=True)
