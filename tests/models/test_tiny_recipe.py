"""The recipe's own arithmetic: its forward against transformers, its labels against the world's relevance."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from qvl_local.models.tiny.recipe.batches import ask
from qvl_local.models.tiny.recipe.evaluate import Checkpoint
from qvl_local.models.tiny.recipe.labels import attribute_flags, queried_cells, shown
from qvl_local.models.tiny.recipe.metrics import auc, ndcg, recall, reranked
from qvl_local.models.tiny.recipe.model import Features, patchify
from qvl_local.models.tiny.recipe.optim import orthogonalised, rate
from qvl_local.models.tiny.recipe.pool import _draw, is_held_out, structure_family
from qvl_local.models.tiny.recipe.prompts import CLIP_16, IMAGE, QUERY_INSTRUCTIONS, Grid
from qvl_local.runtime.world.relevance import match
from qvl_local.runtime.world.scenes import sample
from qvl_local.runtime.world.vocabulary import Slot

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny"
SECONDS = (0.3, 1.4, 2.5, 3.6, 4.7, 5.8, 6.9, 8.0)


@pytest.fixture(scope="module")
def judge() -> Checkpoint:
    torch.set_num_threads(1)
    return Checkpoint(TINY / "reranker")


def _pictures(grid: Grid, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = random.Random(5)
    scenes = [sample(rng, kind=int(grid.video)) for _ in range(n)]
    pixels, boxes = zip(*(_draw((scene, grid, f"t{i}")) for i, scene in enumerate(scenes)), strict=True)
    return np.stack(scenes), np.stack(pixels), np.stack(boxes)


@pytest.mark.parametrize("grid", [IMAGE, CLIP_16])
@torch.no_grad()
def test_the_training_forward_is_the_librarys(judge: Checkpoint, grid: Grid) -> None:
    prompts = judge.prompts
    _, pixels, _ = _pictures(grid, 2)
    patches = patchify(pixels.reshape(2 * grid.slices, -1, *pixels.shape[2:]))
    out = judge.vision(patches)
    width, depth = out.merged.shape[-1], out.deep.shape[1]
    deep = (
        out.deep.reshape(2, grid.slices, depth, -1, width)
        .transpose(1, 2)
        .reshape(2, depth, grid.tokens, width)
    )
    features = Features(out.merged.reshape(2, grid.tokens, width), deep)
    seconds = SECONDS[: grid.slices] if grid.video else ()

    full = judge.model
    flat = patches.float() / 127.5 - 1
    flat = (flat.repeat(1, 1, 1, 2, 1) if flat.shape[3] == 1 else flat).reshape(2, -1, 1536)
    thw = torch.tensor([[grid.slices, grid.side * 2, grid.side * 2]])

    def library(ids: list[int], number: int) -> torch.Tensor:
        kind = ("pixel_values_videos", "video_grid_thw") if grid.video else ("pixel_values", "image_grid_thw")
        tensor = torch.tensor([ids])
        inputs = dict(zip(kind, (flat[number], thw), strict=True))
        return full.model(
            input_ids=tensor, attention_mask=torch.ones_like(tensor), **inputs
        ).last_hidden_state[0, -1]

    layout = prompts.document(grid, seconds)
    ours = judge.text.documents(layout, features)
    for number in range(2):
        assert torch.allclose(ours[number], library(layout.ids.tolist(), number), atol=1e-4)

    layout, texts = prompts.judged(grid, seconds), ("two dogs", "a red car in the snow at night")
    twice = Features(features.merged[[0, 1, 0, 1]], features.deep[[0, 1, 0, 1]])
    last, _ = judge.text.judged(texts, layout, twice)
    for number in range(4):
        ids = prompts.judge_prefix + prompts.judged_query(texts[number // 2]) + layout.ids.tolist()
        assert torch.allclose(last[number], library(ids, number % 2), atol=1e-4)


@torch.no_grad()
def test_texts_of_a_batch_are_those_of_one(judge: Checkpoint) -> None:
    texts = ["dog", "a small red car to the left of three trees on a beach at night", "hotel sign"]
    batch = judge.text.texts(QUERY_INSTRUCTIONS[0], texts)
    for number, text in enumerate(texts):
        assert torch.allclose(batch[number], judge.text.texts(QUERY_INSTRUCTIONS[0], [text])[0], atol=1e-4)


def test_flags_agree_with_relevance() -> None:
    """A scene answers a query about one thing exactly when no flag of the query is false."""
    rng = random.Random(3)
    scenes = np.stack([s for _ in range(40) for s in structure_family(rng, size=4)])
    asked = [ask(rng, scene, i) for i, scene in enumerate(scenes)]
    single = [q for q in asked if q.constraints[Slot.B_OBJECT] < 0 and (scenes[q.source][Slot.B_OBJECT] < 0)]
    assert len(single) > 30
    for query in single:
        near = scenes[query.source // 4 * 4 : query.source // 4 * 4 + 4]
        flags = attribute_flags(np.repeat(query.constraints[None], 4, 0), near)
        assert ((flags != 0).all(1) == match(query.constraints[None], near)[0]).all(), query.text


def test_cells_show_what_the_boxes_say() -> None:
    boxes = np.full((1, 1, 12, 7), -99, np.int16)
    boxes[0, 0, 0] = (7, 0, 64, 32, 30, 30, 2)
    cells = shown(boxes, 4)
    assert cells[0, :, 7].nonzero()[0].tolist() == [1 * 4 + 2]
    query = np.full((1, 17), -1, np.int16)
    query[0, Slot.B_OBJECT] = 7
    wanted = queried_cells(query, cells)
    assert (wanted[0, :, 0] == -1).all()
    assert wanted[0, :, 1].nonzero()[0].tolist() == [6]


def test_a_structure_family_is_one_place_and_never_held_out() -> None:
    family = structure_family(random.Random(8))
    assert len({scene.tobytes() for scene in family}) == 8
    assert len(set(family[:, Slot.PLACE].tolist())) == 1
    assert not any(is_held_out(scene) for scene in family)


def test_figures_of_a_known_ranking() -> None:
    scores = np.array([[0.9, 0.8, 0.1]], np.float32)
    relevant = np.array([[False, True, False]])
    assert recall(scores, relevant, 1) == 0
    assert recall(scores, relevant, 2) == 1
    assert ndcg(scores, relevant) == pytest.approx(1 / np.log2(3))
    assert auc(scores, relevant) == pytest.approx(0.5)
    better = reranked(scores, np.array([[0, 1]]), np.array([[-2.0, 3.0]], np.float32))
    assert better.argsort(1)[0].tolist() == [2, 0, 1]


def test_muon_steps_along_near_orthogonal_directions() -> None:
    matrix = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalised(matrix))
    assert float(singular.min()) > 0.5
    assert float(singular.max()) < 1.5


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    assert rate(0.0, 0, warmup=10, decay=0.5) == pytest.approx(0.1)
    assert rate(0.3, 50, warmup=10, decay=0.5) == 1
    assert rate(0.75, 50, warmup=10, decay=0.5) == pytest.approx(0.5)
    assert rate(1.0, 50, warmup=10, decay=0.5) == 0
