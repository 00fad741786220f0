"""The records of a fidelity report, and the object that programs read (docs/json/bench.schema.json)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .bootstrap import CONFIDENCE, RESAMPLES, Estimate
from .dataset import Labels
from .measured import Cost
from .vectors import Vectors


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a row: its mean, and what is left of the reference's (negative: it fell)."""

    mean: Estimate
    change: Estimate


@dataclass(frozen=True, slots=True)
class Row:
    """One way to search with a bundle.

    `figures` by the names of `METRICS`, over all galleries; `galleries` holds the plain means of each one.
    `spearman`, `kendall`: mean rank correlation of the scores of all documents with the reference's, None
    with reranking, which judges only the first. `overlap`: of the first ten with the reference's.
    """

    dims: int
    vectors: Vectors
    rerank: bool
    bytes_per_vector: int
    figures: Mapping[str, Figure]
    galleries: Mapping[str, Mapping[str, float]]
    spearman: float | None
    kendall: float | None
    overlap: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close a bundle is to the reference before anything is ranked.

    Cosines of full-width embeddings of the same document or question. P(yes) over the pairs that the
    reference would rerank; None where one of the two cannot judge.
    """

    cosine_mean: float
    cosine_min: float
    pairs: int
    yes_change_max: float | None
    yes_change_mean: float | None
    judgement_spearman: float | None


@dataclass(frozen=True, slots=True)
class Subject:
    """A bundle as the report names it. `label` is short and unique in the report."""

    label: str
    path: str
    sources: Mapping[str, str]
    precision: Mapping[str, str]
    vision_precision: Mapping[str, str]
    dims: int
    size: int


@dataclass(frozen=True, slots=True)
class BundleReport:
    """Everything about one bundle. `agreement` is None for the reference."""

    subject: Subject
    cost: Cost
    agreement: Agreement | None
    rows: tuple[Row, ...]

    def headline(self, *, rerank: bool) -> Row | None:
        """The row of the first width and the first kind of vectors: what the bundle does at its best."""
        first = self.rows[0]
        for row in self.rows:
            if (row.dims, row.vectors, row.rerank) == (first.dims, first.vectors, rerank):
                return row
        return None


@dataclass(frozen=True, slots=True)
class GalleryFacts:
    """A gallery as the report names it."""

    name: str
    source: str
    labels: Labels
    documents: int
    questions: int
    digest: str
    unreadable: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of the gate."""

    label: str
    rerank: bool
    drop: float
    low: float
    high: float
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Gate:
    """What `--max-drop` demanded and found."""

    max_drop: float
    ok: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report. The reference is the first bundle; times and memory are those of `machine`."""

    galleries: tuple[GalleryFacts, ...]
    bundles: tuple[BundleReport, ...]
    gate: Gate | None
    created_by: str
    machine: str
    seconds: float

    @property
    def reference(self) -> BundleReport:
        """What the others are compared with."""
        return self.bundles[0]

    @property
    def ok(self) -> bool:
        """Whether the gate, if there was one, is passed."""
        return self.gate is None or self.gate.ok


def report_object(report: Report) -> dict[str, Any]:
    """A report as plain values, numbers rounded to what was measured."""
    return {
        "ok": report.ok,
        "created_by": report.created_by,
        "machine": report.machine,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "datasets": [asdict(gallery) for gallery in report.galleries],
        "reference": report.reference.subject.label,
        "bundles": [_bundle_object(bundle) for bundle in report.bundles],
        "gate": None if report.gate is None else _rounded(asdict(report.gate)),
        "seconds": round(report.seconds, 3),
    }


def _bundle_object(bundle: BundleReport) -> dict[str, Any]:
    subject, cost = bundle.subject, bundle.cost
    return {
        "label": subject.label,
        "path": subject.path,
        "sources": dict(subject.sources),
        "precision": dict(subject.precision),
        "vision_precision": dict(subject.vision_precision),
        "dims": subject.dims,
        "bytes": subject.size,
        "cost": _rounded(asdict(cost), 3),
        "agreement": None if bundle.agreement is None else _rounded(asdict(bundle.agreement), 7),
        "rows": [_row_object(row) for row in bundle.rows],
    }


def _row_object(row: Row) -> dict[str, Any]:
    plain: dict[str, Any] = _rounded(
        {
            "dims": row.dims,
            "vectors": row.vectors,
            "rerank": row.rerank,
            "bytes_per_vector": row.bytes_per_vector,
            "figures": {name: figure_object(figure) for name, figure in row.figures.items()},
            "galleries": {name: dict(figures) for name, figures in row.galleries.items()},
            "spearman": row.spearman,
            "kendall": row.kendall,
            "overlap": row.overlap,
        }
    )
    return plain


def figure_object(figure: Figure) -> dict[str, float]:
    """A figure with its bounds and its change."""
    plain: dict[str, float] = _rounded(
        {
            "value": figure.mean.value,
            "low": figure.mean.low,
            "high": figure.mean.high,
            "change": figure.change.value,
            "change_low": figure.change.low,
            "change_high": figure.change.high,
        }
    )
    return plain


def _rounded(value: Any, digits: int = 5) -> Any:
    """Plain values with floats rounded; what is not a number becomes None."""
    if isinstance(value, dict):
        return {key: _rounded(part, digits) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part, digits) for part in value]
    if isinstance(value, float):
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        return round(value, digits) + 0.0 if math.isfinite(value) else None
    return value
