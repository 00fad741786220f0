"""The program that measures one bundle: `python -m qvl_local.quant.accuracy.worker FOLDER`.

Reads FOLDER/job, writes its answer there (see `answer`). A process of its own, so that the peak of its memory
is that of the bundle. Standard output carries its progress: "stage done total" a line.
"""

from __future__ import annotations

import pickle
import statistics
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import MediaError, ModelError, QvlError
from qvl_local.runtime.library.searcher import DEFAULT_FUSION_WEIGHT, QUERY_INSTRUCTION
from qvl_local.runtime.model.bundle import open_bundle
from qvl_local.runtime.model.embedder import Embedder
from qvl_local.runtime.model.image import read_image
from qvl_local.runtime.model.pixels import PixelBudget
from qvl_local.runtime.model.reranker import Reranker
from qvl_local.runtime.model.video import read_video

from .answer import write_error, write_result
from .dataset import Dataset, document_path
from .measured import RERANKED, Cost, GalleryRun, Job, Measured, default_dims
from .metrics import first
from .vectors import Stored, Vectors

JOB = "job"

Tell = Callable[[str, int, int], None]

_BATCH = 16
# Fitted pixels kept for judging, so that a document in twenty rankings is decoded once.
_PIXELS_KEPT = 96 << 20


def measure(job: Job, tell: Tell) -> Measured:
    """Embed every gallery, judge every candidate, and keep the time."""
    bundle = open_bundle(Path(job.bundle))
    embedder = Embedder.open(bundle.path, threads=job.threads)
    reranker = (
        Reranker.open(bundle.path, threads=job.threads)
        if job.rerank and "reranker" in bundle.manifest.parts
        else None
    )
    dims = job.dims or default_dims(embedder.dims)
    times = _Times()
    embedded = _embed_all(job, embedder, times, tell)
    candidates = [
        _candidates(run, dataset, dims, job, extra)
        for run, dataset, extra in zip(embedded, job.datasets, job.pairs, strict=True)
    ]
    if reranker is None:
        return Measured(tuple(embedded), 0.0, times.cost())
    total = sum(len(pairs) for pairs in candidates)
    tell("pairs", 0, total)
    judged = []
    done = 0
    for run, dataset, pairs in zip(embedded, job.datasets, candidates, strict=True):
        logits = _judge(reranker, dataset, pairs, times, partial(_tell_pairs, tell, done, total))
        judged.append(GalleryRun(run.documents, run.queries, pairs, logits, run.unreadable))
        done += len(pairs)
    weight = reranker.fusion.get("cosine_weight", DEFAULT_FUSION_WEIGHT)
    return Measured(tuple(judged), weight, times.cost())


def _tell_pairs(tell: Tell, before: int, total: int, done: int) -> None:
    tell("pairs", before + done, total)


def _embed_all(job: Job, embedder: Embedder, times: _Times, tell: Tell) -> list[GalleryRun]:
    total = sum(len(dataset.documents) for dataset in job.datasets)
    done = 0
    runs = []
    for dataset in job.datasets:
        reader = _Reader(dataset, embedder.budget, keep=0)
        documents = np.zeros((len(dataset.documents), embedder.max_dims), np.float32)
        for start in range(0, len(documents), _BATCH):
            rows = range(start, min(start + _BATCH, len(documents)))
            begin = time.perf_counter()
            inputs = {row: shown for row in rows if (shown := reader(row)) is not None}
            if inputs:
                documents[list(inputs)] = _finite(
                    embedder.embed(inputs.values(), dims=embedder.max_dims), job.bundle, "an embedding"
                )
            times.add("document", begin, len(rows))
            done += len(rows)
            tell("documents", done, total)
        queries = _finite(_embed_questions(dataset, embedder, times), job.bundle, "an embedding")
        none = np.empty((0, 2), np.int64), np.empty(0, np.float32)
        runs.append(GalleryRun(documents, queries, *none, reader.unreadable))
    return runs


def _embed_questions(dataset: Dataset, embedder: Embedder, times: _Times) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(dataset.questions), _BATCH):
        batch = dataset.questions[start : start + _BATCH]
        # As the library asks: words are told from what they look for by their instruction.
        inputs = [
            {**question.input, "instruction": QUERY_INSTRUCTION}
            if "text" in question.input
            else question.input
            for question in batch
        ]
        begin = time.perf_counter()
        parts.append(embedder.embed(inputs, dims=embedder.max_dims))
        times.add("question", begin, len(batch))
    return np.concatenate(parts)


