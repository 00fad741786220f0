"""The settings of the run that ships, one constant a stage.

`minutes` were the limits of that run on two shared cores with AVX2; every stage ended by them, and the
learning rate came down in time.
"""

from __future__ import annotations

from .pool import PoolPlan
from .train import EMBED, JUDGE, Stage
from .vision import VisionPlan

POOL = PoolPlan(structure=1000, mixed=2000, clips_8=300, clips_16=300, seed=11)
VISION = VisionPlan(steps=100_000, minutes=5, seed=21, lr=3e-4)
BASE = Stage(
    tasks=(EMBED, JUDGE), steps=100_000, minutes=32, seed=1, muon_lr=6e-3, lr=8e-4, decay=0.6,
    mine_every=500, mined_queries=4000, mined_among=4800,
)  # fmt: skip
BASE_LONGER = Stage(
    tasks=(EMBED, JUDGE), steps=100_000, minutes=62, seed=6, muon_lr=6e-3, lr=8e-4, decay=0.6,
    mine_every=900, mined_queries=4000, mined_among=4800,
)  # fmt: skip
EMBEDDING = Stage(
    tasks=(EMBED,), steps=100_000, minutes=20, seed=2, rank=8, lr=2e-3, decay=0.7, structure=0.7
)
RERANKER = Stage(
    tasks=(JUDGE,), steps=100_000, minutes=20, seed=3, rank=8, lr=2e-3, decay=0.7,
    siblings=2, mine_every=100_000, mined_queries=4000, mined_among=4800,
)  # fmt: skip
