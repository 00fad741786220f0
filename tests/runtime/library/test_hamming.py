"""The distances are those of the definition, and the smallest are the smallest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qvl_local.runtime.library.hamming import column_distances, row_distances, smallest, words


@pytest.mark.parametrize("width", [1, 8, 20, 64])
@pytest.mark.parametrize("used", [1.0, 0.7])
def test_distances_are_counted_bits(width: int, used: float) -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (40_000, width), dtype=np.uint8)
    # A truncated query has fewer bytes than the codes; the others must not count.
    length = max(1, int(used * width))
    query = rng.integers(0, 256, length, dtype=np.uint8)
    mask = words(np.full(length, 255, np.uint8))
    expected = np.unpackbits(codes[:, :length] ^ query, axis=1).sum(axis=1)
    columns = np.ascontiguousarray(words(codes).T)
    np.testing.assert_array_equal(column_distances(columns, words(query), mask), expected)
    np.testing.assert_array_equal(row_distances(words(codes), words(query), mask), expected)


@given(
    distances=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    wanted=st.integers(1, 70),
)
def test_the_smallest_are_the_first_of_a_stable_sort(distances: list[int], wanted: int) -> None:
    values = np.array(distances, np.uint16)
    expected = sorted(np.argsort(values, kind="stable")[:wanted].tolist())
    assert smallest(values, wanted).tolist() == expected


def test_the_smallest_of_many_are_found_whatever_a_sample_says() -> None:
    rng = np.random.default_rng(4)
    for values in (
        rng.binomial(512, 0.5, 200_000),
        # All near rows lie between the rows of any regular sample, or all at one end.
        np.where(np.arange(200_000) % 100 == 57, 1, 300),
        np.sort(rng.binomial(512, 0.5, 200_000)),
        np.full(200_000, 7),
    ):
        distances = values.astype(np.uint16)
        for wanted in (1, 500, 4000, 199_999):
            expected = np.sort(np.argsort(distances, kind="stable")[:wanted])
            np.testing.assert_array_equal(smallest(distances, wanted), expected)


def test_words_are_padded_with_zeros() -> None:
    bits = np.array([[1, 0, 0, 0, 0, 0, 0, 0, 2]], np.uint8)
    np.testing.assert_array_equal(words(bits), [[1, 2]])
    assert words(np.empty((5, 0), np.uint8)).shape == (5, 0)
