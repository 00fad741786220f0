"""The random checkpoints of the large benchmarks: readable, always the same, and a low rank apart."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.quant.lowrank import FRACTION_BITS, LowRank, Rounding, factorise

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.true_shapes import RANK, SHAPES, Shape, write_hollow, write_pair

SMALL = Shape(256, 7, 4, 2, 64, 320, 64, 3, 2, 96, (0, 1), tied=False, vocabulary=1300, positions=64)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    folder = tmp_path_factory.mktemp("pair")
    return {role: Checkpoint(path) for role, path in write_pair(folder, SMALL).items()}


def test_every_tensor_has_the_shape_that_the_configuration_implies(pair: dict[str, Checkpoint]) -> None:
    embedder = pair["embedder"]
    assert embedder.config.text.num_layers == 7
    assert embedder.stored("language_model.layers.6.mlp.down_proj.weight").shape == (256, 320)
    assert len({embedder.stored(name).file for name in embedder.names()}) == 3
    for name in embedder.names():
        values = embedder.float32(name)
        assert np.isfinite(values).all()
        assert values.std() > 0


def test_what_the_models_share_is_on_the_disk_once(pair: dict[str, Checkpoint]) -> None:
    embedder, reranker = pair["embedder"], pair["reranker"]
    assert embedder.prefix_digest("visual.") == reranker.prefix_digest("visual.")
    name = "language_model.embed_tokens.weight"
    assert embedder.stored(name).file.samefile(reranker.stored(name).file)
    assert embedder.digest("language_model.layers.3.self_attn.o_proj.weight") == reranker.digest(
        "language_model.layers.3.self_attn.o_proj.weight"
    )


def test_the_models_differ_by_two_updates(pair: dict[str, Checkpoint]) -> None:
    name = "language_model.layers.2.mlp.up_proj.weight"
    bits = FRACTION_BITS["bfloat16"]
    found = factorise(
        pair["embedder"].stored(name).rows,
        pair["reranker"].stored(name).rows,
        (320, 256),
        rounding=Rounding(bits, bits),
        limit=100,
    )
    assert isinstance(found, LowRank)
    assert 0.9 * 2 * RANK <= found.rank <= 2 * RANK


def test_the_same_seed_writes_the_same_checkpoint(pair: dict[str, Checkpoint], tmp_path: Path) -> None:
    again = Checkpoint(write_pair(tmp_path, SMALL)["reranker"])
    assert again.prefix_digest("") == pair["reranker"].prefix_digest("")


def test_a_hollow_checkpoint_takes_no_space(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "8b", SHAPES["8b"])
    file = folder / "model.safetensors"
    assert file.stat().st_size > 16_000_000_000
    assert file.stat().st_blocks * 512 < 1_000_000
    assert Checkpoint(folder).stored("language_model.layers.35.mlp.up_proj.weight").shape == (12288, 4096)
