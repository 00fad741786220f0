"""From vectors and logits to the rows of a report: dims x vectors x reranking, against the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap
from .correlation import kendall, spearman
from .dataset import Dataset
from .measured import RERANKED, GalleryRun, Measured
from .metrics import METRICS, Order, Scores, answers_of, first, overlap, per_question
from .report import Agreement, Figure, Row
from .vectors import Stored, Vectors, stored_bytes

PerQuestion = Mapping[str, NDArray[np.float64]]
Correlation = Callable[[Scores, Scores], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """One gallery ranked one way. `scores` float64 [Q, N] of the embedder, hidden documents at -inf."""

    scores: Scores
    order: Order


class Matrix:
    """All rows of a report. The reference's full-width float vectors are what every row is compared with."""

    def __init__(self, datasets: Sequence[Dataset], reference: Measured, *, dims: int, rerank: bool) -> None:
        """`dims`: the reference's full width. `rerank`: whether the report reranks."""
        self._datasets = datasets
        self._hidden = [_hidden(d, r) for d, r in zip(datasets, reference.galleries, strict=True)]
        self._bootstrap = Bootstrap([len(dataset.questions) for dataset in datasets])
        self._reference = {
            reranked: self._rank_all(reference, dims, "float32", reranked)
            for reranked in ((False, True) if rerank else (False,))
        }
        self._baseline = {
            reranked: self._per_question(rankings, reranked) for reranked, rankings in self._reference.items()
        }

    def candidates(self) -> tuple[NDArray[np.int64], ...]:
        """The pairs of (question, document) that the reference reranks, int64 [P, 2] for each gallery."""
        pairs = []
        for ranking, hidden in zip(self._reference[False], self._hidden, strict=True):
            chosen = np.zeros(hidden.shape, bool)
            np.put_along_axis(chosen, first(ranking.scores, RERANKED), True, axis=1)
            pairs.append(np.argwhere(chosen & ~hidden))
        return tuple(pairs)

    def rows(
        self, measured: Measured, *, dims: Sequence[int], vectors: Sequence[Vectors], rerank: bool
    ) -> tuple[Row, ...]:
        """Every combination, the widest and most exact first."""
        stored = [Stored(run.documents) for run in measured.galleries]
        return tuple(
            self._row(measured, stored, width, kind, reranked)
            for width in dims
            for kind in vectors
            for reranked in ((False, True) if rerank else (False,))
        )

    def _row(
        self, measured: Measured, stored: Sequence[Stored], dims: int, vectors: Vectors, rerank: bool
    ) -> Row:
        rankings = self._rank_all(measured, dims, vectors, rerank, stored)
        values = self._per_question(rankings, rerank)
        baseline = self._baseline[rerank]
        reference = self._reference[rerank]
        figures = {
            name: Figure(
                self._bootstrap.mean(_joined(values, name)),
                self._bootstrap.difference(_joined(values, name), _joined(baseline, name)),
            )
            for name in METRICS
        }
        shared = [overlap(mine.order, theirs.order) for mine, theirs in zip(rankings, reference, strict=True)]
        return Row(
            dims=dims,
            vectors=vectors,
            rerank=rerank,
            bytes_per_vector=stored_bytes(dims, vectors),
            figures=figures,
            galleries={
                dataset.name: {name: float(own[name].mean()) for name in METRICS}
                for dataset, own in zip(self._datasets, values, strict=True)
            },
            spearman=None if rerank else self._correlation(spearman, rankings),
            kendall=None if rerank else self._correlation(kendall, rankings),
            overlap=float(np.concatenate(shared).mean()),
        )

    def _rank_all(
        self,
        measured: Measured,
        dims: int,
        vectors: Vectors,
        rerank: bool,
        stored: Sequence[Stored] | None = None,
    ) -> list[_Ranking]:
        stored = stored or [Stored(run.documents) for run in measured.galleries]
        rankings = []
        for run, documents, hidden in zip(measured.galleries, stored, self._hidden, strict=True):
            scores = documents.similarities(run.queries, dims=dims, vectors=vectors)
            scores[hidden] = -np.inf
            final = _fused(scores, run, measured.weight) if rerank else scores
            rankings.append(_Ranking(scores, first(final)))
        return rankings

    def _per_question(self, rankings: Sequence[_Ranking], rerank: bool) -> list[PerQuestion]:
        values = []
        for number, (dataset, ranking) in enumerate(zip(self._datasets, rankings, strict=True)):
            if dataset.labels == "reference":
                grades = answers_of(self._reference[rerank][number].order, len(dataset.documents))
                grades[self._hidden[number]] = 0
            else:
                grades = dataset.grades()
            values.append(per_question(ranking.order, grades))
        return values

    def _correlation(self, measure: Correlation, rankings: Sequence[_Ranking]) -> float | None:
        values = []
        for mine, theirs, hidden in zip(rankings, self._reference[False], self._hidden, strict=True):
            # Documents that nobody may find are last on both sides and would flatter the figure.
            kept = ~hidden
            counts = kept.sum(axis=1)
            for count in np.unique(counts):
                rows = counts == count
                a, b = (s[rows][kept[rows]].reshape(-1, count) for s in (mine.scores, theirs.scores))
                values.append(measure(a, b))
        return _mean(np.concatenate(values))


