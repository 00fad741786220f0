"""Confidence intervals by resampling questions: percentile bootstrap (Efron, 1979), paired for differences.

Questions are drawn anew inside each gallery, so that every resample asks as many of each as the report did.
The same draws serve all figures: differences are paired, and a report repeats exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 20261121


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


class Bootstrap:
    """Draws for galleries of the given numbers of questions."""

    def __init__(self, sizes: Sequence[int], *, resamples: int = RESAMPLES) -> None:
        generator = np.random.default_rng(_SEED)
        total = sum(sizes)
        parts = [generator.multinomial(size, np.full(size, 1 / size), size=resamples) for size in sizes]
        # float64 [resamples, Q]: how often each question was drawn, as a weight of the mean.
        self._weights: NDArray[np.float64] = np.concatenate(parts, axis=1) / total

    def mean(self, values: NDArray[np.float64]) -> Estimate:
        """The mean of one value a question, float64 [Q], galleries in the order of the sizes."""
        means = self._weights @ values
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(means, [tail, 100 - tail])
        return Estimate(float(values.mean()), float(low), float(high))

    def difference(self, values: NDArray[np.float64], baseline: NDArray[np.float64]) -> Estimate:
        """The mean of `values - baseline`, question by question."""
        return self.mean(values - baseline)
