"""Training batches: queries with documents, drawn so that what is hard comes often."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from numpy.typing import NDArray
from qvl_local.runtime.world.relevance import match
from qvl_local.runtime.world.vocabulary import Slot
from torch import Tensor

from .captions import caption, terse
from .features import Documents
from .labels import attribute_flags, queried_cells
from .model import TextForward
from .prompts import QUERY_INSTRUCTIONS, Grid

STRUCTURE_FAMILY = 8
STRUCTURE = (Slot.A_COUNT, Slot.A_POSITION, Slot.A_SIZE, Slot.B_COUNT, Slot.RELATION)


@dataclass(frozen=True, slots=True)
class Query:
    text: str
    constraints: NDArray[np.int16]  # [17]
    source: int  # the document that it was written for


def ask(rng: random.Random, scene: NDArray[np.int16], source: int, *, structure: bool = False) -> Query:
    """A query for a scene: full caption, partial caption or terse words; `structure`: one that says how
    things are arranged.
    """
    for _ in range(6 if structure else 1):
        kind = rng.random()
        if kind < 0.4:
            text, constraints = terse(rng, scene)
        else:
            text, constraints = caption(rng, scene, full=kind < 0.65)
        if (constraints[list(STRUCTURE)] > 0).any():
            break
    return Query(text, constraints, source)


def time_stamps(rng: random.Random, grid: Grid) -> tuple[float, ...]:
    """Mean times of the frame pairs of a clip sampled at about two frames a second, often exactly so."""
    if not grid.video:
        return ()
    frames, fps = grid.slices * 2, 2.0 if rng.random() < 0.5 else rng.uniform(1.5, 2.4)
    return tuple((2 * i + 0.5) / fps for i in range(frames // 2))


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Queries and documents, row by row; `masked` marks documents that answer a query of another row."""

    parts: tuple[tuple[str, NDArray[np.int64]], ...]
    texts: tuple[str, ...]
    instruction: str
    scenes: NDArray[np.int16]
    constraints: NDArray[np.int16]
    masked: Tensor


def pair_batch(
    rng: random.Random,
    documents: dict[str, Documents],
    plan: Sequence[tuple[str, int]],
    *,
    structure: float | None = None,
) -> PairBatch:
    """plan: (part, how many rows at least), filled with whole families; `structure`: share of big ones."""
    parts, queries, scenes = [], [], []
    for name, rows in plan:
        source, index = documents[name], []
        while len(index) < rows:
            family = _family(rng, source.families, structure)
            index += [int(i) for i in family if i not in index]
        scenes.append(source.scenes[index])
        queries += [
            ask(rng, source.scenes[i], i, structure=not source.grid.video and rng.random() < 0.7)
            for i in index
        ]
        parts.append((name, np.array(index)))
    every, constraints = np.concatenate(scenes), np.stack([q.constraints for q in queries])
    masked = torch.from_numpy(match(constraints, every)).fill_diagonal_(False)
    instruction = QUERY_INSTRUCTIONS[0] if rng.random() < 0.75 else QUERY_INSTRUCTIONS[1]
    return PairBatch(tuple(parts), tuple(q.text for q in queries), instruction, every, constraints, masked)


def _family(
    rng: random.Random, families: list[NDArray[np.int64]], structure: float | None
) -> NDArray[np.int64]:
    while True:
        family = rng.choice(families)
        if structure is None or rng.random() < (
            structure if len(family) == STRUCTURE_FAMILY else 1 - structure
        ):
            return family


@dataclass(frozen=True, slots=True)
class Mined:
    """Queries of one part and the embedder's best documents for each: hits int [Q, H]."""

    queries: list[Query]
    hits: NDArray[np.int64]


@torch.no_grad()
def embed_documents(
    text: TextForward, documents: Documents, rows: NDArray[np.int64], seconds: Sequence[float]
) -> Tensor:
    """Normalised embeddings [R, C] of some rows."""
    layout = text.prompts.document(documents.grid, seconds)
    batches = np.array_split(rows, max(1, len(rows) // 128))
    return torch.cat([F.normalize(text.documents(layout, documents.rows(r)), dim=-1) for r in batches])


@torch.no_grad()
def embed_texts(
    text: TextForward, texts: Sequence[str], *, instruction: str = QUERY_INSTRUCTIONS[0], batch: int = 200
) -> Tensor:
    parts = [text.texts(instruction, texts[i : i + batch]) for i in range(0, len(texts), batch)]
    return F.normalize(torch.cat(parts), dim=-1)


def mine(
    rng: random.Random, text: TextForward, documents: Documents, *, queries: int, among: int, hits: int = 30
) -> Mined:
    """New queries about `among` documents in whole families, and which of those the embedder ranks first."""
    families = rng.sample(documents.families, len(documents.families))
    rows = np.concatenate(families)[:among]
    asked = [
        ask(rng, documents.scenes[i], i, structure=not documents.grid.video and rng.random() < 0.6)
        for i in rng.choices(rows.tolist(), k=queries)
    ]
    table = embed_documents(text, documents, rows, time_stamps(random.Random(0), documents.grid))
    found = [
        (embed_texts(text, [q.text for q in asked[i : i + 1000]]) @ table.T).topk(hits, 1).indices
        for i in range(0, len(asked), 1000)
    ]
    return Mined(asked, rows[torch.cat(found).numpy()])


@dataclass(frozen=True, slots=True)
class JudgeBatch:
    """n queries with K documents each, the first being the query's own; labels in query-major order."""

    texts: tuple[str, ...]
    rows: NDArray[np.int64]  # [n * K]
    relevant: Tensor  # float [n, K]
    flags: Tensor  # int8 [n * K, 12]
    cells: Tensor | None  # int8 [n * K, V, 2]


def judge_batch(
    rng: random.Random, documents: Documents, mined: Mined, *, queries: int, per_query: int, siblings: int
) -> JudgeBatch:
    """Documents of a query: its own, up to `siblings` of its family, and hits of the embedder."""
    chosen = rng.sample(range(len(mined.queries)), queries)
    rows: list[int] = []
    for number in chosen:
        query = mined.queries[number]
        family = [int(i) for i in documents.families[documents.family_of[query.source]] if i != query.source]
        picked = [query.source, *rng.sample(family, min(siblings, len(family)))]
        best = [int(i) for i in mined.hits[number][:24] if i not in picked]
        picked += rng.sample(best, min(per_query - 1 - len(picked), len(best)))
        while len(picked) < per_query:
            picked.append(rng.randrange(len(documents.scenes)))
        rows += picked
    constraints = np.stack([mined.queries[i].constraints for i in chosen])
    index, repeated = np.array(rows), np.repeat(constraints, per_query, 0)
    scenes = documents.scenes[index]
    relevant = np.stack(
        [match(c[None], scenes[i * per_query : (i + 1) * per_query])[0] for i, c in enumerate(constraints)]
    )
    cells = None
    if documents.shown is not None:
        cells = torch.from_numpy(queried_cells(repeated, documents.shown[index]))
    return JudgeBatch(
        texts=tuple(mined.queries[i].text for i in chosen),
        rows=index,
        relevant=torch.from_numpy(relevant).float(),
        flags=torch.from_numpy(attribute_flags(repeated, scenes)),
        cells=cells,
    )
