"""An export holds a few of the largest tensors, never the model."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from qvl_local.export.bundle_writer import write_graph, write_table
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.linear import NUMPY_TYPES
from qvl_local.export.recipe import PRECISIONS
from qvl_local.export.reference import DecoderInputs, run_decoder

HIDDEN, INNER = 128, 2048
LARGEST = HIDDEN * INNER * 4  # bytes of the largest tensor in float32


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint: Callable[..., Path]) -> Checkpoint:
    """12 layers in bfloat16 shards: 36 tensors of the largest size, and smaller ones."""
    return Checkpoint(
        random_checkpoint(hidden=HIDDEN, intermediate=INNER, layers=12, dtype="bfloat16", shards=4)
    )


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """numpy tells tracemalloc of its arrays; mapped files are not memory that a process holds."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= size, f"{peak / LARGEST:.1f} times the largest tensor"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-weight", "int4", "nf4"])
def test_writing_a_graph_holds_a_few_tensors(checkpoint: Checkpoint, tmp_path: Path, precision: str) -> None:
    written: list[int] = []
    with at_most(5 * LARGEST):
        model = build_decoder(checkpoint, PRECISIONS[precision].graph)
        write_graph(model, tmp_path / "decoder.onnx", written=written.append, stored={})
    assert sum(written) > 4.5 * LARGEST  # the 36 largest, at 4 bits; far more was read


def test_building_a_graph_reads_no_weight(checkpoint: Checkpoint) -> None:
    with at_most(LARGEST):
        build_decoder(checkpoint, PRECISIONS["fp32"].graph)


def test_the_token_table_is_written_in_blocks(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvl_local.export.bundle_writer._ROWS_AT_ONCE", 64)
    dtype = PRECISIONS["fp32"].graph.activation
    with at_most(LARGEST // 4):
        write_table(checkpoint, tmp_path / "table.bin", dtype, written=lambda _: None)
    table = np.fromfile(tmp_path / "table.bin", NUMPY_TYPES[dtype])
    assert np.array_equal(table, checkpoint.float32("language_model.embed_tokens.weight").reshape(-1))


def test_hashing_holds_one_block(checkpoint: Checkpoint) -> None:
    with at_most(2 * LARGEST):
        checkpoint.content_hash()


def test_the_reference_holds_one_layer(checkpoint: Checkpoint) -> None:
    generator = np.random.default_rng(0)
    inputs = DecoderInputs(
        embeds=generator.standard_normal((1, 3, HIDDEN), dtype=np.float32),
        cos=np.ones((1, 3, 16), np.float32),
        sin=np.zeros((1, 3, 16), np.float32),
        deepstack=np.zeros((2, 1, 1, HIDDEN), np.float32),
        last=np.array([2]),
    )
    with at_most(6 * LARGEST):
        run_decoder(checkpoint, [inputs])
