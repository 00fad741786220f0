"""Writing a batch of files with their vectors: all of it, or nothing.

Runs inside the transaction of its caller, but for `check_batch`, which needs none.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import numpy as np

from ..errors import InputError
from .media import write_media, write_segments
from .records import FailedMedia, IndexedMedia, Space
from .spaces import encode_batch


def check_batch(batch: Sequence[IndexedMedia | FailedMedia], space: Space) -> None:
    """Raise InputError for a vector that is not finite, of another width than `space`, or not of length 1."""
    for item in batch:
        if isinstance(item, IndexedMedia):
            _check_vectors(item, space)


def write_batch(
    connection: apsw.Connection, batch: Sequence[IndexedMedia | FailedMedia], space: Space
) -> tuple[int, ...]:
    """Write files that were checked, and return their media ids."""
    vectors = [s.vector for item in batch if isinstance(item, IndexedMedia) for s in item.segments]
    stored = encode_batch(connection, space, np.stack(vectors)) if vectors else None
    media_ids = []
    taken = 0
    for item in batch:
        media_ids.append(write_media(connection, item, space))
        if isinstance(item, IndexedMedia) and stored is not None:
            rows = stored[taken : taken + len(item.segments)]
            write_segments(connection, media_ids[-1], space, item.segments, rows)
            taken += len(rows)
    return tuple(media_ids)


def _check_vectors(item: IndexedMedia, space: Space) -> None:
    if not item.segments:
        raise InputError(f"{item.file.name}: a file without a single vector cannot be indexed")
    for segment in item.segments:
        if segment.vector.shape != (space.identity.dims,):
            raise InputError(
                f"{item.file.name}: a vector of shape {segment.vector.shape} does not fit a space "
                f"of {space.identity.dims} dimensions"
            )
        length = float(np.linalg.norm(segment.vector))
        if not abs(length - 1.0) <= 1e-2:
            raise InputError(f"{item.file.name}: a vector of length {length:g} instead of 1")
