"""Measures a bundle that was just exported, and puts the figures into its manifest and its card.

The report is a small one: its figures say what the export cost, `qvl-local bench accuracy` says it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qvl_local.quant.accuracy.bench import Plan, Step, measure_accuracy
from qvl_local.quant.accuracy.card import write_into_bundle
from qvl_local.quant.accuracy.dataset import Dataset
from qvl_local.quant.accuracy.folder import read_dataset
from qvl_local.quant.accuracy.measured import default_dims
from qvl_local.quant.accuracy.reference import PRECISION, choose_reference, is_tiny
from qvl_local.quant.accuracy.world import BRIEF, world_datasets
from qvl_local.runtime.model.bundle import Bundle, open_bundle

Progress = Callable[[str, float], None]

# The width that is served and its half.
_WIDTHS = 2


def report_bundle(folder: Path, *, data: Path | None = None, progress: Progress | None = None) -> Bundle:
    """Measure the bundle in `folder` against fp32 of its checkpoints, and write the figures into it.

    Args:
        folder: a bundle.
        data: the user's folder of questions or photos; None is a little of the sample world, with its exact
            answers for qvl-tiny, with what the reference finds for other models.
        progress: told a step and its fraction done, in [0, 1].

    Raises:
        InputError: `data` cannot be used.
        ModelError: the reference cannot be made, or a bundle cannot be run; the bundle stays as it was.
    """
    tell = progress or _ignore
    bundle = open_bundle(folder)
    datasets = _datasets(bundle, data, tell)
    reference = choose_reference([bundle], progress=tell)
    dims = default_dims(bundle.part("embedder").dims)[:_WIDTHS]

    def step(now: Step) -> None:
        tell(now.label, now.fraction)

    report = measure_accuracy([bundle], reference, datasets, plan=Plan(dims=dims), progress=step)
    write_into_bundle(bundle, report)
    return open_bundle(folder)


def wants_report(bundle: Bundle) -> bool:
    """Whether a bundle is measured without being asked: a small pair whose weights were made coarser."""
    parts = bundle.manifest.parts
    exact = all(part.vision_precision == part.decoder_precision == PRECISION for part in parts.values())
    return "embedder" in parts and not exact and is_tiny(bundle)


def _datasets(bundle: Bundle, data: Path | None, tell: Progress) -> Sequence[Dataset]:
    if data is not None:
        return [read_dataset(data)]

    def drawn(done: int, total: int) -> None:
        tell("drawing sample pictures", done / total)

    datasets = world_datasets(BRIEF, progress=drawn)
    return datasets if is_tiny(bundle) else [dataset.by_reference() for dataset in datasets]


def _ignore(_step: str, _fraction: float) -> None:
    return None
