"""Ranking figures, one value a question: recall@k, nDCG@10, MRR@10, and the overlap of two orders.

Scores are float [Q, N], higher is better; grades float [Q, N], 0 for what does not answer. Ties keep the
order of the documents, which a gallery does not sort by anything that a question asks for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

DEPTH = 10
METRICS = ("recall@1", "recall@5", "recall@10", "ndcg@10", "mrr@10")

Scores = NDArray[np.float64]
Order = NDArray[np.int64]


def first(scores: Scores, count: int = DEPTH) -> Order:
    """int64 [Q, min(count, N)]: the documents with the highest scores, best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def per_question(order: Order, grades: Scores) -> Mapping[str, NDArray[np.float64]]:
    """Every figure of `METRICS`, float64 [Q] each, from the first ten documents of each question.

    recall@k: 1 where an answer is among the first k, as in text-to-image retrieval. nDCG@10: gains are the
    grades, discounted by log2(rank + 1) (Järvelin and Kekäläinen, 2002; linear gains as in trec_eval).
    MRR@10: 1 / rank of the first answer, 0 beyond ten.
    """
    gains = np.take_along_axis(grades, order, axis=1)
    hits = gains > 0
    found = hits.any(axis=1)
    rank = np.where(found, hits.argmax(axis=1) + 1, np.inf)
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))
    ideal = -np.sort(-grades, axis=1)[:, :DEPTH]
    best = (ideal * discount[: ideal.shape[1]]).sum(axis=1)
    ndcg = (gains * discount[: gains.shape[1]]).sum(axis=1) / np.where(best > 0, best, 1.0)
    return {
        "recall@1": (rank <= 1).astype(np.float64),
        "recall@5": (rank <= 5).astype(np.float64),
        "recall@10": (rank <= DEPTH).astype(np.float64),
        "ndcg@10": ndcg,
        "mrr@10": 1 / rank,
    }


def overlap(order: Order, other: Order) -> NDArray[np.float64]:
    """float64 [Q]: the share of the first documents that two orders have in common."""
    same = (order[:, :, None] == other[:, None, :]).any(axis=2)
    return np.asarray(same.mean(axis=1))


def answers_of(order: Order, documents: int) -> Scores:
    """float64 [Q, N]: 1 for the documents of `order`, for datasets that take the reference's word."""
    grades = np.zeros((len(order), documents))
    np.put_along_axis(grades, order, 1.0, axis=1)
    return grades
