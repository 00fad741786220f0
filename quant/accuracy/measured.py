"""What is asked of a measuring process and what it brings back. Plain records that cross process borders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset
from .vectors import Vectors

RERANKED = 20
"""Documents that the reranker reads for one question, as in a search."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One bundle on all galleries.

    `dims` None means `default_dims` of the bundle. `pairs`: for each gallery int64 [P, 2] of (question,
    document) that must be judged besides the bundle's own candidates, so that two bundles can be compared.
    """

    bundle: str
    datasets: tuple[Dataset, ...]
    dims: tuple[int, ...] | None
    vectors: tuple[Vectors, ...]
    rerank: bool
    pairs: tuple[NDArray[np.int64], ...]
    threads: int | None


@dataclass(frozen=True, slots=True, eq=False)
class GalleryRun:
    """What one bundle makes of one gallery.

    `documents` float32 [N, W] and `queries` float32 [Q, W], full width, unit length; rows of documents that
    could not be read are zero, and `unreadable` maps them to the reason. `pairs` int64 [P, 2] of (question,
    document), `logits` float32 [P] of "yes" against "no".
    """

    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    pairs: NDArray[np.int64]
    logits: NDArray[np.float32]
    unreadable: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Cost:
    """Median milliseconds of one document (read, fitted, embedded), one question, one judged pair; peak RSS.

    None where nothing of the kind was done, or where the system does not tell.
    """

    document_ms: float | None
    question_ms: float | None
    pair_ms: float | None
    peak_bytes: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Everything about one bundle. `weight` is the cosine's part in the fused score."""

    galleries: tuple[GalleryRun, ...]
    weight: float
    cost: Cost


def default_dims(served: int) -> tuple[int, ...]:
    """The width that a bundle serves and its halves, down to 64, in multiples of 8."""
    dims = [served]
    while dims[-1] // 2 >= 64 and dims[-1] % 16 == 0:
        dims.append(dims[-1] // 2)
    return tuple(dims)
