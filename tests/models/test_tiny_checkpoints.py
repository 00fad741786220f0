"""The two checkpoints that ship: complete, one architecture, one base, and still able to search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from qvl_local.models.tiny.recipe.evaluate import FREE, Checkpoint, draw, embedder_figures, judge
from qvl_local.models.tiny.recipe.metrics import auc
from qvl_local.models.tiny.recipe.model import LORA_MATRICES, load
from qvl_local.models.tiny.recipe.save import DRESS
from qvl_local.runtime.world.galleries import held_out_galleries
from safetensors.numpy import load_file
from transformers import AutoProcessor

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny"
FOLDERS = ("embedding", "reranker")


@pytest.fixture(scope="module")
def judges() -> dict[str, Checkpoint]:
    torch.set_num_threads(1)
    return {name: Checkpoint(TINY / name) for name in FOLDERS}


@pytest.mark.parametrize("name", FOLDERS)
def test_transformers_loads_every_tensor(name: str) -> None:
    model = load(TINY / name)  # raises on a missing or unexpected key
    assert 5_900_000 < sum(p.numel() for p in model.parameters()) < 6_300_000


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_has_the_hubs_files_and_no_others(name: str) -> None:
    found = {path.name for path in (TINY / name).iterdir()} - {"qvl_fusion.json"}
    assert found == {*DRESS, "model.safetensors"}
    assert {str(t.dtype) for t in load_file(TINY / name / "model.safetensors").values()} == {"float16"}


def test_only_the_six_kinds_of_matrices_differ_and_by_low_rank() -> None:
    a, b = (load_file(TINY / name / "model.safetensors") for name in FOLDERS)
    assert a.keys() == b.keys()
    different = [name for name in a if not np.array_equal(a[name], b[name])]
    assert {name.split(".")[-2] for name in different} == set(LORA_MATRICES)
    assert len(different) == 4 * len(LORA_MATRICES)
    for name in different:
        delta = a[name].astype(np.float32) - b[name].astype(np.float32)
        singular = np.linalg.svd(delta, compute_uv=False)
        # Two adapters of rank 8 on one base: 16 directions, and after them nothing but the rounding of fp16.
        rounding = np.abs(np.spacing(np.maximum(np.abs(a[name]), np.abs(b[name])))).astype(np.float32).max()
        assert singular[16] < rounding * sum(np.sqrt(delta.shape)), name
        assert singular[16] < 0.1 * singular[0], name


def test_the_embedders_tokenizer_ends_a_text_and_the_rerankers_does_not() -> None:
    tokenizers = {name: AutoProcessor.from_pretrained(TINY / name).tokenizer for name in FOLDERS}
    end = tokenizers["embedding"].convert_tokens_to_ids("<|endoftext|>")
    ids = tokenizers["embedding"]("two dogs on a beach").input_ids
    assert ids.count(end) == 1
    assert ids[-1] == end
    assert tokenizers["reranker"]("two dogs on a beach").input_ids == ids[:-1]


def test_the_figures_of_the_card_are_those_that_were_measured() -> None:
    from qvl_local.models.tiny.recipe.card import table

    figures = json.loads((TINY / "figures.json").read_text())
    assert {"images", "clips", "siblings", "probes", "fusion_weight"} <= figures.keys()
    assert table(figures) in (TINY / "README.md").read_text()
    fusion = json.loads((TINY / "reranker" / "qvl_fusion.json").read_text())
    assert fusion["weight"] == figures["fusion_weight"]


def test_the_pair_still_searches(judges: dict[str, Checkpoint]) -> None:
    """A hundred held-out pictures: chance is 0.01, and the card says well above 0.9 for a gallery ten times
    as large.
    """
    images, *_ = held_out_galleries(seed=31, images=100, clips=1, families=1, queries=100)
    drawn = draw(judges["embedding"], images)
    found = embedder_figures(judges["embedding"], drawn, dims=(32, 256))
    assert found["full"]["recall@1"] >= 0.93  # type: ignore[index]
    assert found["full@32"]["recall@1"] >= 0.85  # type: ignore[index]
    judged = judge(judges["embedding"], judges["reranker"], drawn, FREE, limit=30)
    assert auc(judged.logits, judged.truth) >= 0.9
