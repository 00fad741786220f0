"""The real models' sizes on this machine: random 2B- and 8B-shaped pairs are exported, then used.

    python -m benchmarks.true_size --shape 2b --precision nf4 int8 --work DIR [--layers N] [--no-use]

Writes both checkpoints to the work folder (bfloat16 shards with an index, see `true_shapes`), exports them in
a process of its own for each precision, and uses the bundle in another: one text, one photo of 384 visual
tokens, and a query reranked against texts and that photo. Each process reports its peak memory. `--layers`
shortens the decoder, not its width; the record says so. Bundles are removed as soon as they were used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from qvl_local.export.cache import recipe_for_this_machine
from qvl_local.export.checkpoint import Checkpoint as Opened
from qvl_local.export.pipeline import export_bundle
from qvl_local.quant.accuracy.worker import peak_memory
from qvl_local.runtime import Embedder, Reranker
from qvl_local.runtime.model.bundle import Role, open_bundle
from qvl_local.runtime.model.checkpoints import Checkpoint

from benchmarks.runner import RESULTS, record
from benchmarks.true_shapes import ROLES, SHAPES, write_pair


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="2b")
    parser.add_argument("--precision", nargs="+", default=["nf4", "int8"])
    parser.add_argument("--layers", type=int, help="of the decoder; all unless given")
    parser.add_argument(
        "--work", type=Path, required=True, help="40 GB are needed for 8b; emptied at the end"
    )
    parser.add_argument("--no-use", action="store_true", help="export only")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints in the work folder")
    parser.add_argument("--child", choices=["export", "use"], help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "export":
        print(json.dumps(export(options.work, options.bundle, options.precision[0])))
    elif options.child == "use":
        print(json.dumps(use(options.bundle)))
    else:
        run(options)


def run(options: argparse.Namespace) -> None:
    shape = SHAPES[options.shape]
    shape = shape if options.layers is None else shape.cut(options.layers)
    name = f"{options.shape}, {shape.layers} of {SHAPES[options.shape].layers} layers"
    pair = options.work / f"{options.shape}-{shape.layers}"
    start = time.perf_counter()
    if not pair.exists():
        write_pair(pair, shape)
    print(f"{name}: checkpoints after {time.perf_counter() - start:.0f} s", flush=True)
    for precision in options.precision:
        bundle = options.work / f"bundle-{options.shape}-{precision}"
        row: dict[str, Any] = {"shape": name, "precision": precision, "config": asdict(shape)}
        row["export"] = _child("export", pair, bundle, precision)
        print(row["export"], flush=True)
        if not options.no_use:
            row["use"] = _child("use", pair, bundle, precision)
            print(row["use"], flush=True)
        shutil.rmtree(bundle)
        _append(row)
    if not options.keep:
        shutil.rmtree(pair)


def export(pair: Path, bundle: Path, precision: str) -> dict[str, Any]:
    sources: dict[Role, Checkpoint] = {
        "embedder": Checkpoint(path=pair / ROLES["embedder"], name="random/embedding"),
        "reranker": Checkpoint(path=pair / ROLES["reranker"], name="random/reranker"),
    }
    stages: dict[str, float] = {}
    marked = time.perf_counter()
    current = "reading"

    def progress(stage: str, _fraction: float) -> None:
        nonlocal current, marked
        if stage != current:
            now = time.perf_counter()
            stages[current] = round(stages.get(current, 0) + now - marked, 1)
            current, marked = stage, now
            print(f"  {stage} ({_peak_mib()} MiB)", file=sys.stderr, flush=True)

    start = time.perf_counter()
    manifest = export_bundle(sources, bundle, recipe=recipe_for_this_machine(precision), progress=progress)
    stages[current] = round(time.perf_counter() - marked, 1)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "stages_s": stages,
        "peak_mib": _peak_mib(),
        "checkpoint_bytes": sum(_size(source.path) for source in sources.values()),
        "bundle_bytes": sum(file.size for file in manifest.files.values()),
        "layout": manifest.layout,
        "layout_reason": manifest.layout_reason,
        "adapters": None if manifest.adapters is None else asdict(manifest.adapters),
        "parity": [asdict(figure) for figure in manifest.parity],
    }


def use(bundle: Path) -> dict[str, Any]:
    opened = open_bundle(bundle)
    embedder, reranker = Embedder.open(bundle), Reranker.open(bundle)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    photo = Image.fromarray(pixels).resize((1024, 768), Image.Resampling.BICUBIC)
    texts: list[dict[str, Any]] = [
        {"text": f"two dogs on a beach at night, number {number}"} for number in range(4)
    ]
    spent: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = action()
        spent[name] = round(time.perf_counter() - start, 3)
        return value

    timed("load", embedder.load)
    loaded = _peak_mib()
    timed("text_cold", lambda: embedder.embed([{"text": "two dogs on a beach"}]))
    vector = timed("text", lambda: embedder.embed([{"text": "two dogs on a beach at night"}]))
    picture = timed("photo_384_tokens", lambda: embedder.embed([{"image": photo}]))
    embedding_peak = _peak_mib()
    timed("load_reranker", reranker.load)
    scores = timed("rerank_4_texts", lambda: reranker.score({"text": "two dogs"}, texts))
    seen = timed("rerank_1_photo", lambda: reranker.score({"text": "two dogs"}, [{"image": photo}]))
    return {
        "layout": opened.manifest.layout,
        "seconds": spent,
        "peak_mib_loaded": loaded,
        "peak_mib_embedding": embedding_peak,
        "peak_mib": _peak_mib(),
        "finite": bool(np.isfinite(np.concatenate([vector.ravel(), picture.ravel(), scores, seen])).all()),
        "unit": bool(np.allclose(np.linalg.norm(vector, axis=1), 1)),
    }


def _child(kind: str, pair: Path, bundle: Path, precision: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.true_size", "--child", kind, "--work", str(pair)]
    command += ["--bundle", str(bundle), "--precision", precision]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _append(row: dict[str, Any]) -> None:
    """Add a row to the record; a row of the same shape and precision is replaced."""
    path = RESULTS / "true_size.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    rows = [one for one in rows if (one["shape"], one["precision"]) != (row["shape"], row["precision"])]
    record("true_size", {"rows": [*rows, row]})


def _peak_mib() -> int:
    return (peak_memory() or 0) >> 20


def _size(folder: Path) -> int:
    opened = Opened(folder)
    return sum(opened.stored(name).size for name in opened.names())


if __name__ == "__main__":
    main()
