"""Arrays come back from a spool as they went in, in any order, also when they lay in memory in pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qvl_local.export.spool import open_spool


def test_arrays_come_back_in_any_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    whole = generator.standard_normal((8, 6)).astype(np.float32)
    arrays = [
        whole.astype(np.float16)[:, 2:],
        np.arange(7, dtype=np.uint8),
        whole.T,
        np.zeros((0, 4), np.float32),
        np.array(2.5, np.float32),
    ]
    with open_spool(tmp_path) as spool:
        kept = [spool.keep(array) for array in arrays]
        assert list(tmp_path.iterdir()) == []  # it has no name
        for number in (3, 0, 4, 2, 1, 0):
            np.testing.assert_array_equal(kept[number].read(), arrays[number], strict=True)
