"""Measures bundles against a reference: a whole report in one function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.hardware import cpu_features, cpu_name
from qvl_local.runtime.machine import installed_version, usable_cores
from qvl_local.runtime.model.bundle import Bundle

from .child import measure_in_process
from .dataset import Dataset, document_path
from .gate import check_drop
from .matrix import Matrix, agreement
from .measured import RERANKED, Job, Measured, default_dims
from .report import BundleReport, GalleryFacts, Report
from .subject import describe, width_of
from .vectors import VECTORS, Vectors

# What a unit of work weighs in the estimate of the time left: a judged pair is 1.
_DOCUMENT, _PAIR = 1.5, 1.0
# Rankings of narrow and coarse vectors bring other candidates than the best: so many times as many in all.
_MORE_PAIRS = 1.8


@dataclass(frozen=True, slots=True)
class Plan:
    """What is varied. `dims` None: the width that each bundle serves, and its halves down to 64.

    `threads` of one graph run; None is every core.
    """

    dims: tuple[int, ...] | None = None
    vectors: tuple[Vectors, ...] = VECTORS
    rerank: bool = True
    max_drop: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for width in self.dims or ():
            if width < 8 or width % 8:
                raise InputError(f"--dims {width}: must be a multiple of 8, since sign bits fill bytes.")
        if self.dims == ():
            raise InputError("--dims: is empty. Give one or more widths, such as 256,128,64.")


@dataclass(frozen=True, slots=True)
class Step:
    """How far a report is: what happens, the part done in [0, 1], seconds left once that can be told."""

    label: str
    fraction: float
    left_s: float | None


Progress = Callable[[Step], None]


def measure_accuracy(
    bundles: Sequence[Bundle],
    reference: Bundle,
    datasets: Sequence[Dataset],
    *,
    plan: Plan,
    progress: Progress | None = None,
) -> Report:
    """Measure the reference, then every other bundle, one process each, and compare.

    Raises:
        InputError: a width that a bundle does not have, or nothing to ask.
        ModelError: a bundle cannot be run.
    """
    start = time.monotonic()
    subjects = [reference, *(bundle for bundle in bundles if bundle.path != reference.path)]
    for bundle in subjects:
        _check_width(bundle, plan)
    clock = _Clock(subjects, datasets, plan, progress)
    described = describe(subjects)
    can_rerank = plan.rerank and "reranker" in reference.manifest.parts

    base = _measure(reference, datasets, plan, (), clock.of(0, described[0].label))
    widths = _dims(reference, plan)
    matrix = Matrix(datasets, base, dims=width_of(reference), rerank=can_rerank)
    pairs = matrix.candidates()
    reports = [
        BundleReport(
            subject=described[0],
            cost=base.cost,
            agreement=None,
            rows=matrix.rows(base, dims=widths, vectors=plan.vectors, rerank=can_rerank),
        )
    ]
    for number, bundle in enumerate(subjects[1:], start=1):
        found = _measure(bundle, datasets, plan, pairs, clock.of(number, described[number].label))
        reports.append(
            BundleReport(
                subject=described[number],
                cost=found.cost,
                agreement=agreement(found, base, pairs),
                rows=matrix.rows(
                    found,
                    dims=_dims(bundle, plan),
                    vectors=plan.vectors,
                    rerank=can_rerank and "reranker" in bundle.manifest.parts,
                ),
            )
        )
    return Report(
        galleries=tuple(
            _facts(dataset, run.unreadable) for dataset, run in zip(datasets, base.galleries, strict=True)
        ),
        bundles=tuple(reports),
        gate=None if plan.max_drop is None else check_drop(reports, max_drop=plan.max_drop),
        created_by=" ".join(filter(None, ("qvl-local", installed_version()))),
        machine=_machine(),
        seconds=time.monotonic() - start,
    )


def _machine() -> str:
    """Processor, its instructions that matter, and cores, in a few words."""
    features = "/".join(cpu_features() or ())
    cores = usable_cores()
    words = (cpu_name() or "unknown processor", features, f"{cores} core{'s' if cores > 1 else ''}")
    return ", ".join(filter(None, words))


def _measure(
    bundle: Bundle,
    datasets: Sequence[Dataset],
    plan: Plan,
    pairs: Sequence[NDArray[np.int64]],
    tell: Callable[[str, int, int], None],
) -> Measured:
    none = np.empty((0, 2), np.int64)
    job = Job(
        bundle=str(bundle.path),
        datasets=tuple(datasets),
        dims=plan.dims,
        vectors=plan.vectors,
        rerank=plan.rerank,
        pairs=tuple(pairs) or (none,) * len(datasets),
        threads=plan.threads,
    )
    return measure_in_process(job, tell)


def _dims(bundle: Bundle, plan: Plan) -> tuple[int, ...]:
    return plan.dims or default_dims(bundle.part("embedder").dims)


def _check_width(bundle: Bundle, plan: Plan) -> None:
    width = width_of(bundle)
    for dims in plan.dims or ():
        if dims > width:
            raise InputError(f"--dims {dims}: {bundle.path} embeds in {width} dimensions.")


def _facts(dataset: Dataset, unreadable: Mapping[int, str]) -> GalleryFacts:
    return GalleryFacts(
        name=dataset.name,
        source=dataset.source,
        labels=dataset.labels,
        documents=len(dataset.documents) - len(unreadable),
        questions=len(dataset.questions),
        digest=dataset.digest(),
        unreadable={document_path(dataset.documents[i]): reason for i, reason in unreadable.items()},
    )


class _Clock:
    """Turns the workers' counts into one fraction and the time left."""

    def __init__(
        self, bundles: Sequence[Bundle], datasets: Sequence[Dataset], plan: Plan, progress: Progress | None
    ) -> None:
        documents = sum(len(dataset.documents) for dataset in datasets)
        pairs = 0.0
        if plan.rerank:
            for dataset in datasets:
                most = min(RERANKED * _MORE_PAIRS, len(dataset.documents))
                pairs += len(dataset.questions) * most
        self._one = _DOCUMENT * documents + _PAIR * pairs
        self._documents = _DOCUMENT * documents
        self._count = len(bundles)
        self._progress = progress
        self._start = time.monotonic()

    def of(self, number: int, label: str) -> Callable[[str, int, int], None]:
        """What the worker of the bundle with this number reports to."""

        def tell(stage: str, done: int, total: int) -> None:
            if self._progress is None:
                return
            share = done / total if total else 1.0
            if stage == "documents":
                within = self._documents * share
            else:
                within = self._documents + (self._one - self._documents) * share
            fraction = (number + within / self._one) / self._count if self._one else 1.0
            spent = time.monotonic() - self._start
            left = spent * (1 - fraction) / fraction if fraction > 0.02 else None
            what = "embedding" if stage == "documents" else "reranking"
            self._progress(Step(f"Measuring {label}: {what}", fraction, left))

        return tell
