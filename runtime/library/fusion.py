"""How the embedder's cosine and the reranker's judgement become one order.

The reranker alone does not beat the embedder on every kind of media, so both count:
fused = weight * cosine + logit, where logit is the reranker's (W_yes - W_no)·h and `weight` was measured for
the pair of models (it travels with the bundle).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .records import Candidate

SOFT_AT = 4.0
"""The log-odds whose displayed score is 0.75: 98 in 100."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in its final place. `score` falls along the order, in [0, 1]."""

    candidate: Candidate
    score: float
    probability: float | None


def by_cosine(candidates: Sequence[Candidate]) -> tuple[Ranked, ...]:
    """The embedder's own order; the score is the cosine moved from [-1, 1] to [0, 1]."""
    return tuple(Ranked(candidate, _cosine_score(candidate), None) for candidate in candidates)


def fuse(candidates: Sequence[Candidate], logits: Sequence[float], *, weight: float) -> tuple[Ranked, ...]:
    """Order the first `len(logits)` candidates by weight * cosine + logit; the others follow as they were.

    A logit that is not finite means that the item could not be judged (its file is gone, say): it keeps its
    place among those that follow.

    Scores. A judged item's is `soft(fused - weight * c)`, where c is the mean cosine of the judged: the
    reranker's log-odds, raised or lowered by how far the embedder puts the item above or below the others.
    An item that follows gets the lowest judged score times its own cosine score, so that scores fall along
    the whole order.
    """
    judged = [(c, float(logit)) for c, logit in zip(candidates, logits) if math.isfinite(logit)]
    others = [c for i, c in enumerate(candidates) if i >= len(logits) or not math.isfinite(logits[i])]
    if not judged:
        return by_cosine(candidates)
    centre = sum(candidate.cosine for candidate, _ in judged) / len(judged)
    fused = [(weight * c.cosine + logit, c, logit) for c, logit in judged]
    # Python's sort is stable: equal sums keep the embedder's order.
    fused.sort(key=lambda entry: -entry[0])
    ranked = [Ranked(c, soft(total - weight * centre), sigmoid(logit)) for total, c, logit in fused]
    floor = ranked[-1].score
    ranked += [Ranked(candidate, floor * _cosine_score(candidate), None) for candidate in others]
    return tuple(ranked)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def soft(log_odds: float) -> float:
    """Log-odds on a scale from 0 to 1 that never fills up: 0.5 at even odds, 0.75 at `SOFT_AT`.

    (1 + x / (SOFT_AT + |x|)) / 2. A weight of 40 puts good hits at log-odds of 5 to 15, where `sigmoid` says
    1.00 of all of them; here they stay apart, in the same order.
    """
    return (1 + log_odds / (SOFT_AT + abs(log_odds))) / 2


def _cosine_score(candidate: Candidate) -> float:
    return (1 + min(1.0, max(-1.0, candidate.cosine))) / 2
