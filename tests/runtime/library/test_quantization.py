"""What int8 costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qvl_local.runtime.library.quantization import (
    choose_scale,
    dequantize,
    quantize,
    quantize_query,
)
from qvl_local.runtime.library.store import Store


@pytest.mark.parametrize("dims", [64, 256, 2048])
def test_cosines_survive(make: Any, dims: int) -> None:
    rows = make.clustered(500, dims)
    scale = choose_scale(rows[:50])
    stored, clipped = quantize(rows, scale)
    assert clipped / stored.size < 1e-3
    back = dequantize(stored, scale)
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    # Rounding moves a component by up to half a step of 1 / scale, evenly: a deviation of step / sqrt(12).
    # The cosine of two unit rows moves by both rows' errors.
    deviation = np.sqrt(2) / scale / np.sqrt(12)
    assert np.sum(back * rows, axis=1).min() > 0.998
    assert np.sum(back * rows, axis=1).mean() > 0.9995
    errors = back @ back.T - rows @ rows.T
    assert errors.std() < 1.1 * deviation < 2e-3 * np.sqrt(2048 / dims)
    assert np.quantile(np.abs(errors), 0.99) < 4 * deviation


def test_a_few_huge_components_widen_the_range(make: Any) -> None:
    rows = make.vectors(200, 2048)
    # One outlier component in each row is below what the quantile sees (1 / 2048 < 1 - 0.9995).
    rows[:, 17] = 0.4
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    stored, clipped = quantize(rows, choose_scale(rows))
    assert clipped == 0
    back = dequantize(stored, choose_scale(rows))
    assert np.sum(back * rows, axis=1) / np.linalg.norm(back, axis=1) == pytest.approx(1, abs=2e-3)


def test_a_lone_vector_settles_a_usable_scale() -> None:
    row = np.zeros((1, 64), np.float32)
    row[0, 5] = 1
    stored, clipped = quantize(row, choose_scale(row))
    assert clipped == 0
    assert stored[0, 5] > 60


def test_clipping_is_measured(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    flat = np.full(64, 0.125, np.float32)
    store.write([make.photo(folder.id, "a.jpg", flat)], space)
    assert store.clipped_fraction(space) == 0
    spike = np.zeros(64, np.float32)
    spike[0] = 1
    store.write([make.photo(folder.id, "b.jpg", spike)], space)
    assert store.clipped_fraction(space) == 1 / 128


def test_a_query_uses_the_whole_range(make: Any) -> None:
    for query in (make.vectors(1, 2048)[0], np.eye(64, dtype=np.float32)[3], -make.vectors(1, 64)[0] * 1e-6):
        stored = quantize_query(query)
        assert np.abs(stored).max() == 127
        cosine = (
            stored @ query.astype(np.float64) / np.linalg.norm(stored.astype(float)) / np.linalg.norm(query)
        )
        assert cosine > 0.9998
