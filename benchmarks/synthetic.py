"""Vectors arranged like those of an embedding model over a real collection, at any size, from a seed.

A vector is a common part (embeddings of one model share a direction), a topic, an event within the topic
(bursts of photos, scenes of one video), the item's own part, and noise; the variance falls along the
dimensions, as it does in models trained for MRL. Queries are half like images (an event of the collection, or
a new one of a known topic) and half like text (the topic and a weaker event, behind a modality gap).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOPIC, EVENT, ITEM = 192, 128, 64
TOPICS = 2000
ITEMS_PER_EVENT = 10
CHUNK = 10_000

# Shares of the variance.
_COMMON, _TOPIC, _EVENT, _ITEM, _NOISE = 0.30, 0.30, 0.20, 0.12, 0.08


@dataclass(frozen=True, slots=True)
class Collection:
    """`vectors`: float32 [n, dims], a memory map; `queries`: float32 [q, dims]. Rows have length 1."""

    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]


def generate(path: Path, *, count: int, dims: int, queries: int, seed: int) -> Collection:
    """Write `count` vectors to `path` (.npy), a chunk at a time, and make `queries` queries."""
    rng = np.random.default_rng(seed)
    model = _Model(rng, dims, events=max(1, count // ITEMS_PER_EVENT))
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (count, dims))
    for start in range(0, count, CHUNK):
        chunk_rng = np.random.default_rng((seed, start))
        rows = min(CHUNK, count - start)
        vectors[start : start + rows] = model.items(chunk_rng, chunk_rng.integers(0, model.events, rows))
    vectors.flush()
    image_like = model.items(rng, rng.integers(0, model.events, queries // 2), new_events=queries // 4)
    text_like = model.texts(rng, rng.integers(0, model.events, queries - queries // 2))
    return Collection(np.load(path, mmap_mode="r"), np.concatenate([image_like, text_like]))


class _Model:
    """The random directions that a collection hangs on."""

    def __init__(self, rng: np.random.Generator, dims: int, *, events: int) -> None:
        variance = (1 + np.arange(dims) / 64) ** -0.8
        self.spread = np.sqrt(variance / variance.sum()).astype(np.float32)
        self.events = events
        self.directions = _normal(rng, TOPIC + EVENT + ITEM, dims) * self.spread
        start = 0
        for width in (TOPIC, EVENT, ITEM):
            weights = np.arange(1, width + 1) ** -0.5
            weights /= np.sqrt((weights**2).sum())
            self.directions[start : start + width] *= weights[:, None].astype(np.float32)
            start += width
        self.common = _normal(rng, dims) * self.spread
        self.gap = _normal(rng, dims) * self.spread
        self.topics = _normal(rng, TOPICS, TOPIC)
        # Few topics are frequent and many are rare.
        frequency = 1 / np.arange(1, TOPICS + 1) ** 0.7
        self.topic_of = rng.choice(TOPICS, events, p=frequency / frequency.sum())
        self.event_parts = _normal(rng, events, EVENT)

    def items(
        self, rng: np.random.Generator, events: NDArray[np.int64], *, new_events: int = 0
    ) -> NDArray[np.float32]:
        """Members of these events; the last `new_events` belong to events that the collection has not."""
        event_parts = self.event_parts[events]
        if new_events:
            event_parts[-new_events:] = _normal(rng, new_events, EVENT)
        latent = self._latent(
            self.topics[self.topic_of[events]], event_parts, _normal(rng, len(events), ITEM)
        )
        return self._placed(rng, latent, np.sqrt(_COMMON) * self.common, np.sqrt(_NOISE))

    def texts(self, rng: np.random.Generator, events: NDArray[np.int64]) -> NDArray[np.float32]:
        """Descriptions of these events: less specific, noisier, and elsewhere in space."""
        latent = self._latent(
            self.topics[self.topic_of[events]],
            0.7 * self.event_parts[events],
            np.zeros((len(events), ITEM), np.float32),
        )
        return self._placed(rng, latent, 0.2 * self.common + 0.6 * self.gap, 0.35)

    def _latent(
        self, topic: NDArray[np.float32], event: NDArray[np.float32], item: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        parts = [np.sqrt(_TOPIC) * topic, np.sqrt(_EVENT) * event, np.sqrt(_ITEM) * item]
        latent: NDArray[np.float32] = np.concatenate(parts, axis=1).astype(np.float32) @ self.directions
        return latent

    def _placed(
        self, rng: np.random.Generator, latent: NDArray[np.float32], centre: NDArray[np.float32], noise: float
    ) -> NDArray[np.float32]:
        rows = latent + centre.astype(np.float32)
        rows += _normal(rng, *rows.shape) * (self.spread * np.float32(noise))
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    values: NDArray[np.float32] = rng.standard_normal(shape, dtype=np.float32)
    return values
