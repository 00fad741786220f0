"""What a search is asked for, checked before anything large is loaded for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model.image import fit_image, read_image
from ..model.pixels import PixelBudget

QUERY_CHARACTERS = 10_000
"""Longer texts are refused: they are no query, and each reranked hit would read them again."""


def checked_query(query: str | None, *, has_image: bool) -> str | None:
    """The query without blanks around it; None when there is only a picture.

    Raises:
        InputError: there is nothing to look for, or too much.
    """
    text = (query or "").strip()
    if not text and not has_image:
        raise InputError("The query is empty. Say what to look for, or give a picture.")
    if len(text) > QUERY_CHARACTERS:
        raise InputError(
            f"The query has {len(text):,} characters; a query may have {QUERY_CHARACTERS:,}. "
            "Search for the words that matter."
        )
    return text or None


def fitted(image: str | Path | NDArray[np.uint8], budget: PixelBudget) -> NDArray[np.uint8]:
    """A query's picture as the embedder takes it, uint8 [h, w, 3]: one that is broken is found in good time.

    Raises:
        MediaError: the file cannot be read.
        InputError: the array is no picture.
    """
    return read_image(image, budget=budget) if isinstance(image, (str, Path)) else fit_image(image, budget)
