"""Optimisers and the learning-rate schedule.

Full-rank matrices of the text layers train with Muon (Jordan et al., 2024: momentum, orthogonalised by a
Newton-Schulz iteration), everything else with AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .parallel import add_up

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of the Muon write-up
NEWTON_SCHULZ_STEPS = 4


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix with nearly the same singular vectors and singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Steps of fixed spectral size `lr` along the orthogonalised Nesterov momentum.

    The iteration is as dear as a small batch, so each of `workers` processes does it for its share of the
    matrices.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        decay: float = 0.0,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})
        self.rank, self.workers = rank, workers

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            moves = []
            for number, p in enumerate(group["params"]):
                if p.grad is None:
                    raise ValueError("every matrix needs a gradient: call add_up_gradients first")
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                velocity.lerp_(p.grad, 1 - group["momentum"])
                mine = number % self.workers == self.rank
                moves.append(
                    orthogonalised(p.grad.lerp(velocity, group["momentum"])) if mine else torch.zeros_like(p)
                )
            add_up(moves)
            for p, move in zip(group["params"], moves, strict=True):
                stretch = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(move, alpha=-group["lr"] * stretch)


def rate(progress: float, step: int, *, warmup: int, decay: float) -> float:
    """Factor of the learning rate: linear warm-up, flat, then a straight line to zero over the last `decay`
    of the way.

    Every gain in counts and relations came while the rate went down, hence the long decay.
    """
    return min(1.0, (step + 1) / warmup) * min(1.0, max(0.0, 1 - progress) / decay)


def clip(parameters: list[nn.Parameter], limit: float) -> float:
    """Scale gradients down to a total norm of `limit`; returns the norm before."""
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    if not math.isfinite(norm):
        raise FloatingPointError("the gradient is not finite; lower the learning rate")
    return norm
