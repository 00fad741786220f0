"""A library of synthetic vectors with dates, cameras, places and folders, written by the store's own writer.

Its files do not exist, and its folder is away, so that a server keeps what it knows of them.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime import Embedder
from qvl_local.runtime.library.records import (
    EncodedSegment,
    FoundFile,
    IndexedMedia,
    MediaInfo,
    SpaceIdentity,
)
from qvl_local.runtime.library.running import DEFAULT_MODEL, identity_of
from qvl_local.runtime.library.store import Store

from benchmarks.synthetic import generate

BATCH = 1000
SEED = 11
_FIRST = datetime(2005, 1, 1)
_YEARS = 19
_CAMERAS = ("Solano Phone 7", "Orbit P4", "Kestrel D500", "Halden Compact 20", None)


def make_big_library(home: Path, *, items: int, dims: int | None) -> None:
    """Make the library in `home`.

    `dims`: the width of its vectors; None is that of `tiny`, and only then it can be searched by words.
    """
    if dims is None:
        identity = identity_of(Embedder.open(DEFAULT_MODEL), DEFAULT_MODEL)
    else:
        identity = SpaceIdentity(DEFAULT_MODEL, "synthetic", "fp32", dims, "none", "none")
    rng = random.Random(SEED)
    with TemporaryDirectory(prefix="qvl-vectors-") as work, Store.open(home, mode="write") as store:
        made = generate(Path(work) / "vectors.npy", count=items, dims=identity.dims, queries=2, seed=SEED)
        root = store.add_folder(str(home / "away" / "Pictures"))
        space = store.space(identity)
        for first in range(0, items, BATCH):
            vectors = np.asarray(made.vectors[first : first + BATCH])
            store.write(
                [
                    _item(root.id, number, vector, items, rng)
                    for number, vector in enumerate(vectors, start=first)
                ],
                space,
            )


def _item(
    folder_id: int,
    number: int,
    vector: NDArray[np.float32],
    of: int,
    rng: random.Random,
) -> IndexedMedia:
    """A photo, or every tenth a film; a part of them without a date or a place."""
    taken_at = _FIRST + timedelta(days=365.25 * _YEARS * number / of, seconds=rng.randrange(86_400))
    outing = number // 40
    where = random.Random(outing)
    latitude, longitude = where.uniform(-60, 70), where.uniform(-180, 180)
    is_film, has_place = number % 10 == 9, rng.random() < 0.6
    name = (
        f"{taken_at:%Y}/Outing {outing}/{'VID' if is_film else 'IMG'}_{number}.{'mp4' if is_film else 'jpg'}"
    )
    info = MediaInfo(
        kind="video" if is_film else "photo",
        width=1920 if is_film else 4000,
        height=1080 if is_film else 3000,
        taken_at=None if rng.random() < 0.02 else taken_at,
        duration_s=12.0 if is_film else None,
        latitude=latitude + rng.uniform(-0.01, 0.01) if has_place else None,
        longitude=longitude + rng.uniform(-0.01, 0.01) if has_place else None,
        camera=rng.choice(_CAMERAS),
    )
    found = FoundFile(folder_id, f"{taken_at:%Y}/Outing {outing}/{name}", 3_000_000 + number, number)
    segment = EncodedSegment(0, 12_000 if is_film else 0, vector)
    return IndexedMedia(found, number.to_bytes(32, "little"), info, (segment,))
