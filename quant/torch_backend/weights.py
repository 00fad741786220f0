"""Single tensors of a checkpoint, read where they lie: the token embeddings and the yes/no head.

They stay on disk, mapped, so that neither 0.6 to 1.2 GB of embeddings nor the head enters the GPU's memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from qvl_local.runtime.errors import CheckpointError
from qvl_local.runtime.model.head import answer_tokens

EMBEDDINGS = "embed_tokens.weight"
HEAD = "lm_head.weight"

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class MappedRows:
    """A matrix [rows, columns] in a safetensors file, looked up by row; any floating type comes out exact."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self._matrix.shape
        return rows, columns

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows by number: int64 [n] -> float32 [n, columns]."""
        rows: NDArray[np.float32] = self._matrix[torch.from_numpy(np.ascontiguousarray(ids))].float().numpy()
        return rows


def map_rows(folder: Path, ending: str) -> MappedRows:
    """Map the one matrix of a checkpoint whose name ends in `ending`, whatever prefix it carries.

    Raises:
        CheckpointError: there is none, or the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    file, name = _find(folder, ending)
    try:
        with safe_open(file, framework="pt") as opened:
            matrix: torch.Tensor = opened.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}). Download the checkpoint again.") from error
    return MappedRows(matrix)


def read_answer_head(folder: Path, *, tied: bool) -> NDArray[np.float32]:
    """float32 [H]: the head's row of "yes" less its row of "no".

    Raises:
        CheckpointError: the tokenizer lacks one of the words, or the weights lack the head.
    """
    matrix = map_rows(folder, EMBEDDINGS if tied else HEAD)
    yes, no = matrix[answer_tokens(folder, vocabulary=matrix.shape[0])]
    head: NDArray[np.float32] = yes - no
    return head


def _find(folder: Path, ending: str) -> tuple[Path, str]:
    """The file that holds the tensor, and the tensor's name in it."""
    from safetensors import SafetensorError, safe_open

    single = folder / _WEIGHTS
    index = folder / _INDEX
    if single.is_file():
        try:
            with safe_open(single, framework="pt") as opened:
                places = dict.fromkeys(opened.keys(), _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{single}: cannot be read ({error}). Download the checkpoint again."
            ) from error
    else:
        places = _weight_map(index)
    for name, file in places.items():
        if name == ending or name.endswith("." + ending):
            return folder / file, name
    raise CheckpointError(
        f"{folder}: its weights lack {ending}. Download the checkpoint again, or use a complete one."
    )


def _weight_map(index: Path) -> dict[str, str]:
    try:
        raw: Any = json.loads(index.read_text(encoding="utf-8"))
        return {str(name): str(file) for name, file in raw["weight_map"].items()}
    except FileNotFoundError:
        raise CheckpointError(
            f"{index.parent}: neither {_WEIGHTS} nor {_INDEX}. Download the checkpoint again."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: cannot be read ({error}). Download the checkpoint again.") from error
