"""A GPU: bitsandbytes and ONNX Runtime's CUDA provider against the plain bfloat16 loop of the reference code.

    python -m benchmarks.gpu_latency --device cuda --shape 2b --shape 8b --work /somewhere/large
    python -m benchmarks.gpu_latency --device cpu --shape small --runs 2       # a check that it runs

For random pairs of the real models' shapes: a text query, one photo, and 20 photos reranked for one query, at
so many visual tokens a photo. Each engine runs in a process of its own, embedder and reranker together, as a
search needs them. Times are of whole calls, from Python objects to a number on the host. Memory of the GPU is
what nvidia-smi shows above what was in use before. Memory of the host is the peak of the process, for loading
and for each task apart, where the system can tell: an export that comes before counts for none of them.

Engines: `reference-bf16`, `torch-P` and `onnx-P`, P a precision. ONNX models are exported first, into the
work folder, which takes 3 GB to 40 GB. Results go to benchmarks/results/gpu_latency.json for a GPU, else to
stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.memory import forget_peak, peak_mib
from benchmarks.runner import ROOT, record, summary, timed
from benchmarks.true_shapes import ROLES, SHAPES, Shape, write_pair

ENGINES = ("reference-bf16", "torch-bf16", "torch-int8", "torch-nf4", "onnx-fp16", "onnx-nf4")
QUERY = "two dogs on a beach at night, with a red ball"
DOCUMENTS = 20
_SIDE = 32  # pixels of one visual token

# Small enough for a laptop's CPU: every part is there.
SMALL = Shape(256, 4, 4, 2, 128, 512, 128, 4, 2, 256, (1, 2, 3), tied=True, positions=256)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=("small", *SHAPES), action="append")
    parser.add_argument("--engine", action="append", help=f"all of {', '.join(ENGINES)} unless given")
    parser.add_argument("--tokens", type=int, default=384, help="visual tokens a photo")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--work", type=Path, help="kept and used again; a temporary folder unless given")
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "PAIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        engine, pair = options.worker
        measured = measure(
            engine, Path(pair), device=options.device, tokens=options.tokens, runs=options.runs
        )
        print(json.dumps(measured))
        return
    with _work_folder(options.work) as work:
        rows = [row for shape in options.shape or ["2b"] for row in compare(shape, work, options)]
    result = {"device": options.device, "tokens": options.tokens, "documents": DOCUMENTS, "rows": rows}
    if options.device == "cuda":
        print(record("gpu_latency", result))
    else:
        print(json.dumps(result, indent=2))


def compare(shape: str, work: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every engine on one shape, the first of them the one that the others are compared with."""
    pair = work / shape
    if not pair.exists():
        print(f"writing {shape}", file=sys.stderr)
        write_pair(pair, SMALL if shape == "small" else SHAPES[shape])
    first: Mapping[str, Any] | None = None
    for engine in options.engine or ENGINES:
        print(f"{shape}: {engine}", file=sys.stderr)
        row = _in_a_process(engine, pair, work, options)
        vector, scores = np.array(row.pop("vector", 0.0)), np.array(row.pop("scores", 0.0))
        if "error" not in row:
            if first is None:
                first = {"engine": engine, "row": row, "vector": vector, "scores": scores}
            row["compared_with"] = first["engine"]
            row["cosine"] = round(float(vector @ first["vector"]), 5)
            row["largest_score_change"] = round(float(np.abs(scores - first["scores"]).max()), 5)
            row["speed"] = {
                task: round(first["row"][task]["median_ms"] / row[task]["median_ms"], 2)
                for task in ("text", "photo", "rerank")
            }
        yield {"shape": shape, "engine": engine, **row}


