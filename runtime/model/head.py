"""The reranker's head: from a last token's state to the log-odds of "yes", and to a probability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, CheckpointError
from .bundle import Bundle
from .tokenizer import load_tokenizer


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
        with file.open("rb") as stream:
            # Not np.load, which would take an archive of arrays, too.
            array = np.lib.format.read_array(stream, allow_pickle=False)
        head: NDArray[np.float32] = array.astype(np.float32).reshape(-1)
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        raise BundleError(f"{file}: cannot be read ({error}). Export the bundle again.") from error
    width = part.table.columns
    if head.shape != (width,):
        raise BundleError(f"{file}: holds {head.size} values instead of {width}. Export the bundle again.")
    return head


def answer_tokens(folder: Path, *, vocabulary: int) -> NDArray[np.int64]:
    """int64 [2]: a reranker's tokens for "yes" and "no", by the tokenizer of its checkpoint.

    Raises:
        CheckpointError: it has no single token for one of the words.
    """
    tokenizer = load_tokenizer(folder)
    ids = []
    for word in ("yes", "no"):
        token = tokenizer.token_to_id(word)
        if token is None or token >= vocabulary:
            raise CheckpointError(
                f"{folder / 'tokenizer.json'}: lacks the token {word!r}, a reranker's answer. "
                "Is this a Qwen3-VL-Reranker checkpoint?"
            )
        ids.append(token)
    return np.array(ids, dtype=np.int64)


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of "yes" from its log-odds, without overflow; float64, of the same shape."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
