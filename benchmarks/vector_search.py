"""Search in ten thousand to a million vectors: the library against sqlite-vec's vec0, numpy and faiss.

    python -m benchmarks.vector_search --sizes 10000,100000,1000000

One thread. Every method answers the same queries in the same run with the 100 nearest of vectors of 2048
dimensions; recall is against exact fp32. The library is a real one: built by `Store.write` a batch of 1000
photos at a time, searched by `Store.nearest`, which returns items with paths. The million needs 12 GB of disk
under --workdir (deleted at the end) and about as much memory, most of it page cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import apsw
import faiss
import numpy as np
import sqlite_vec
from numpy.typing import NDArray
from qvl_local.runtime.library.quantization import choose_scale, quantize
from qvl_local.runtime.library.records import (
    EncodedSegment,
    Filters,
    FoundFile,
    IndexedMedia,
    MediaInfo,
    SpaceIdentity,
)
from qvl_local.runtime.library.store import Store

from benchmarks.runner import RESULTS, in_one_thread, record, summary, timed
from benchmarks.synthetic import Collection, generate

K = 100
SEED = 7
BATCH = 1000
# The longest method takes seconds a query at a million; every method gets at least this many queries.
FEW_QUERIES = 20
FIRST_PHOTO = datetime(2000, 1, 1)

Answer = Callable[[NDArray[np.float32]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Method:
    """One way to search: its name, how it answers (rows, best first), and on how many queries it runs."""

    name: str
    answer: Answer
    queries: int


def main() -> None:
    """Run and record."""
    options = _options()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    work = Path(tempfile.mkdtemp(prefix="qvl-vector-search-", dir=options.workdir))
    try:
        print(f"generating {sizes[-1]:,} vectors of {options.dims} dimensions in {work}", file=sys.stderr)
        collection = generate(
            work / "vectors.npy", count=sizes[-1], dims=options.dims, queries=options.queries, seed=SEED
        )
        results = [_run(collection, size, work) for size in sizes]
        facts = {"dims": options.dims, "k": K, "threads": 1, "seed": SEED, "sizes": results}
        path = record("vector_search", facts, folder=options.results)
        print(f"wrote {path}", file=sys.stderr)
    finally:
        shutil.rmtree(work)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,100000,1000000", help="comma-separated numbers of vectors")
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    parser.add_argument(
        "--workdir", default=None, help="where the synthetic data goes (default: system temp)"
    )
    return parser.parse_args()


def _run(collection: Collection, size: int, work: Path) -> dict[str, Any]:
    vectors, queries = collection.vectors[:size], collection.queries
    truth = _exact(vectors, queries)
    folder = work / f"library-{size}"
    build_seconds, clipped = _build_library(folder, vectors)
    few = min(FEW_QUERIES, len(queries)) if size >= 100_000 else len(queries)
    rows: list[dict[str, Any]] = []
    _read_through(folder / "library.db")
    with Store.open(folder) as store:
        ours = Method("qvl-local", _library_answer(store), len(queries))
        # A generator: each peer's files are there only while it is measured.
        for method in chain([ours], _peers(vectors, work, few)):
            rows.append(_measure(method, queries, truth))
            print(f"{size:>9,}  {rows[-1]}", file=sys.stderr)
        filtered = [_measure_filter(store, vectors, queries, part) for part in (0.5, 0.02, 0.002)]
    own, peer = rows[0], next(row for row in rows if row["method"].startswith("vec0 int8"))
    result = {
        "vectors": size,
        "methods": rows,
        "times_faster_than_vec0_int8": {
            "cpu": round(peer["cpu"]["median_ms"] / own["cpu"]["median_ms"], 1),
            "wall": round(peer["wall"]["median_ms"] / own["wall"]["median_ms"], 1),
        },
        "filtered": filtered,
        "first_search_of_a_process": _first_search(folder, queries[0], work),
        "build": {"vectors_per_second": round(size / build_seconds), "clipped_fraction": clipped},
        "library_mb": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 1),
    }
    print(json.dumps({key: value for key, value in result.items() if key != "methods"}), file=sys.stderr)
    shutil.rmtree(folder)
    return result


def _exact(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """The K nearest rows (or as many as there are) by fp32 dot product: int64 [queries, K]."""
    best = np.empty((len(queries), 0), np.float32)
    ids = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), 20_000):
        scores = queries @ vectors[start : start + 20_000].T
        both = np.concatenate([best, scores], axis=1)
        numbers = np.concatenate(
            [ids, np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)], axis=1
        )
        top = np.argsort(-both, axis=1)[:, :K]
        best, ids = np.take_along_axis(both, top, axis=1), np.take_along_axis(numbers, top, axis=1)
    return ids


def _build_library(folder: Path, vectors: NDArray[np.float32]) -> tuple[float, float]:
    """Write every vector as a photo, one a minute, named by its row. Returns seconds and clipping."""
    start = time.perf_counter()
    with Store.open(folder, mode="write") as store:
        root = store.add_folder("/photos")
        space = store.space(SpaceIdentity("synthetic", str(SEED), "fp32", vectors.shape[1], "none", "none"))
        for first in range(0, len(vectors), BATCH):
            store.write(
                [
                    IndexedMedia(
                        FoundFile(root.id, f"{number}.jpg", number, number),
                        number.to_bytes(32, "little"),
                        MediaInfo("photo", 4000, 3000, FIRST_PHOTO + timedelta(minutes=number)),
                        (EncodedSegment(0, 0, vector),),
                    )
                    for number, vector in enumerate(np.asarray(vectors[first : first + BATCH]), start=first)
                ],
                space,
            )
        seconds = time.perf_counter() - start
        return seconds, store.clipped_fraction(space)


def _read_through(path: Path) -> None:
    """Bring a file into the page cache: the truth, computed in between, may have driven it out."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def _library_answer(store: Store, filters: Filters | None = None) -> Answer:
    def answer(query: NDArray[np.float32]) -> list[int]:
        candidates = store.nearest(query, limit=K, filters=filters)
        return [int(candidate.item.name.removesuffix(".jpg")) for candidate in candidates]

    return answer