def _candidates(
    run: GalleryRun, dataset: Dataset, dims: tuple[int, ...], job: Job, extra: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Every pair that some ranking of the matrix hands to the reranker, and `extra`: int64 [P, 2], sorted."""
    chosen = np.zeros((len(run.queries), len(run.documents)), bool)
    chosen[extra[:, 0], extra[:, 1]] = True
    hidden = dataset.hidden()
    hidden[:, list(run.unreadable)] = True
    stored = Stored(run.documents)
    # What others are compared with is full width and float32, asked for or not.
    best: tuple[int, Vectors] = (run.documents.shape[1], "float32")
    for width, vectors in {best, *product(dims, job.vectors)}:
        scores = stored.similarities(run.queries, dims=width, vectors=vectors)
        scores[hidden] = -np.inf
        np.put_along_axis(chosen, first(scores, RERANKED), True, axis=1)
    return np.argwhere(chosen & ~hidden)


def _judge(
    reranker: Reranker,
    dataset: Dataset,
    pairs: NDArray[np.int64],
    times: _Times,
    tell: Callable[[int], None],
) -> NDArray[np.float32]:
    reader = _Reader(dataset, reranker.budget, keep=_PIXELS_KEPT)
    logits = np.full(len(pairs), np.nan, np.float32)
    for number, question in enumerate(dataset.questions):
        places = np.flatnonzero(pairs[:, 0] == number)
        read = {place: reader(int(pairs[place, 1])) for place in places}
        documents = {place: shown for place, shown in read.items() if shown is not None}
        if documents:
            begin = time.perf_counter()
            logits[list(documents)] = _finite(
                reranker.logits(question.input, documents.values()), str(reranker.bundle.path), "a judgement"
            )
            times.add("pair", begin, len(documents))
            tell(int(places[-1]) + 1)
    return logits


def _finite(values: NDArray[np.float32], bundle: str, what: str) -> NDArray[np.float32]:
    """The values, unless the bundle has overflowed or is damaged: then no figure would mean anything."""
    if not np.isfinite(values).all():
        raise ModelError(
            f"{bundle}: gave {what} that is not a finite number. Check it with qvl-local verify, or "
            "export it again at a higher precision."
        )
    return values


class _Reader:
    """Documents as inputs with fitted pixels; those read last are kept, up to `keep` bytes."""

    def __init__(self, dataset: Dataset, budget: PixelBudget, *, keep: int) -> None:
        self._documents = dataset.documents
        self._budget = budget
        self._keep = keep
        self._kept: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._bytes = 0
        self.unreadable: dict[int, str] = {}

    def __call__(self, index: int) -> dict[str, Any] | None:
        """One document; None, and a reason in `unreadable`, when its file cannot be used."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        try:
            shown = self._read(self._documents[index])
        except MediaError as error:
            self.unreadable[index] = error.reason
            return None
        self._bytes += _pixel_bytes(shown)
        self._kept[index] = shown
        while self._bytes > self._keep:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _pixel_bytes(dropped)
        return shown

    def _read(self, document: Mapping[str, str]) -> dict[str, Any]:
        path = document_path(document)
        if "image" in document:
            return {"image": read_image(path, budget=self._budget)}
        return {"video": read_video(path, budget=self._budget)}


def _pixel_bytes(shown: Mapping[str, Any]) -> int:
    pixels = shown["image"] if "image" in shown else shown["video"].frames
    return int(pixels.nbytes)


class _Times:
    """Milliseconds an item, batch by batch."""

    def __init__(self) -> None:
        self._ms: dict[str, list[float]] = {"document": [], "question": [], "pair": []}

    def add(self, kind: str, begin: float, items: int) -> None:
        if items:
            self._ms[kind].append((time.perf_counter() - begin) * 1000 / items)

    def cost(self) -> Cost:
        def median(kind: str) -> float | None:
            return statistics.median(self._ms[kind]) if self._ms[kind] else None

        return Cost(median("document"), median("question"), median("pair"), peak_memory())


def peak_memory() -> int | None:
    """The largest resident size that this process has had, in bytes; None where the system does not tell."""
    if sys.platform == "linux":
        # Not ru_maxrss: that survives exec and would be the parent's.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _print_progress(stage: str, done: int, total: int) -> None:
    sys.stdout.write(f"{stage} {done} {total}\n")
    sys.stdout.flush()


def main(folder: Path) -> int:
    """Do the job of a folder."""
    warnings.simplefilter("ignore")  # of decoders, about files that count or fail by themselves
    job: Job = pickle.loads((folder / JOB).read_bytes())
    try:
        result = measure(job, _print_progress)
    except QvlError as error:
        write_error(folder, error)
        return 1
    except MemoryError:
        write_error(folder, QvlError(f"{job.bundle}: measuring it took all memory."))
        return 1
    write_result(folder, result)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
