"""Adapters that start from the decoder's weights as they are stored.

`find_adapters` compares two checkpoints. Once the base is rounded, its stored weights differ from the other
model's by what rounding did as well, and factors of the same rank that come closest to the whole difference
lose less of the other model (LoftQ, arXiv:2310.08659). The base, and so the embedder, stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from qvl_local.quant.lowrank import nearest

from .adapters import Adapters
from .blocks import Precision
from .checkpoint import Checkpoint
from .linear import FloatFormat, Weight
from .quantized import HalfFormat
from .tuning import format_of

_ROWS_AT_ONCE = 512


def refit_adapters(
    adapters: Adapters,
    base: Checkpoint,
    other: Checkpoint,
    precision: Precision,
    *,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Give every adapter of a rounded weight the factors that lead from that weight, one at a time.

    Args:
        adapters: of the two checkpoints' difference; their ranks stay.
        base: whose weights the decoder holds.
        other: whose weights base and adapters together give.
        precision: how the decoder stores them.
        progress: told how far it is, in [0, 1].
    """
    found = list(adapters)
    total = sum(adapter.rows * adapter.columns for adapter in found)
    done = 0
    for adapter in found:
        linear = format_of(precision.linear, adapter.name)
        if not isinstance(linear, (FloatFormat, HalfFormat)):
            shape = (adapter.rows, adapter.columns)
            stored = base.stored(adapter.name, shape)
            weight = Weight(adapter.name, *shape, stored.float32, precision.tuning.get(adapter.name))
            difference, target = linear.loaded(weight), other.stored(adapter.name, shape)
            for start in range(0, adapter.rows, _ROWS_AT_ONCE):
                rows = slice(start, min(start + _ROWS_AT_ONCE, adapter.rows))
                np.subtract(target.rows(rows), difference[rows], out=difference[rows])
            adapters.refit(adapter, *nearest(difference, adapter.rank))
        done += adapter.rows * adapter.columns
        if progress is not None:
            progress(done / total)
