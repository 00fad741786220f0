"""What a search is asked for, checked before anything large is loaded for it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MediaError, MediaLimitError
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
        MediaError: the file cannot be read, or is no picture.
        InputError: the array is no picture.
    """
    if not isinstance(image, (str, Path)):
        return fit_image(image, budget)
    try:
        return read_image(image, budget=budget)
    except MediaLimitError:
        raise
    except MediaError:
        _check_is_picture(str(image))
        raise


def _check_is_picture(path: str) -> None:
    """Tell a file that never was a picture from one that is damaged."""
    from .photo import read_format

    with suppress(OSError), Path(path).open("rb") as file:  # what cannot be read was told already
        if read_format(file, path).kind == "video":
            raise MediaError(path, "it is a video; give a picture, or use: qvl-local similar FILE")
