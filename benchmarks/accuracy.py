"""The full fidelity matrix of qvl-tiny: every precision, width, kind of vector, with and without reranking.

    python -m benchmarks.accuracy [--precision int8 nf4 ...] [--limit N] [--work DIR] [--results DIR]

Exports the pair at every precision that there is and measures all bundles against fp32 on the held-out
galleries of the sample world, as `qvl-local bench accuracy` does. Writes results/accuracy.json, with the wall
clock and the CPU time that it took, and results/accuracy.svg.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import Recipe
from qvl_local.export.recipe_file import shipped_recipes
from qvl_local.quant.accuracy.bench import Plan, Step, measure_accuracy
from qvl_local.quant.accuracy.plot import plot
from qvl_local.quant.accuracy.report import report_object
from qvl_local.quant.accuracy.world import FULL, world_datasets
from qvl_local.runtime.errors import MissingExtraError
from qvl_local.runtime.model.bundle import Bundle, open_bundle
from qvl_local.runtime.model.checkpoints import find_checkpoints

from benchmarks.runner import RESULTS, record

REFERENCE = "fp32"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    others = [name for name in shipped_recipes() if name != REFERENCE]
    parser.add_argument("--precision", nargs="+", choices=others, default=others)
    parser.add_argument("--limit", type=int, help="at most so many questions of each gallery")
    parser.add_argument("--work", type=Path, help="where to leave the bundles; a temporary folder without it")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(options.work or Path(temporary), options.precision, options.limit, options.results)


def run(work: Path, precisions: list[str], limit: int | None, results: Path) -> None:
    start = time.monotonic()
    made = [export(work / name, name) for name in (REFERENCE, *precisions)]
    bundles = [bundle for bundle in made if bundle is not None]
    exported = time.monotonic()
    datasets = world_datasets(FULL if limit is None else FULL.limited(limit))
    drawn = time.monotonic()
    report = measure_accuracy(bundles, bundles[0], datasets, plan=Plan(), progress=show)
    spent = os.times()
    timings = {
        "export_s": round(exported - start, 1),
        "draw_s": round(drawn - exported, 1),
        "measure_s": round(time.monotonic() - drawn, 1),
        "cpu_s": round(spent.user + spent.system + spent.children_user + spent.children_system, 1),
    }
    found = report_object(report)
    for bundle in found["bundles"]:
        del bundle["path"]
    path = record("accuracy", {"timings": timings, "report": found}, folder=results)
    (results / "accuracy.svg").write_text(plot(report), encoding="utf-8")
    print(f"{path}: {timings}")


def export(folder: Path, precision: str) -> Bundle | None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        export_bundle(find_checkpoints("tiny"), folder, recipe=Recipe.of(precision))
    except MissingExtraError as error:
        print(f"{precision}: left out. {error}")
        return None
    return open_bundle(folder)


def show(step: Step) -> None:
    left = "" if step.left_s is None else f", {step.left_s:.0f} s left"
    print(f"\r{step.label}: {step.fraction:.0%}{left}          ", end="", flush=True)


if __name__ == "__main__":
    main()