def measure(engine: str, pair: Path, *, device: str, tokens: int, runs: int) -> dict[str, Any]:
    """One engine on one pair, in this process: medians of each task, the photo's vector, the scores."""
    generator = np.random.default_rng(7)
    photos = [_photo(generator, tokens) for _ in range(DOCUMENTS)]
    folders = {role: pair / name for role, name in ROLES.items()}
    peaks: dict[str, int | None] = {}
    with _peak_of("load", peaks) as begin:
        tasks, load_s = open_tasks(engine, folders, device=device, tokens=tokens, begin=begin)
    done: dict[str, Any] = {"load_s": round(load_s, 2)}
    for name, repeats in (("text", runs), ("photo", runs), ("rerank", max(1, runs // 4))):
        run = tasks[name]
        with _peak_of(name, peaks):
            answer = run(photos)  # also warms up
            done[name] = summary([timed(lambda run=run: run(photos))[1] for _ in range(repeats)])
        if name == "photo":
            done["vector"] = [float(value) for value in np.ravel(answer)]
        if name == "rerank":
            done["scores"] = [float(value) for value in np.ravel(answer)]
    done["peak_rss_mib"] = peaks
    return done


@contextmanager
def _peak_of(phase: str, peaks: dict[str, int | None]) -> Iterator[Callable[[], None]]:
    """Put the peak of this process within the block into `peaks`; what it yields begins the phase anew."""
    is_known = forget_peak()

    def begin() -> None:
        nonlocal is_known
        is_known = forget_peak()

    yield begin
    peak = peak_mib() if is_known else None
    peaks[phase] = None if peak is None else round(peak)


Task = Callable[[list[NDArray[np.uint8]]], NDArray[np.float32]]


def open_tasks(
    engine: str, folders: Mapping[str, Path], *, device: str, tokens: int, begin: Callable[[], None]
) -> tuple[dict[str, Task], float]:
    """The three tasks on an engine, its weights loaded, and how many seconds that took.

    `begin` is called when everything is there to be loaded.
    """
    backend, _, precision = engine.partition("-")
    if backend == "reference":
        from benchmarks.gpu_latency_peer import Reference

        _limit_pixels(folders, tokens)
        begin()
        start = time.perf_counter()
        ours, judge = Reference(folders["embedder"], device), Reference(folders["reranker"], device)
        reference: dict[str, Task] = {
            "text": lambda _: ours.embed(text=QUERY),
            "photo": lambda photos: ours.embed(image=photos[0]),
            "rerank": lambda photos: judge.score(QUERY, photos),
        }
        return reference, time.perf_counter() - start

    from qvl_local.runtime import Embedder, Reranker

    _limit_pixels(folders, tokens)
    if backend == "torch":
        from transformers import Qwen3VLForConditionalGeneration  # noqa: F401 - not timed on either side
    given: dict[str, Any] = {"backend": backend, "device": device, "precision": precision}
    Embedder.open(folders["embedder"], **given)  # an export, when there is one, is made here and not timed
    begin()
    start = time.perf_counter()
    embedder = Embedder.open(folders["embedder"], **given)
    reranker = Reranker.open(folders["embedder"], **given)
    embedder.load()
    reranker.load()
    loaded = time.perf_counter() - start
    tasks: dict[str, Task] = {
        "text": lambda _: embedder.embed([{"text": QUERY}]),
        "photo": lambda photos: embedder.embed([{"image": photos[0]}]),
        "rerank": lambda photos: reranker.score({"text": QUERY}, [{"image": photo} for photo in photos]),
    }
    return tasks, loaded


def _limit_pixels(folders: Mapping[str, Path], tokens: int) -> None:
    """Let both sides take a photo of so many tokens as it is."""
    for folder in folders.values():
        path = folder / "preprocessor_config.json"
        raw = json.loads(path.read_text(encoding="utf-8"))
        size = {"shortest_edge": 4 * _SIDE**2, "longest_edge": 2 * tokens * _SIDE**2}
        if raw["size"] != size:
            path.write_text(json.dumps(raw | {"size": size}), encoding="utf-8")


def _photo(generator: np.random.Generator, tokens: int) -> NDArray[np.uint8]:
    """Noise of the fitted size, so that nothing is resized: rows times columns of tokens near `tokens`."""
    rows = max(2, round((tokens * 2 / 3) ** 0.5))
    columns = max(2, round(tokens / rows))
    return generator.integers(0, 256, (rows * _SIDE, columns * _SIDE, 3)).astype(np.uint8)


def _in_a_process(engine: str, pair: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run `measure` in a fresh process and watch the GPU's memory meanwhile."""
    command = [sys.executable, "-m", "benchmarks.gpu_latency", "--worker", engine, str(pair)]
    command += ["--device", options.device, "--tokens", str(options.tokens), "--runs", str(options.runs)]
    environment = os.environ | {"QVL_CACHE_DIR": str(work / "cache")}
    with _watched_gpu(options.device) as gpu:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
    if done.returncode:
        return {"error": f"exit status {done.returncode}"}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if gpu:
        row["peak_gpu_mib"] = gpu[-1]
    return row


@contextmanager
def _watched_gpu(device: str) -> Iterator[list[int]]:
    """The largest memory of the first GPU above what was in use before, in MiB, as the list's last value."""
    peaks: list[int] = []
    before = _gpu_memory() if device == "cuda" else None
    if before is None:
        yield peaks
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            used = _gpu_memory()
            if used is not None:
                peaks.append(max(used - before, peaks[-1] if peaks else 0))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def _gpu_memory() -> int | None:
    """MiB in use on the first GPU; None where there is none."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return int(shown.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


@contextmanager
def _work_folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
