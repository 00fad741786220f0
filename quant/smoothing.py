"""Channel smoothing: move what makes activations hard to round into the weights, where it is easier.

A product x W^T is unchanged when each input channel is divided by a number and the weight's column multiplied
by it. `outlier_divisor` spreads outliers over both sides, max|x|^a / max|w|^(1 - a) (SmoothQuant,
arXiv:2211.10438), and `choose` takes the exponent with the smallest error of the rounded product on real
inputs.

Arrays in, arrays out: no file, no graph, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# A weight [rows, K] and inputs [n, K] -> their product [n, rows] with the format's rounding.
RoundedProduct = Callable[[Floats, Floats], Floats]

OUTLIER_STRENGTHS = (0.35, 0.5, 0.65, 0.8)
# A divisor costs a product a channel at run time, so it must be worth it: error against that without one.
WORTHWHILE = 0.95
_SMALLEST = np.float32(1e-5)
# Output rows of a weight that stand for all of them.
ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """`divisor` float32 [K], or None where none is worth it. Errors are relative to the exact product."""

    divisor: Floats | None
    strength: float
    error: float
    plain_error: float


def outlier_divisor(absmax: Floats, weight_absmax: Floats, strength: float) -> Floats:
    """Divisors [K] from the largest magnitude of each channel of inputs and of weights."""
    x = np.maximum(absmax, _SMALLEST)
    w = np.maximum(weight_absmax, _SMALLEST)
    return _normalised(x**strength / w ** (1 - strength), absmax)


def choose(
    weights: Sequence[Floats],
    rows: Floats,
    candidates: Sequence[tuple[float, Floats]],
    rounded: RoundedProduct,
) -> Choice:
    """The divisor under which the rounded products of one input are closest to the exact ones.

    Args:
        weights: [rows, K] each, all multiplied by the same input; `ROWS` of their rows stand for all.
        rows: the input, float32 [n, K].
        candidates: pairs of strength and divisor [K].
        rounded: the product in the format that is to be written.
    """
    exact = [rows @ weight.T for weight in weights]
    size = float(sum(np.sum(np.square(one, dtype=np.float64)) for one in exact)) or 1.0

    def error(divisor: Floats | None) -> float:
        total = 0.0
        for weight, wanted in zip(weights, exact):
            given = rounded(weight, rows) if divisor is None else rounded(weight * divisor, rows / divisor)
            total += float(np.sum(np.square(given - wanted, dtype=np.float64)))
        return float(np.sqrt(total / size))

    plain = error(None)
    best = Choice(None, 0.0, plain, plain)
    for strength, divisor in candidates:
        found = error(divisor)
        if found < best.error and found < plain * WORTHWHILE:
            best = Choice(divisor, strength, found, plain)
    return best


def _normalised(divisor: NDArray[np.floating], seen: Floats) -> Floats:
    """Around 1 in geometric mean, and 1 for channels that calibration never saw."""
    scaled = divisor / np.exp(np.mean(np.log(divisor)))
    return np.where(seen > 0, np.clip(scaled, 1e-4, 1e4), 1).astype(np.float32)
