"""Every precision's graphs on a CPU: bytes on the disk, bytes held in memory, and speed against float32.

    python -m benchmarks.weight_formats [--rounds 7]

One random checkpoint with a decoder of width 1024 (94 M weights) and a vision tower of width 512 (46 M), one
thread. Memory held is what a process of its own gained by loading a graph and running it once on little; what
that is for a byte stored is told by the difference to a graph with a third of the layers, which leaves out
what any session takes. Work is what a run on much added at its peak. The times are of the processor, and all
precisions take turns in one process, so that whatever else the machine does hits all of them. The planner's
`cpu_held` and the figures of docs/hub.md are from here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.onnx_file import write_model
from qvl_local.export.recipe import Recipe, Tower
from qvl_local.export.vision import build_vision
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions
from qvl_local.runtime.model.positions import patch_positions

from .int8_decoder import inputs as decoder_inputs
from .memory import forget_peak, peak_mib, resident_mib
from .runner import ROOT, in_one_thread, record
from .true_shapes import Shape, write_pair

PRECISIONS = ("fp32", "fp16", "int8", "int8-safe", "int8-weight", "int4", "nf4")
# What a run works on: tokens of the decoder; patches of the vision tower, four to a visual token.
TOKENS = (32, 256)
PATCHES = (24, 32)
SHAPE = Shape(
    hidden=1024,
    layers=6,
    heads=16,
    kv_heads=8,
    head_dim=128,
    intermediate=3072,
    vision_hidden=512,
    vision_depth=12,
    vision_heads=8,
    vision_intermediate=2048,
    deepstack=(3,),
    tied=True,
    vocabulary=1280,
)

THIRD = replace(SHAPE, layers=2, vision_depth=4)

Feeds = Mapping[str, NDArray[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", nargs=3, metavar=("CHECKPOINT", "GRAPH", "TOWER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    in_one_thread("benchmarks.weight_formats")
    if options.worker is not None:
        checkpoint, graph, tower = options.worker
        print(json.dumps(held(Checkpoint(Path(checkpoint)), Path(graph), tower)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full = Checkpoint(write_pair(folder / "full", SHAPE)["embedder"])
        third = Checkpoint(write_pair(folder / "third", THIRD)["embedder"])
        rows = [compare(full, third, tower, folder, options.rounds) for tower in ("decoder", "vision")]
    print(record("weight_formats", {"threads": 1, "towers": rows}))


def compare(full: Checkpoint, third: Checkpoint, tower: Tower, folder: Path, rounds: int) -> dict[str, Any]:
    """One tower in every precision."""
    graphs, short = (
        write(one, tower, folder / tower / name) for one, name in ((full, "full"), (third, "third"))
    )
    speed = {
        size: times(graphs, feeds(full, tower, size), rounds)
        for size in (TOKENS if tower == "decoder" else (PATCHES[0] * PATCHES[1],))
    }
    rows = []
    for precision, graph in graphs.items():
        memory, of_third = _held_apart(full, graph, tower), _held_apart(third, short[precision], tower)
        more_stored = stored_mib(graph) - stored_mib(short[precision])
        rows.append(
            {
                "precision": precision,
                "stored_mib": round(stored_mib(graph), 1),
                "held_mib": round(memory["held"], 1),
                "held_for_a_byte_stored": round((memory["held"] - of_third["held"]) / more_stored, 2),
                "work_mib": round(memory["work"], 1),
                "median_cpu_ms": {str(size): round(found[precision], 1) for size, found in speed.items()},
                "times_faster_than_fp32": {
                    str(size): round(found["fp32"] / found[precision], 2) for size, found in speed.items()
                },
            }
        )
    return {"tower": tower, "precisions": rows}


def write(checkpoint: Checkpoint, tower: Tower, folder: Path) -> dict[str, Path]:
    """A graph of each precision."""
    folder.mkdir(parents=True)
    build = build_decoder if tower == "decoder" else build_vision
    graphs = {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}
    for precision, graph in graphs.items():
        write_model(build(checkpoint, Recipe.of(precision).graph(tower, checkpoint.names())), graph)
    return graphs


def stored_mib(graph: Path) -> float:
    return sum(file.stat().st_size for file in graph.parent.glob(f"{graph.name}*")) / 2**20


def times(graphs: Mapping[str, Path], given: Feeds, rounds: int) -> dict[str, float]:
    """Medians in milliseconds of this process's processor time; the graphs take turns."""
    options = SessionOptions(threads=1)
    sessions = {precision: OrtSession(graph, options) for precision, graph in graphs.items()}
    samples: dict[str, list[float]] = {precision: [] for precision in graphs}
    for number in range(rounds + 1):
        for precision, session in sessions.items():
            start = time.process_time()
            session.run(given)
            if number:  # the first one warms up
                samples[precision].append((time.process_time() - start) * 1000)
    return {precision: statistics.median(values) for precision, values in samples.items()}


def held(checkpoint: Checkpoint, graph: Path, tower: Tower) -> dict[str, float]:
    """MiB that this process gains by a graph, and what its largest run adds to that for a moment."""
    import onnxruntime  # noqa: F401 - its library is not to count

    little = feeds(checkpoint, tower, 4)
    much = feeds(checkpoint, tower, TOKENS[-1] if tower == "decoder" else PATCHES[0] * PATCHES[1])
    before = resident_mib()
    session = OrtSession(graph, SessionOptions(threads=1))
    session.run(little)
    after = resident_mib()
    is_phase = forget_peak()
    session.run(much)
    peak = peak_mib()
    if before is None or after is None or peak is None or not is_phase:
        raise SystemExit("Memory is measured through /proc, which is not there.")
    return {"held": after - before, "work": peak - after}


def feeds(checkpoint: Checkpoint, tower: Tower, size: int) -> Feeds:
    """Inputs of one run: `size` tokens, or patches in two rows or more."""
    if tower == "decoder":
        return decoder_inputs(checkpoint, size)
    vision = checkpoint.config.vision
    rows, columns = PATCHES if size == PATCHES[0] * PATCHES[1] else (2, size // 2)
    positions = patch_positions(rows, columns, vision)
    generator = np.random.default_rng(0)
    return {
        "patches": generator.standard_normal((1, size, vision.patch_dim), dtype=np.float32),
        "pos_idx": positions.index,
        "pos_w": positions.weight,
        "cos": positions.cos,
        "sin": positions.sin,
    }


def _held_apart(checkpoint: Checkpoint, graph: Path, tower: Tower) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.weight_formats", "--worker"]
    command += [str(checkpoint.folder), str(graph), tower]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
