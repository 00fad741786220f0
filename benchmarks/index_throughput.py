"""Index throughput: how many photos and videos of the sample world a second, and where the time goes.

    python -m benchmarks.index_throughput [--photos 300] [--clips 40] [--work DIR] [--smoke]

Decoding, embedding and writing are each measured alone, one after the other on the same files; then whole
runs of `Library.index` with one decoding process and with one a core, where the three overlap. "smoke" is a
small run that records nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qvl_local.runtime import Embedder, Library
from qvl_local.runtime.library.decode import DecodeLimits, DecodeTask, Description, Piece
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.messages import Failed, Part
from qvl_local.runtime.library.previews import Preview, Previews, Strip
from qvl_local.runtime.library.records import EncodedSegment, FoundFile, IndexedMedia, SpaceIdentity
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.workers import WorkerPool, WorkerSettings, default_worker_count
from qvl_local.runtime.model.pixels import PixelBudget
from qvl_local.runtime.world.demo import make_sample_library

from benchmarks.runner import record

MODEL = "tiny"
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--work", type=Path, help="kept and used again; a temporary folder unless given")
    parser.add_argument("--smoke", action="store_true", help="a few files, nothing is recorded")
    options = parser.parse_args()
    photos, clips = (8, 2) if options.smoke else (options.photos, options.clips)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) if options.work is None else options.work.absolute()
        result = measure(work, photos, clips)
    if not options.smoke:
        print(record("index_throughput", result))


def measure(work: Path, photos: int, clips: int) -> dict[str, Any]:
    print(f"rendering {photos} photos and {clips} clips ...")
    files = [str(item.path) for item in make_sample_library(work / "media", photos=photos, clips=clips)]
    counts = sorted({1, default_worker_count()})
    embedder = Embedder.open(MODEL)
    embedder.embed([{"text": "warm up"}])
    phases: dict[str, Any] = {}
    decoded: dict[str, list[Piece | Description]] = {}
    for count in counts:
        decoded, seconds = decode(files, embedder.budget, count)
        phases[f"decode_{count}_workers"] = phase(seconds, len(files))
    media, seconds = embed(embedder, decoded)
    phases["embed"] = phase(seconds, len(files))
    phases["write"] = phase(write(work / "written", media, decoded), len(files))
    whole = {f"{count}_workers": index(work, count) for count in counts}
    return {"model": MODEL, "photos": photos, "clips": clips, "phases": phases, "index": whole}


def decode(
    files: Sequence[str], budget: PixelBudget, count: int
) -> tuple[dict[str, list[Piece | Description]], float]:
    """What each file yields, and the seconds that `count` processes took, their start included."""
    decoded: dict[str, list[Piece | Description]] = {file: [] for file in files}
    start = time.perf_counter()
    with WorkerPool(WorkerSettings(count)) as pool:
        for file in files:
            pool.submit(file, DecodeTask(file, budget), parts=DecodeLimits().parts)
        while pool.open_tasks:
            if (answer := pool.next()) is None:
                continue
            if isinstance(answer.message, Failed):
                raise RuntimeError(f"{answer.key}: {answer.message.reason}")
            if isinstance(answer.message, Part):
                decoded[str(answer.key)].append(answer.message.value)
    return decoded, time.perf_counter() - start


def embed(
    embedder: Embedder, decoded: dict[str, list[Piece | Description]]
) -> tuple[list[IndexedMedia], float]:
    pieces = [(file, one) for file, parts in decoded.items() for one in parts if isinstance(one, Piece)]
    segments: dict[str, list[EncodedSegment]] = {file: [] for file in decoded}
    start = time.perf_counter()
    for at in range(0, len(pieces), BATCH):
        batch = pieces[at : at + BATCH]
        inputs = [
            {"video": piece.pixels} if piece.strip is not None else {"image": piece.pixels}
            for _, piece in batch
        ]
        for (file, piece), vector in zip(batch, embedder.embed(inputs, dims=embedder.max_dims), strict=True):
            segments[file].append(EncodedSegment(piece.t0_ms, piece.t1_ms, vector))
    seconds = time.perf_counter() - start
    media = []
    for file, parts in decoded.items():
        (description,) = (part for part in parts if isinstance(part, Description))
        found = FoundFile(1, file, Path(file).stat().st_size, 1)
        media.append(IndexedMedia(found, file.encode(), description.info, tuple(segments[file])))
    return media, seconds


def write(home: Path, media: list[IndexedMedia], decoded: dict[str, list[Piece | Description]]) -> float:
    shutil.rmtree(home, ignore_errors=True)
    previews = [preview(item, decoded[item.file.name]) for item in media]
    dims = len(media[0].segments[0].vector)
    with Store.open(home, mode="write") as store, Previews.open(home, mode="write") as pictures:
        store.add_folder(str(home))
        space = store.space(SpaceIdentity(MODEL, "r", "fp32", dims, "p", "t"))
        start = time.perf_counter()
        pictures.write(previews)
        store.write(media, space)
        return time.perf_counter() - start


def preview(item: IndexedMedia, parts: list[Piece | Description]) -> Preview:
    (description,) = (part for part in parts if isinstance(part, Description))
    strips = tuple(
        Strip(part.t0_ms, (0.0,), part.strip) for part in parts if isinstance(part, Piece) and part.strip
    )
    return Preview(item.content_hash, description.thumbnail, strips)


def index(work: Path, count: int) -> dict[str, float]:
    """A whole run into a new library, and the run after it, which finds nothing to do."""
    home = work / f"library-{count}"
    shutil.rmtree(home, ignore_errors=True)
    settings = IndexSettings(WorkerSettings(count))
    with Library.open(home, model=MODEL, settings=settings) as library:
        start, used = time.perf_counter(), os.times()
        report = library.index([work / "media"])
        seconds, ended = time.perf_counter() - start, os.times()
        again = library.index([work / "media"])
    if report.failed or again.unchanged != report.items:
        raise RuntimeError(f"the run is no measurement: {report}, {again}")
    cpu = sum(ended[:4]) - sum(used[:4])
    result = phase(seconds, report.items) | {
        "cpu_s": round(cpu, 2),
        "segments": report.segments,
        "unchanged_run_ms": round(again.seconds * 1000, 2),
    }
    print(f"{count} workers: {result}")
    return result


def phase(seconds: float, items: int) -> dict[str, float]:
    return {"seconds": round(seconds, 3), "items_per_s": round(items / seconds, 1)}


if __name__ == "__main__":
    main()
