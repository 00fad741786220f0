"""What tuning weights in blocks to pictures is worth: nf4, int4 and int8-weight of qvl-tiny, plain and tuned.

    python -m benchmarks.tuned_rounding [--precision nf4 int4 int8-weight] [--work DIR] [--results DIR]

Every precision is exported plain, tuned to pictures of the sample world, and tuned to pictures and words that
have nothing to do with it. All have the same bytes. Two questions are asked of each, against fp32: what the
embedder finds among 1,000 held-out pictures, and what the reranker says of the best 20 of 250.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from qvl_local.export.calibration import COMPENSATED_SCENES, Example
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import Recipe
from qvl_local.quant.accuracy.bench import Plan, measure_accuracy
from qvl_local.quant.accuracy.report import BundleReport, figure_object
from qvl_local.quant.accuracy.world import WorldSize, world_datasets
from qvl_local.runtime.model.bundle import open_bundle
from qvl_local.runtime.model.checkpoints import find_checkpoints

from benchmarks.runner import RESULTS, in_one_thread, record

NOTHING = WorldSize(images=0, image_questions=0, families=0, family_questions=0, clips=0, clip_questions=0)
FINDING = replace(NOTHING, images=1000, image_questions=600)
JUDGING = replace(NOTHING, images=250, image_questions=80)
WORDS = ("invoice", "lattice", "umbrella", "prosody", "tungsten", "verdict", "salad", "oxygen", "mortgage")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", nargs="+", default=["nf4", "int4", "int8-weight"])
    parser.add_argument("--work", type=Path, help="where to leave the bundles; a temporary folder without it")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    in_one_thread("benchmarks.tuned_rounding")
    with tempfile.TemporaryDirectory() as temporary:
        run(options.work or Path(temporary), options.precision, options.results)


def run(work: Path, precisions: list[str], results: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    rows = [export(work, "fp32", "plain")]
    rows += [export(work, name, tuned) for name in precisions for tuned in ("plain", "world", "foreign")]
    bundles = [open_bundle(work / row["folder"]) for row in rows]
    plan = Plan(dims=(256,), vectors=("float32",), rerank=False)
    found = measure_accuracy(bundles, bundles[0], world_datasets(FINDING), plan=plan)
    judged = measure_accuracy(bundles, bundles[0], world_datasets(JUDGING), plan=replace(plan, rerank=True))
    for row, finding, judging in zip(rows, found.bundles, judged.bundles, strict=True):
        row |= {"finding": figures(finding, rerank=False), "judging": figures(judging, rerank=True)}
        print(row, flush=True)
    print(record("tuned_rounding", {"rows": rows}, folder=results))


def export(work: Path, precision: str, tuned: str) -> dict[str, Any]:
    """A bundle of the pair, and what it is."""
    recipe = Recipe.of(precision)
    if tuned != "plain":
        recipe = replace(recipe, calibrated=("decoder",))
    folder = f"{precision}-{tuned}"
    start = time.perf_counter()
    manifest = export_bundle(
        find_checkpoints("tiny"),
        work / folder,
        recipe=recipe,
        examples=foreign_examples() if tuned == "foreign" else None,
    )
    return {
        "precision": precision,
        "tuned": tuned,
        "folder": folder,
        "bytes": sum(file.size for name, file in manifest.files.items() if name.endswith("_data")),
        "export_s": round(time.perf_counter() - start, 1),
    }


def foreign_examples(count: int = COMPENSATED_SCENES) -> list[Example]:
    """Blurred noise with words that qvl-tiny never met."""
    generator = np.random.default_rng(1)
    examples = []
    for _ in range(count):
        size = (*generator.integers(3, 24, 2), 3)
        noise = Image.fromarray(generator.integers(0, 256, size, np.uint8))
        picture = np.asarray(noise.resize((512, 512), Image.Resampling.BICUBIC))
        examples.append(Example(" ".join(generator.choice(WORDS, 6)), picture))
    return examples


def figures(report: BundleReport, *, rerank: bool) -> dict[str, Any]:
    row = report.headline(rerank=rerank)
    if row is None:
        raise SystemExit(f"{report.subject.label}: has no reranker.")
    return {
        "ndcg@10": figure_object(row.figures["ndcg@10"]),
        "kendall": row.kendall,
        "first_ten_shared": row.overlap,
        "agreement": None if report.agreement is None else asdict(report.agreement),
    }


if __name__ == "__main__":
    main()