def agreement(
    measured: Measured, reference: Measured, pairs: Sequence[NDArray[np.int64]]
) -> Agreement | None:
    """Cosines and changes of P(yes); None for models of different widths, which share no space."""
    cosines, changes, correlations = [], [], []
    for mine, theirs, judged in zip(measured.galleries, reference.galleries, pairs, strict=True):
        if mine.documents.shape != theirs.documents.shape:
            return None
        readable = [i for i in range(len(mine.documents)) if i not in mine.unreadable]
        cosines.append(np.einsum("nd,nd->n", mine.documents[readable], theirs.documents[readable]))
        cosines.append(np.einsum("nd,nd->n", mine.queries, theirs.queries))
        if len(mine.logits) and len(theirs.logits):
            a, b = _logits_at(mine, judged), _logits_at(theirs, judged)
            changes.append(np.abs(_sigmoid(a) - _sigmoid(b)))
            correlations.append(_by_question(a, b, judged))
    cosine = np.concatenate(cosines)
    change = np.concatenate(changes) if changes else np.empty(0)
    return Agreement(
        cosine_mean=float(cosine.mean()),
        cosine_min=float(cosine.min()),
        pairs=len(change),
        yes_change_max=float(np.nanmax(change)) if len(change) else None,
        yes_change_mean=float(np.nanmean(change)) if len(change) else None,
        judgement_spearman=_mean(np.concatenate(correlations)) if correlations else None,
    )


def _hidden(dataset: Dataset, run: GalleryRun) -> NDArray[np.bool_]:
    hidden = dataset.hidden()
    hidden[:, list(run.unreadable)] = True
    return hidden


def _fused(scores: Scores, run: GalleryRun, weight: float) -> Scores:
    """Scores that put the judged first documents in front, by weight * cosine + logit, as a search does."""
    top = first(scores, RERANKED)
    logits = np.full(scores.shape, np.nan)
    logits[run.pairs[:, 0], run.pairs[:, 1]] = run.logits
    cosines = np.take_along_axis(scores, top, axis=1)
    judged = np.take_along_axis(logits, top, axis=1) + weight * np.where(np.isfinite(cosines), cosines, 0)
    usable = np.isfinite(judged) & np.isfinite(cosines)
    final = scores - 10.0  # cosines and their sums with logits stay apart: see the shift below
    shifted = np.where(usable, judged - np.nanmin(np.where(usable, judged, 0.0)), 0.0)
    np.put_along_axis(final, top, np.where(usable, shifted, cosines - 10.0), axis=1)
    return final


def _logits_at(run: GalleryRun, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    table = np.full((len(run.queries), len(run.documents)), np.nan)
    table[run.pairs[:, 0], run.pairs[:, 1]] = run.logits
    return np.asarray(table[pairs[:, 0], pairs[:, 1]])


def _by_question(a: Scores, b: Scores, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Spearman's correlation of two judgements, one value a question."""
    values = []
    for number in np.unique(pairs[:, 0]):
        rows = (pairs[:, 0] == number) & np.isfinite(a) & np.isfinite(b)
        if rows.sum() > 1:
            values.append(spearman(a[None, rows], b[None, rows])[0])
    return np.array(values)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _joined(values: Sequence[PerQuestion], name: str) -> NDArray[np.float64]:
    return np.concatenate([own[name] for own in values])


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