def _peers(vectors: NDArray[np.float32], work: Path, few: int) -> Iterator[Method]:
    yield from _vec0(vectors, work, few, dims=min(1024, vectors.shape[1]), element="int8")
    if len(vectors) <= 100_000:
        yield from _vec0(vectors, work, few, dims=vectors.shape[1], element="float")

    def numpy_answer(query: NDArray[np.float32]) -> list[int]:
        scores = vectors @ query
        top = np.argpartition(-scores, K)[:K]
        ranked: list[int] = top[np.argsort(-scores[top])].tolist()
        return ranked

    def faiss_answer(query: NDArray[np.float32]) -> list[int]:
        _, ids = faiss.knn(query[None], vectors, K, metric=faiss.METRIC_INNER_PRODUCT)
        ranked: list[int] = ids[0].tolist()
        return ranked

    yield Method("numpy fp32", numpy_answer, few)
    yield Method("faiss flat fp32", faiss_answer, few)


def _vec0(vectors: NDArray[np.float32], work: Path, few: int, *, dims: int, element: str) -> Iterator[Method]:
    """sqlite-vec's virtual table over the first `dims` dimensions, renormalised, as int8 or float."""
    path = work / f"vec0-{element}-{len(vectors)}.db"
    connection = apsw.Connection(str(path))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    for pragma in ("page_size = 16384", "journal_mode = off", "synchronous = off", f"mmap_size = {40 << 30}"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute(f"CREATE VIRTUAL TABLE v USING vec0(id INTEGER PRIMARY KEY, e {element}[{dims}])")
    scale = choose_scale(_truncated(vectors[:BATCH], dims))
    wrap = "vec_int8(?)" if element == "int8" else "?"

    def encoded(rows: NDArray[np.float32]) -> NDArray[Any]:
        rows = _truncated(rows, dims)
        return quantize(rows, scale)[0] if element == "int8" else rows

    connection.execute("BEGIN")
    for first in range(0, len(vectors), 10_000):
        rows = encoded(vectors[first : first + 10_000])
        connection.executemany(
            f"INSERT INTO v VALUES (?, {wrap})",
            ((number, row.tobytes()) for number, row in enumerate(rows, start=first)),
        )
    connection.execute("COMMIT")
    _read_through(path)

    def answer(query: NDArray[np.float32]) -> list[int]:
        value = encoded(query[None])[0].tobytes()
        sql = f"SELECT id FROM v WHERE e MATCH {wrap} AND k = {K} ORDER BY distance"
        return [int(row[0]) for row in connection.execute(sql, (value,)).fetchall()]  # type: ignore[arg-type]

    yield Method(f"vec0 {element}-{dims}", answer, few)
    connection.close()
    path.unlink()


def _truncated(rows: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    rows = rows[:, :dims]
    unit: NDArray[np.float32] = np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return unit


def _measure(method: Method, queries: NDArray[np.float32], truth: NDArray[np.int64]) -> dict[str, Any]:
    # Spread over the queries, so that few ones hold as many image-like and text-like ones as all.
    chosen = np.linspace(0, len(queries) - 1, method.queries).astype(int)
    method.answer(queries[chosen[0]])
    method.answer(queries[chosen[-1]])
    walls, cpus, found = [], [], []
    for number in chosen:
        answered, wall, cpu = timed(partial(method.answer, queries[number]))
        found.append(answered)
        walls.append(wall)
        cpus.append(cpu)
    return {
        "method": method.name,
        "cpu": summary(cpus),
        "wall": summary(walls),
        "recall@10": _recall(found, truth[chosen], 10),
        "recall@100": _recall(found, truth[chosen], 100),
    }


def _measure_filter(
    store: Store, vectors: NDArray[np.float32], queries: NDArray[np.float32], part: float
) -> dict[str, Any]:
    """Search among the newest `part` of the photos; the first search with a filter also evaluates it."""
    first = len(vectors) - max(1, int(part * len(vectors)))
    filters = Filters(after=FIRST_PHOTO + timedelta(minutes=first))
    truth = _exact(vectors[first:], queries) + first
    answer = _library_answer(store, filters)
    _, wall, _ = timed(partial(answer, queries[0]))
    measured = _measure(Method(f"newest {part:.1%}", answer, len(queries)), queries, truth)
    return measured | {"candidates": len(vectors) - first, "first_wall_ms": round(wall, 1)}


def _recall(found: Sequence[Sequence[int]], truth: NDArray[np.int64], k: int) -> float:
    shares = [
        len(set(ids[:k]) & set(exact[:k].tolist())) / min(k, len(exact))
        for ids, exact in zip(found, truth, strict=True)
    ]
    return round(float(np.mean(shares)), 4)


_COLD = """
import sys, time
from pathlib import Path
import numpy as np
from qvl_local.runtime.library.store import Store
query = np.load(sys.argv[2])
start = time.perf_counter()
with Store.open(sys.argv[1]) as store:
    opened, cpu = time.perf_counter(), time.process_time()
    store.nearest(query, limit=100)
    done, cpu = time.perf_counter(), time.process_time() - cpu
# Not getrusage: its peak is inherited from the parent, which maps gigabytes.
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
peak = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0)
print((opened - start) * 1000, (done - opened) * 1000, cpu * 1000, peak)
"""


def _first_search(folder: Path, query: NDArray[np.float32], work: Path) -> dict[str, float]:
    """Opening and the first answer in a new process, imports not counted; median of five; files cached."""
    np.save(work / "query.npy", query)
    samples = []
    for _ in range(5):
        output = subprocess.run(
            [sys.executable, "-c", _COLD, str(folder), str(work / "query.npy")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        samples.append([float(part) for part in output.split()])
    opened, searched, cpu, peak = np.median(np.array(samples), axis=0).round(1).tolist()
    return {"open_ms": opened, "search_ms": searched, "search_cpu_ms": cpu, "peak_rss_mb": peak}


if __name__ == "__main__":
    in_one_thread("benchmarks.vector_search")
    main()
