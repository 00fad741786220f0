"""Ranking figures over exact relevance: recall@k, nDCG@k, area under the ROC curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Relevance = NDArray[np.bool_]


def recall(scores: Scores, relevant: Relevance, k: int) -> float:
    """Share of queries with a relevant document among the first k: scores, relevant [Q, N]."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(relevant, order, 1).any(1).mean())


def ndcg(scores: Scores, relevant: Relevance, k: int = 10) -> float:
    """Mean normalised discounted cumulative gain of binary relevance (Jarvelin and Kekalainen, 2002)."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    gains = np.take_along_axis(relevant, order, 1)
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.clip(relevant.sum(1), 1, k) - 1]
    return float(((gains * discount[: gains.shape[1]]).sum(1) / ideal).mean())


def auc(scores: Scores, relevant: Relevance) -> float:
    """Chance that a relevant document scores above one that is not."""
    flat, truth = scores.ravel(), relevant.ravel()
    ranks = np.empty(len(flat))
    ranks[np.argsort(flat, kind="stable")] = np.arange(1, len(flat) + 1)
    positive = truth.sum()
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def reranked(scores: Scores, top: NDArray[np.int64], new: NDArray[np.float32]) -> Scores:
    """Scores with the documents `top` [Q, K] of each query put first, in the order of `new` [Q, K]."""
    out = scores - 1e3
    np.put_along_axis(out, top, new + 1e3, 1)
    return out
