"""What a search sees of full-width vectors: a prefix, as floats, as int8, or as sign bits.

The int8 and the bits are those of the library: one scale for all vectors and a query with a scale of its
own, bits above and below the mean of the stored int8. Prefixes are cut from what is stored at full width,
as the library does when its dims are lowered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.codes import Centre
from qvl_local.runtime.library.quantization import choose_scale, quantize, quantize_query

Vectors = Literal["float32", "int8", "binary"]
VECTORS: tuple[Vectors, ...] = get_args(Vectors)

_BITS = 8


def checked_vectors(words: Sequence[str]) -> tuple[Vectors, ...]:
    """The kinds that these words name, the most exact first.

    Raises:
        InputError: a word that names none, or no words.
    """
    for word in words:
        if word not in VECTORS:
            raise InputError(f"--vectors {word}: no such kind. Choose of: {', '.join(VECTORS)}.")
    if not words:
        raise InputError(f"--vectors: is empty. Choose of: {', '.join(VECTORS)}.")
    return tuple(kind for kind in VECTORS if kind in words)


class Stored:
    """One gallery's documents, float32 [N, W] of unit length, and what each kind of vector keeps of them."""

    def __init__(self, documents: NDArray[np.float32]) -> None:
        self._floats = documents
        self._int8, _ = quantize(documents, choose_scale(documents))
        components = self._int8.astype(np.float32)
        self._centre = Centre(components.mean(axis=0), np.square(components).mean(axis=0))
        self._bits = self._centre.row_bits(self._int8)

    def similarities(
        self, queries: NDArray[np.float32], *, dims: int, vectors: Vectors
    ) -> NDArray[np.float64]:
        """Cosines of every query with every document, float64 [Q, N], from the first `dims` components.

        `queries`: float32 [Q, W]. Sign bits estimate a cosine; see `_by_bits`. `dims` of binary vectors is a
        multiple of 8.
        """
        cut = _unit(queries[:, :dims])
        if vectors == "float32":
            return np.asarray(cut @ _unit(self._floats[:, :dims]).T, np.float64)
        if vectors == "int8":
            asked = np.stack([quantize_query(row) for row in cut]).astype(np.float32)
            return np.asarray(_unit(asked) @ _unit(self._int8[:, :dims].astype(np.float32)).T, np.float64)
        return self._by_bits(cut)

    def _by_bits(self, cut: NDArray[np.float32]) -> NDArray[np.float64]:
        """The cosine that a Hamming distance h of d bits tells of: cos(pi h / d) of centred vectors.

        (Charikar, 2002.) Vectors share the mean, so that part of their cosine is the same for all; the rest
        carries the share of squared length that the mean does not explain.
        """
        dims = cut.shape[1]
        asked = np.stack([self._centre.query_bits(row) for row in cut])
        stored = self._bits[:, : dims // _BITS]
        distance = np.stack([np.bitwise_count(stored ^ row).sum(axis=1, dtype=np.int64) for row in asked])
        squares = float(self._centre.mean_square[:dims].sum())
        rest = 1 - float(np.square(self._centre.mean[:dims]).sum()) / squares if squares else 1.0
        return np.asarray(1 - rest + rest * np.cos(np.pi * distance / dims))


def stored_bytes(dims: int, vectors: Vectors) -> int:
    """Bytes of one stored vector."""
    return {"float32": 4 * dims, "int8": dims, "binary": -(-dims // _BITS)}[vectors]


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
