"""Cold search: `qvl-local search` in a fresh process, against the same search through torch and transformers.

    python -m benchmarks.cold_search [--items 1000] [--runs 7] [--work DIR]

Makes a library of the sample world (nine photos to one clip), then alternates both sides: the installed
command with `--json`, and `cold_search_peer.py`, which has the library's vectors as an array and does the
rest itself. Also times `qvl-local --help` against `import torch`. Both sides must find the same best hit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runner import record

QUERY = "two dogs on a beach at night"
TOP = 20
COMPARED = 10
PEER = Path(__file__).with_name("cold_search_peer.py")


@dataclass(frozen=True, slots=True)
class Run:
    """One fresh process: wall-clock seconds, and processor seconds of it and its children."""

    wall_s: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description="A cold search against torch and transformers.")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--work", type=Path, help="kept and used again; a temporary folder unless given")
    options = parser.parse_args()
    if options.work is not None:
        measure(options.work.absolute(), options.items, options.runs)
        return
    with tempfile.TemporaryDirectory() as work:
        measure(Path(work), options.items, options.runs)


def measure(work: Path, items: int, runs: int) -> None:
    library = work / "library"
    facts = prepare(work, library, items)
    ours = [command(), "search", QUERY, "-k", str(TOP), "--json", "--library", str(library)]
    peer = [sys.executable, str(PEER), str(work), QUERY]
    answers = [json.loads(run(side)[1]) for side in (ours, peer)]  # also warms the file system's cache
    agreement = compare(*(answer["results"] for answer in answers))

    sides = {
        "search": ours,
        "search_torch": peer,
        "help": [command(), "--help"],
        "import_torch": [sys.executable, "-c", "import torch"],
    }
    timed: dict[str, list[Run]] = {name: [] for name in sides}
    for number in range(runs):
        for name, side in sides.items():
            timed[name].append(run(side)[0])
        print(f"run {number + 1}:", {name: f"{each[-1].wall_s:.2f} s" for name, each in timed.items()})
    medians = {name: median(each) for name, each in timed.items()}
    ratios = {
        "search": ratio(medians["search_torch"], medians["search"]),
        "help": ratio(medians["import_torch"], medians["help"]),
    }
    path = record(
        "cold_search",
        {
            "query": QUERY,
            "library": facts,
            "runs": {name: [asdict(one) for one in each] for name, each in timed.items()},
            "median": {name: asdict(one) for name, one in medians.items()},
            "times_faster": ratios,
            "agreement": agreement,
            "timings_ms": answers[0]["timings_ms"],
        },
    )
    print(
        json.dumps({"median": {n: asdict(m) for n, m in medians.items()}, "times_faster": ratios}, indent=2)
    )
    print(json.dumps(agreement, indent=2))
    print(path)


def command() -> str:
    """The installed `qvl-local` beside this interpreter."""
    return str(Path(sys.executable).with_name("qvl-local"))


def run(arguments: list[str]) -> tuple[Run, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment())
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), done.stdout


def environment() -> dict[str, str]:
    """The same for both sides: offline, since neither may ask the hub for a newer file; bytecode kept.

    Installed packages come with their bytecode; a source tree, where this runs, writes its own in the first
    run unless the environment forbids it.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def median(runs: list[Run]) -> Run:
    return Run(statistics.median(r.wall_s for r in runs), statistics.median(r.cpu_s for r in runs))


def ratio(slow: Run, fast: Run) -> dict[str, float]:
    return {"wall": round(slow.wall_s / fast.wall_s, 2), "cpu": round(slow.cpu_s / fast.cpu_s, 2)}


def prepare(work: Path, library: Path, items: int) -> dict[str, Any]:
    """The library, and what the peer needs of it: every vector, where it comes from, the fusion's weight."""
    from qvl_local.runtime.library.previews import Previews
    from qvl_local.runtime.library.running import DEFAULT_MODEL
    from qvl_local.runtime.library.searcher import DEFAULT_FUSION_WEIGHT
    from qvl_local.runtime.library.store import Store
    from qvl_local.runtime.model.checkpoints import find_checkpoints
    from qvl_local.runtime.model.resolve import resolve
    from qvl_local.runtime.world.demo import make_sample_library

    pictures = work / "pictures"
    clips = items // 10
    make_sample_library(pictures, photos=items - clips, clips=clips)
    if not (library / "library.db").exists():
        shutil.rmtree(library, ignore_errors=True)
    subprocess.run([command(), "index", str(pictures), "--library", str(library)], check=True)

    checkpoints = find_checkpoints(DEFAULT_MODEL)
    weight = resolve(DEFAULT_MODEL).manifest.fusion.get("cosine_weight", DEFAULT_FUSION_WEIGHT)
    vectors, segments = [], []
    with Store.open(library) as store, Previews.open(library) as previews:
        space = store.active_space()
        if space is None:
            raise SystemExit(f"{library}: nothing was indexed")
        for folder in store.folders():
            for known in store.known(folder.id, space):
                item = store.media(known.media_id)
                if item is None or item.state != "indexed":
                    continue
                vectors.append(store.vectors(item.id))
                for segment in store.segments(item.id):
                    strip = previews.strip(item.content_hash, segment.t0_ms) if item.kind == "video" else None
                    segments.append(
                        {
                            "path": item.path,
                            "kind": item.kind,
                            "start_s": segment.t0_ms / 1000,
                            "times_s": [] if strip is None else list(strip.times_s),
                        }
                    )
        counts = store.counts()
    np.save(work / "vectors.npy", np.concatenate(vectors).astype(np.float32))
    setup = {
        "embedder": str(checkpoints["embedder"].path),
        "reranker": str(checkpoints["reranker"].path),
        "weight": weight,
        "segments": segments,
    }
    (work / "items.json").write_text(json.dumps(setup), encoding="utf-8")
    return asdict(counts)


def compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """How far the two answers agree; a different best hit ends the benchmark."""
    best = [[hit["path"] for hit in hits[:COMPARED]] for hits in (ours, theirs)]
    judged = {hit["path"]: hit for hit in theirs}
    both = [(hit, judged[hit["path"]]) for hit in ours if hit["path"] in judged]

    def furthest(field: str, kind: str) -> float | None:
        return max((abs(a[field] - b[field]) for a, b in both if a["kind"] == kind), default=None)

    if best[0][0] != best[1][0]:
        raise SystemExit(f"The two sides disagree: {best[0][0]} against {best[1][0]}")
    return {
        "same_top_10": best[0] == best[1],
        "common_in_top_10": len(set(best[0]) & set(best[1])),
        "common_in_top_20": len(both),
        "max_embedding_score_difference": max(
            abs(a["embedding_score"] - b["embedding_score"]) for a, b in both
        ),
        "max_reranker_score_difference_photos": furthest("reranker_score", "photo"),
        "max_reranker_score_difference_videos": furthest("reranker_score", "video"),
    }


if __name__ == "__main__":
    main()
