"""The reranker's head: from a last token's state to the log-odds of "yes", and to a probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .bundle import Bundle


def open_head(bundle: Bundle) -> NDArray[np.float32]:
    """W_yes - W_no of the bundle's reranker, float32 [H].

    Raises:
        BundleError: there is none, it cannot be read, or it is not as wide as the model.
    """
    part = bundle.part("reranker")
    if part.head is None:
        raise BundleError(f"{bundle.path}: its reranker has no yes/no head. Export the bundle again.")
    file = bundle.file(part.head)
    try:
        head: NDArray[np.float32] = np.load(file, allow_pickle=False).astype(np.float32).reshape(-1)
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: cannot be read ({error}). Export the bundle again.") from error
    width = part.table.columns
    if head.shape != (width,):
        raise BundleError(f"{file}: holds {head.size} values instead of {width}. Export the bundle again.")
    return head


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of "yes" from its log-odds, without overflow; float64, of the same shape."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
