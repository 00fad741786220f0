"""Prompts to pooled states: lookup, vision, placing, decoder; batched without changing any row.

Images and frame pairs of one size run through the vision tower together (attention never crosses them),
prompts of similar length run through the decoder together (causal attention never sees right padding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ModelMemoryError
from .bundle import Bundle, Role, Table
from .config import ModelConfig
from .pixels import PixelBudget, to_patches
from .positions import PatchPositions, patch_positions, token_rotary
from .processor import Prompt, Vision
from .session import Array, Rows, Session

# One run of the vision tower holds about this many patches, one of the decoder this many tokens: beyond that
# a larger batch is no faster on a CPU, and activations grow.
PATCHES_A_RUN = 8192
TOKENS_A_RUN = 4096
_NO_LIMIT = 1 << 62
# A batch takes shorter rows only as long as at most this part of it is padding.
_MAX_PADDING = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the vision tower gives for one image or video.

    `main` float32 [M, H], `deepstack` float32 [K, M, H]: M visual tokens in prompt order, K deepstack layers.
    """

    main: NDArray[np.float32]
    deepstack: NDArray[np.float32]


class Encoder:
    """Runs one model of the pair. A text alone never asks for the vision session."""

    def __init__(
        self,
        config: ModelConfig,
        budget: PixelBudget,
        table: Rows,
        *,
        vision: Callable[[], Session],
        decoder: Callable[[], Session],
    ) -> None:
        self._config = config
        self._budget = budget
        self._table = table
        self._vision = vision
        self._decoder = decoder
        # What memory was found to hold when a run did not fit, so that later batches are made smaller.
        self._patches_that_fit = self._tokens_that_fit = _NO_LIMIT
        self._grid_positions = lru_cache(maxsize=64)(self._new_grid_positions)

    def pool(self, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Last token's state of every prompt after the final norm, float32 [n, H]; not L2-normalised.

        Raises:
            ModelMemoryError: not even a single row, or a single image, fits into memory.
        """
        pooled = np.empty((len(prompts), self._config.text.hidden_size), dtype=np.float32)
        features = self.see([vision for prompt in prompts for vision in prompt.visions])
        for rows in _batches(prompts, limit=lambda: min(TOKENS_A_RUN, self._tokens_that_fit)):
            pooled[rows] = self._decode_in_halves([prompts[row] for row in rows], features)
        return pooled

    def see(self, visions: Sequence[Vision]) -> dict[int, Features]:
        """Run the vision tower on each distinct image or video; keys are `id(vision)`."""
        by_size: dict[tuple[int, ...], list[Vision]] = {}
        for vision in {id(vision): vision for vision in visions}.values():
            by_size.setdefault(vision.frames.shape[1:], []).append(vision)
        features: dict[int, Features] = {}
        for group in by_size.values():
            outputs = self._see_group(np.concatenate([vision.frames for vision in group]))
            start = 0
            for vision in group:
                end = start + len(vision.frames)
                main, deepstack = outputs.main[start:end], outputs.deepstack[:, start:end]
                width = main.shape[-1]
                features[id(vision)] = Features(
                    main=main.reshape(-1, width),
                    deepstack=deepstack.reshape(len(deepstack), -1, width),
                )
                start = end
        return features

    def _see_group(self, frames: NDArray[np.uint8]) -> Features:
        """Layers of one size, uint8 [S, T, h, w, 3] -> main [S, M, H], deepstack [K, S, M, H]."""
        patch = self._config.vision.patch_size
        rows, columns = frames.shape[2] // patch, frames.shape[3] // patch
        place = self._grid_positions(rows, columns)
        session = self._vision()
        main, deepstack = [], []
        start = 0
        while start < len(frames):
            most = min(PATCHES_A_RUN, self._patches_that_fit)
            layers = frames[start : start + max(1, most // (rows * columns))]
            try:
                outputs = session.run(
                    {
                        "patches": to_patches(layers, self._budget),
                        "pos_idx": place.index,
                        "pos_w": place.weight,
                        "cos": place.cos,
                        "sin": place.sin,
                    }
                )
            except ModelMemoryError:
                if len(layers) == 1:
                    raise
                self._patches_that_fit = len(layers) // 2 * rows * columns
                continue
            main.append(outputs["features"])
            deepstack.append(outputs["deepstack"])
            start += len(layers)
        return Features(main=np.concatenate(main), deepstack=np.concatenate(deepstack, axis=1))

    def _decode_in_halves(
        self, prompts: Sequence[Prompt], features: dict[int, Features]
    ) -> NDArray[np.float32]:
        """One batch, or its halves, and theirs, where it does not fit into memory."""
        try:
            return self._decode(prompts, features)
        except ModelMemoryError:
            if len(prompts) == 1:
                raise
            half = len(prompts) // 2
            self._tokens_that_fit = half * max(len(prompt.ids) for prompt in prompts)
        first = self._decode_in_halves(prompts[:half], features)
        return np.concatenate([first, self._decode_in_halves(prompts[half:], features)])

    def _decode(self, prompts: Sequence[Prompt], features: dict[int, Features]) -> NDArray[np.float32]:
        """One batch: rows padded on the right to the longest."""
        text = self._config.text
        longest = max(len(prompt.ids) for prompt in prompts)
        embeds = np.zeros((len(prompts), longest, text.hidden_size), dtype=np.float32)
        positions = np.zeros((3, len(prompts), longest), dtype=np.int64)
        layers = len(self._config.vision.deepstack_layers)
        seen = any(prompt.visions for prompt in prompts)
        rows_and_columns = (len(prompts), longest) if seen else (1, 1)  # zeros for text broadcast
        deepstack = np.zeros((layers, *rows_and_columns, text.hidden_size), dtype=np.float32)
        for row, prompt in enumerate(prompts):
            length = len(prompt.ids)
            embeds[row, :length] = self._table[prompt.ids]
            positions[:, row, :length] = prompt.positions
            if prompt.visions:
                places = np.flatnonzero(prompt.is_visual)
                given = [features[id(vision)] for vision in prompt.visions]
                embeds[row, places] = np.concatenate([one.main for one in given])
                deepstack[:, row, places] = np.concatenate([one.deepstack for one in given], axis=1)
        cos, sin = token_rotary(positions, text)
        last = np.asarray([len(prompt.ids) - 1 for prompt in prompts], dtype=np.int64)
        feeds: dict[str, Array] = {
            "embeds": embeds,
            "cos": cos,
            "sin": sin,
            "deepstack": deepstack,
            "last": last,
        }
        return self._decoder().run(feeds)["pooled"]

    def _new_grid_positions(self, rows: int, columns: int) -> PatchPositions:
        return patch_positions(rows, columns, self._config.vision)


def open_table(bundle: Bundle, role: Role) -> NDArray[Any]:
    """Memory-map the token embedding table of a part: float32 or float16 [vocabulary, H].

    Raises:
        BundleError: the file has another size than the manifest says.
    """
    table: Table = bundle.part(role).table
    file: Path = bundle.file(table.file)
    try:
        return np.memmap(file, dtype=table.dtype, mode="r", shape=(table.rows, table.columns))
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: cannot be mapped ({error}). Export the bundle again.") from error


def _batches(prompts: Sequence[Prompt], *, limit: Callable[[], int]) -> Iterator[list[int]]:
    """Rows of prompts of similar length, text alone apart from what has pixels, of at most `limit` tokens.

    The limit is asked for at every row, since it falls when memory runs out.
    """
    order = sorted(range(len(prompts)), key=lambda row: (bool(prompts[row].visions), -len(prompts[row].ids)))
    batch: list[int] = []
    longest = 0
    tokens = 0
    for row in order:
        length = len(prompts[row].ids)
        size = (len(batch) + 1) * longest
        if batch and (
            bool(prompts[row].visions) != bool(prompts[batch[0]].visions)
            or size > limit()
            or size - tokens - length > _MAX_PADDING * size
        ):
            yield batch
            batch, tokens = [], 0
        if not batch:
            longest = length
        batch.append(row)
        tokens += length
    if batch:
        yield batch
