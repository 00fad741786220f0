"""Pairs of pictures of which one may be a copy, a part, or a neighbour of the other: proposed, not decided.

Every hash is compared with every other, and every vector with every other, in blocks: faster than an index at
the size of a person's library, and none is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

NEAR_BITS = 12
"""Bits of 64 by which the hashes of near pictures differ at most."""

# The cosine of the first components of two vectors from which on a part is looked for.
_PART_COSINE = 0.80
_PARTS_OF_ONE = 8
_NEIGHBOURS = 100
_BLOCK, _VECTOR_BLOCK = 64, 512


def alike_hashes(codes: NDArray[np.uint64], check: Callable[[], None]) -> list[tuple[int, int, int]]:
    """Pairs of positions whose hashes are near, and by how many bits; of each the nearest few.

    Every code is compared with every other: 64 at a time, which is faster than an index at this size.
    """
    pairs = []
    for start in range(0, len(codes), _BLOCK):
        check()
        block = codes[start : start + _BLOCK]
        bits = np.bitwise_count(block[:, None] ^ codes[None, start:])
        for row, column in np.argwhere(bits <= NEAR_BITS):
            if column > row:
                pairs.append((start + int(row), start + int(column), int(bits[row, column])))
    return pairs


def alike_vectors(
    vectors: NDArray[np.float32],
    taken: NDArray[np.int64],
    among: NDArray[np.bool_],
    check: Callable[[], None],
) -> list[tuple[int, int]]:
    """Pairs of those `among` whose vectors are near, and whose dates agree or one is missing.

    Of each the nearest few. Shots of a burst differ in their dates, and mostly in nothing else.
    """
    pairs = []
    for start in range(0, len(vectors), _VECTOR_BLOCK):
        check()
        cosines = vectors[start : start + _VECTOR_BLOCK] @ vectors[start:].T
        # Where nearly everything is near, the nearest must do.
        least = _PART_COSINE
        while np.count_nonzero(cosines >= least) > _NEIGHBOURS * len(cosines) and least < 0.99:
            least += 0.03
        rows, columns = np.nonzero(cosines >= least)
        one, other = rows + start, columns + start
        is_dated = (taken[one] >= 0) & (taken[other] >= 0)
        kept = (columns > rows) & among[one] & among[other] & ~(is_dated & (taken[one] != taken[other]))
        rows, columns = rows[kept], columns[kept]
        order = np.lexsort((-cosines[rows, columns], rows))
        rows, columns = rows[order], columns[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        nearest = rank < _PARTS_OF_ONE
        pairs += list(zip((rows[nearest] + start).tolist(), (columns[nearest] + start).tolist()))
    return pairs


def with_cosines(
    pairs: Sequence[tuple[int, int, int]], vectors: NDArray[np.float32]
) -> Iterable[tuple[int, int, float]]:
    """Pairs with the cosine of their unit vectors, float32 [n, d], instead of what came with them."""
    if not pairs:
        return
    first, second, _ = np.array(pairs).T
    for start in range(0, len(pairs), 10_000):
        a, b = first[start : start + 10_000], second[start : start + 10_000]
        cosines = np.einsum("nd,nd->n", vectors[a], vectors[b])
        yield from zip(a.tolist(), b.tolist(), cosines.tolist())
