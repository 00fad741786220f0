"""int8 and sign-bit vectors as a library searches them, against the library's own code and plain floats."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.quant.accuracy.correlation import spearman
from qvl_local.quant.accuracy.vectors import VECTORS, Stored, Vectors, checked_vectors, stored_bytes
from qvl_local.runtime.errors import InputError

Array = NDArray[np.float32]


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def rows() -> tuple[Array, Array]:
    """400 documents and 12 questions near some of them, with the common part that real embeddings have."""
    generator = np.random.default_rng(8)
    common = generator.standard_normal(256, dtype=np.float32)
    documents = common + generator.standard_normal((400, 256), dtype=np.float32)
    questions = documents[:12] + 0.4 * generator.standard_normal((12, 256), dtype=np.float32)
    return unit(documents), unit(questions)


@pytest.mark.parametrize("dims", [256, 64])
def test_floats_are_the_cosines_of_normalised_prefixes(rows: tuple[Array, Array], dims: int) -> None:
    documents, questions = rows
    expected = unit(questions[:, :dims]).astype(np.float64) @ unit(documents[:, :dims]).astype(np.float64).T
    found = Stored(documents).similarities(questions, dims=dims, vectors="float32")
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dims", [256, 64])
def test_int8_is_close_and_binary_is_coarse(rows: tuple[Array, Array], dims: int) -> None:
    documents, questions = rows
    stored = Stored(documents)
    exact = stored.similarities(questions, dims=dims, vectors="float32")
    int8 = stored.similarities(questions, dims=dims, vectors="int8")
    binary = stored.similarities(questions, dims=dims, vectors="binary")
    assert 0 < np.abs(int8 - exact).max() < 0.02
    assert spearman(int8, exact).mean() > 0.99
    assert 0.5 < spearman(binary, exact).mean() < spearman(int8, exact).mean()
    # The estimate is a cosine: as large for the nearest as the true one, give or take the coarse bits.
    assert np.abs(binary - exact).mean() < 0.1


@pytest.mark.parametrize("vectors", VECTORS)
def test_the_nearest_is_found(rows: tuple[Array, Array], vectors: Vectors) -> None:
    documents, questions = rows
    found = Stored(documents).similarities(questions, dims=256, vectors=vectors).argmax(axis=1)
    assert found.tolist() == list(range(12))


def test_binary_is_the_hamming_order_of_the_library(rows: tuple[Array, Array]) -> None:
    from qvl_local.runtime.library.codes import Centre
    from qvl_local.runtime.library.quantization import choose_scale, quantize

    documents, questions = rows
    stored, _ = quantize(documents, choose_scale(documents))
    floats = stored.astype(np.float32)
    centre = Centre(floats.mean(axis=0), np.square(floats).mean(axis=0))
    distance = np.unpackbits(centre.row_bits(stored) ^ centre.query_bits(questions[0]), axis=1).sum(axis=1)
    found = Stored(documents).similarities(questions[:1], dims=256, vectors="binary")[0]
    assert (np.argsort(-found, kind="stable") == np.argsort(distance, kind="stable")).all()


def test_sizes() -> None:
    assert [stored_bytes(128, kind) for kind in VECTORS] == [512, 128, 16]


def test_kinds_are_checked_and_put_in_order() -> None:
    assert checked_vectors(["binary", "float32"]) == ("float32", "binary")
    with pytest.raises(InputError, match="int4"):
        checked_vectors(["int4"])
    with pytest.raises(InputError, match="--vectors"):
        checked_vectors([])
