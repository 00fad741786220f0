"""`python -m models.tiny.recipe`: train qvl-tiny again, stage by stage or all at once, from a checkout with
the [dev] extra.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from .card import refresh
from .evaluate import measure
from .features import encode_pool
from .model import VisionForward, average, fresh, load
from .pool import build
from .save import dress, save, write_json
from .stages import BASE, BASE_LONGER, EMBEDDING, POOL, RERANKER, VISION
from .train import Stage, train
from .vision import train_vision

HERE = Path(__file__).resolve().parents[1]
EMBEDDING_FOLDER, RERANKER_FOLDER = HERE / "embedding", HERE / "reranker"


class Recipe:
    """The stages over one work folder; each reads what the ones before it left there."""

    def __init__(self, work: Path, *, workers: int, scratch: bool) -> None:
        self.work, self.workers, self.scratch = work, workers, scratch
        self.pool, self.features = work / "pool", work / "features"

    def start(self) -> None:
        """The weights to begin with: the mean of the shipped pair, or fresh ones."""
        model = (
            fresh(EMBEDDING_FOLDER, seed=1) if self.scratch else average(EMBEDDING_FOLDER, RERANKER_FOLDER)
        )
        model.save_pretrained(self.work / "start")
        dress(self.work / "start", EMBEDDING_FOLDER)

    def draw(self) -> None:
        """Draw the training pool."""
        build(self.pool, POOL, workers=self.workers)

    def vision(self) -> None:
        """Train the vision tower on dense labels."""
        train_vision(
            VISION, start=self.work / "start", out=self.work / "vision", pool=self.pool, workers=self.workers
        )
        dress(self.work / "vision", EMBEDDING_FOLDER)

    def encode(self) -> None:
        """Compute the vision features of the pool."""
        torch.set_num_threads(self.workers)
        encode_pool(VisionForward(load(self.work / "vision")), self.pool, self.features)

    def base(self) -> None:
        """Train the common base on both tasks."""
        self._text(BASE, "vision", "base", heads=None)

    def base_longer(self) -> None:
        """Train the base on, from a high learning rate again: counts and relations come late."""
        self._text(BASE_LONGER, "base", "base_longer", heads="base")

    def embedding(self) -> None:
        """LoRA for the embedder."""
        self._text(EMBEDDING, "base_longer", "embedding", heads="base_longer")

    def reranker(self) -> None:
        """LoRA for the reranker, against the hits of the base as an embedder."""
        self._text(RERANKER, "base_longer", "reranker", heads="base_longer")

    def ship(self) -> None:
        """Write both checkpoints into the package, in fp16."""
        save(self.work / "embedding", EMBEDDING_FOLDER)
        save(self.work / "reranker", RERANKER_FOLDER)

    def evaluate(self) -> None:
        """Measure the shipped pair; writes figures.json, the card's tables and the fusion record."""
        figures, fusion = measure(EMBEDDING_FOLDER, RERANKER_FOLDER, workers=self.workers)
        write_json(HERE / "figures.json", figures)
        refresh(HERE / "README.md", figures)
        write_json(RERANKER_FOLDER / "qvl_fusion.json", fusion)

    def train(self) -> None:
        """All of it, in order."""
        for stage in STAGES.values():
            print(f"== {stage.__name__}: {stage.__doc__}", flush=True)
            stage(self)

    def _text(self, stage: Stage, start: str, out: str, *, heads: str | None) -> None:
        train(
            stage,
            start=self.work / start,
            out=self.work / out,
            pool=self.pool,
            features=self.features,
            heads=None if heads is None else self.work / heads / "heads.pt",
            workers=min(self.workers, len(stage.tasks)),
        )
        dress(self.work / out, EMBEDDING_FOLDER)


STAGES: dict[str, Callable[[Recipe], None]] = {
    stage.__name__: stage
    for stage in (
        Recipe.start, Recipe.draw, Recipe.vision, Recipe.encode, Recipe.base, Recipe.base_longer,
        Recipe.embedding, Recipe.reranker, Recipe.ship, Recipe.evaluate,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.tiny.recipe", description=__doc__)
    parser.add_argument("stage", choices=["train", *STAGES], help="train runs all the others in order")
    parser.add_argument(
        "--work", type=Path, default=Path("build/qvl-tiny"), help="folder for everything in between (4 GB)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes, at most 2 are of use")
    parser.add_argument(
        "--scratch", action="store_true", help="begin with fresh weights, not with the shipped pair"
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(options.work, workers=options.workers, scratch=options.scratch)
    if options.stage == "train":
        recipe.train()
    else:
        STAGES[options.stage](recipe)


if __name__ == "__main__":
    main()
