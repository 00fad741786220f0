"""One model of the pair on an engine: configuration, processor, encoder, and prompts pooled in waves."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .bundle import Role
from .config import ModelConfig, load_config
from .encoder import Encoder
from .pixels import PixelBudget, load_budget
from .processor import Processor, Prompt
from .session import Engine
from .storage import cache_folder

# Features of one wave: 16,384 tokens take 0.5 GB at a width of 2048 with three deepstack layers.
VISUAL_TOKENS_A_WAVE = 16_384
PROMPTS_A_WAVE = 256


class LoadedPart:
    """The embedder or the reranker, ready to prepare prompts and to pool them."""

    def __init__(self, engine: Engine, role: Role, *, pixels: PixelBudget | None = None) -> None:
        self.engine = engine
        self.bundle = engine.bundle
        self.part = engine.bundle.part(role)
        folder = engine.bundle.file(self.part.folder)
        self.config: ModelConfig = load_config(folder)
        self.budget = _checked(pixels or load_budget(folder), self.config, folder)
        self.processor = Processor(
            folder, self.config, self.budget, role=role, frames=cache_folder() / "prompts"
        )
        self.encoder = Encoder(
            self.config, self.budget, engine.table, vision=engine.vision, decoder=engine.decoder
        )

    def on_engine(self, engine: Engine) -> LoadedPart:
        """The same model with its graphs run by another engine of the same bundle; all else is shared."""
        other = copy.copy(self)
        other.engine = engine
        other.encoder = Encoder(
            self.config, self.budget, engine.table, vision=engine.vision, decoder=engine.decoder
        )
        return other

    def load(self) -> None:
        """Load vision tower and decoder now, side by side, instead of each on its first use."""
        with ThreadPoolExecutor(2, thread_name_prefix="loading graphs") as pool:
            list(pool.map(lambda session: session(), (self.engine.vision, self.engine.decoder)))

    def pool(self, prompts: Iterable[Prompt]) -> NDArray[np.float32]:
        """Pooled states of any number of prompts, float32 [n, H].

        Prompts are drawn a wave at a time, so media are decoded and features kept for one wave only.
        """
        pooled = [np.empty((0, self.config.text.hidden_size), dtype=np.float32)]
        wave: list[Prompt] = []
        tokens = 0
        for prompt in prompts:
            wave.append(prompt)
            tokens += prompt.visual_tokens
            if tokens >= VISUAL_TOKENS_A_WAVE or len(wave) >= PROMPTS_A_WAVE:
                pooled.append(self.encoder.pool(wave))
                wave, tokens = [], 0
        if wave:
            pooled.append(self.encoder.pool(wave))
        return np.concatenate(pooled)


def _checked(budget: PixelBudget, config: ModelConfig, folder: Path) -> PixelBudget:
    """Pixel settings and vision tower must agree on the patch."""
    vision = config.vision
    expected = replace(
        budget,
        patch_size=vision.patch_size,
        merge_size=vision.merge_size,
        temporal_patch_size=vision.temporal_patch_size,
    )
    if expected != budget:
        raise CheckpointError(
            f"{folder}: the pixel settings and config.json disagree about patch, merge or temporal size."
        )
    return budget
