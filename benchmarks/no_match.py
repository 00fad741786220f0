"""When a search says that nothing matches: P(yes) of the best hit, with and without an answer in the library.

    python -m benchmarks.no_match [--photos 120] [--clips 12] [--queries 110] [--work DIR] [--smoke]

Queries of the sample world, written about scenes of this library or of others; the world's exact relevance
says whether the library has an answer. The bound in use is `NO_MATCH_BELOW` in runtime/library/no_match.py.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from qvl_local.runtime import Library
from qvl_local.runtime.library.no_match import NO_MATCH_BELOW
from qvl_local.runtime.world.album import plan_album
from qvl_local.runtime.world.demo import make_sample_library
from qvl_local.runtime.world.queries import Style, query

from benchmarks.runner import record

BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STYLES = (Style.TERSE, Style.SHORT, Style.PARTIAL)
LIBRARY_SEED, OTHER_SEEDS, QUERY_SEED = 11, range(50, 58), 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--queries", type=int, default=110, help="of each kind")
    parser.add_argument("--work", type=Path, help="kept and used again; a temporary folder unless given")
    parser.add_argument("--smoke", action="store_true", help="a few queries, nothing is recorded")
    options = parser.parse_args()
    sizes = (8, 2, 3) if options.smoke else (options.photos, options.clips, options.queries)
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(Path(temporary) if options.work is None else options.work.absolute(), *sizes)
    for row in result["bounds"]:
        print(f"{row['bound']:4}  {row['answered_refused']:6.1%}  {row['unanswered_refused']:6.1%}")
    if not options.smoke:
        print(record("no_match", result))


def measure(work: Path, photos: int, clips: int, queries: int) -> dict[str, Any]:
    items = make_sample_library(work / "pictures", photos=photos, clips=clips, seed=LIBRARY_SEED)
    own = [moment.scene for item in items for moment in item.moments]
    others = [
        scene
        for seed in OTHER_SEEDS
        for shot in plan_album(seed=seed, photos=photos, clips=clips)
        for scene in shot.scenes
    ]
    rng = random.Random(QUERY_SEED)
    best: dict[bool, list[float]] = {True: [], False: []}
    with Library.open(work / "library", model="tiny") as library:
        library.index([work / "pictures"])
        while min(map(len, best.values())) < queries:
            asked = query(rng, rng.choice(others if rng.random() < 0.5 else own), rng.choice(STYLES))
            has_answer = any(item.answers(np.asarray(asked.constraints)) for item in items)
            if len(best[has_answer]) < queries:
                hits = library.search(asked.text).hits
                judged = [hit.reranker_score for hit in hits if hit.reranker_score is not None]
                best[has_answer].append(max(judged))
    return {
        "model": "tiny",
        "photos": photos,
        "clips": clips,
        "queries": {"answered": queries, "unanswered": queries},
        "bound_in_use": NO_MATCH_BELOW,
        "median_best": {"answered": _median(best[True]), "unanswered": _median(best[False])},
        "bounds": [
            {
                "bound": bound,
                "answered_refused": _below(best[True], bound),
                "unanswered_refused": _below(best[False], bound),
            }
            for bound in BOUNDS
        ],
    }


def _below(values: list[float], bound: float) -> float:
    return round(sum(value < bound for value in values) / len(values), 4)


def _median(values: list[float]) -> float:
    return round(float(np.median(values)), 4)


if __name__ == "__main__":
    main()
