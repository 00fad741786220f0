"""Rank correlation of two scores for the same documents, question by question.

Both take float [Q, N] twice and give float64 [Q] in [-1, 1]; NaN where one side scores all documents alike.
Ties are dealt with as usual: average ranks for Spearman's rho, tau-b for Kendall's (Kendall, 1945).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def spearman(a: Rows, b: Rows) -> Rows:
    """Pearson's correlation of the ranks."""
    x, y = _average_ranks(a), _average_ranks(b)
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    return np.where(scale > 0, (x * y).sum(axis=1) / np.where(scale > 0, scale, 1), np.nan)


def kendall(a: Rows, b: Rows) -> Rows:
    """tau-b = (concordant - discordant) / sqrt(pairs untied in a * pairs untied in b)."""
    x, y = _dense_ranks(a), _dense_ranks(b)
    # Sorted by (x, y), a pair is discordant where y falls; equal x lie in rising y and add nothing.
    order = np.lexsort((y, x), axis=1)
    sorted_y = np.take_along_axis(y, order, axis=1)
    discordant = _inversions(sorted_y)
    documents = a.shape[1]
    pairs = documents * (documents - 1) / 2
    tied_a, tied_b = _tied(x), _tied(y)
    tied_both = _tied(_dense_ranks(x * documents + y))
    concordant = pairs - tied_a - tied_b + tied_both - discordant
    scale = np.sqrt((pairs - tied_a) * (pairs - tied_b))
    return np.where(scale > 0, (concordant - discordant) / np.where(scale > 0, scale, 1), np.nan)


def _average_ranks(values: Rows) -> Rows:
    """Ranks from 0; equal values share the mean of their places."""
    dense = _dense_ranks(values)
    counts = _counts(dense)
    ends = np.cumsum(counts, axis=1)
    middle = ends - (counts + 1) / 2
    return np.asarray(np.take_along_axis(middle, dense, axis=1))


def _dense_ranks(values: NDArray[Any]) -> NDArray[np.int64]:
    """0, 1, 2, ... in rising order; equal values have equal ranks."""
    order = np.argsort(values, axis=1, kind="stable")
    rising = np.take_along_axis(values, order, axis=1)
    steps = np.zeros(values.shape, np.int64)
    steps[:, 1:] = np.cumsum(rising[:, 1:] != rising[:, :-1], axis=1)
    ranks = np.empty_like(steps)
    np.put_along_axis(ranks, order, steps, axis=1)
    return ranks


def _tied(ranks: NDArray[np.int64]) -> Rows:
    """Pairs of equal values in each row of dense ranks."""
    counts = _counts(ranks)
    return np.asarray((counts * (counts - 1) / 2).sum(axis=1))


def _counts(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [Q, N]: how often each dense rank occurs in its row."""
    rows, documents = ranks.shape
    flat = (ranks + documents * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * documents).reshape(rows, documents)


def _inversions(values: NDArray[np.int64]) -> Rows:
    """Pairs i < j with values[i] > values[j] in each row, for values in 0..N-1; O(N log N), a bit at a time.

    From the highest bit down, elements are kept grouped by the bits above; inside a group, a set bit before
    a clear one is an inversion that no other bit counts.
    """
    rows, documents = values.shape
    total = np.zeros(rows)
    current = values
    for bit in range(max(1, int(documents - 1).bit_length()) - 1, -1, -1):
        ones = (current >> bit) & 1
        before = np.cumsum(ones, axis=1) - ones
        group = current >> (bit + 1)
        starts = np.ones(values.shape, bool)
        starts[:, 1:] = group[:, 1:] != group[:, :-1]
        # `before` never falls along a row, so the running maximum carries a group's first value through it.
        base = np.maximum.accumulate(np.where(starts, before, 0), axis=1)
        total += np.where(ones == 0, before - base, 0).sum(axis=1)
        order = np.argsort(current >> bit, axis=1, kind="stable")
        current = np.take_along_axis(current, order, axis=1)
    return total
