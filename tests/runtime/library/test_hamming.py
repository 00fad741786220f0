"""faiss, numpy and the definition agree."""

from __future__ import annotations

import numpy as np
import pytest
from qvl_local.runtime.library.hamming import closest, hamming


@pytest.mark.parametrize("width", [8, 20, 64])
@pytest.mark.parametrize("with_faiss", [False, True])
def test_the_closest_are_the_closest(width: int, with_faiss: bool) -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (20_000, width), dtype=np.uint8)
    query = rng.integers(0, 256, width, dtype=np.uint8)
    expected = np.unpackbits(codes ^ query, axis=1).sum(axis=1)
    np.testing.assert_array_equal(hamming(codes, query), expected)
    for wanted in (1, 300, 19_999):
        positions, distances = closest(codes, query, wanted, with_faiss=with_faiss)
        np.testing.assert_array_equal(expected[positions], distances)
        # Equally distant rows: the first ones, so that both ways return the same rows.
        assert sorted(positions) == sorted(np.argsort(expected, kind="stable")[:wanted])


def test_wanting_more_than_there_is_returns_all() -> None:
    codes = np.zeros((5, 8), np.uint8)
    for with_faiss in (False, True):
        positions, distances = closest(codes, np.full(8, 255, np.uint8), 9, with_faiss=with_faiss)
        assert positions.tolist() == [0, 1, 2, 3, 4]
        assert distances.tolist() == [64] * 5
