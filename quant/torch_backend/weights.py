"""A checkpoint's tensors as torch sees them, mapped from where they lie on disk.

The token embeddings and the yes/no head are read from here by the host, row by row, so that neither their 0.6
to 2.5 GB enter the memory of a GPU nor that of the machine.
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
from qvl_local.runtime.model.tensor_names import canonical_name

EMBEDDINGS = "language_model.embed_tokens.weight"
HEAD = "lm_head.weight"

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class MappedRows:
    """A matrix [rows, columns] on disk, looked up by row; any floating type comes out exact."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self._matrix.shape
        return rows, columns

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows by number: int64 [n] -> float32 [n, columns]."""
        # A copy: ids may be a prompt's that is kept for its like, read-only, which torch cannot represent.
        rows: NDArray[np.float32] = self._matrix[torch.from_numpy(np.array(ids))].float().numpy()
        return rows


class MappedWeights:
    """All tensors of a checkpoint folder by canonical name, as views of its files."""

    def __init__(self, folder: Path) -> None:
        """Map the weight files.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        self._folder = folder
        self._tensors: dict[str, torch.Tensor] = {}
        for file in _files(folder):
            self._tensors |= _mapped(file)

    def names(self) -> list[str]:
        """Canonical names, sorted."""
        return sorted(self._tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        """A tensor, on disk.

        Raises:
            CheckpointError: there is none of that name.
        """
        if name not in self._tensors:
            raise CheckpointError(
                f"{self._folder}: its weights lack {name}. "
                "Download the checkpoint again, or use a complete one."
            )
        return self._tensors[name]

    def rows(self, name: str) -> MappedRows:
        """A matrix, to be looked up by row."""
        return MappedRows(self[name])


def read_answer_head(weights: MappedWeights, folder: Path, *, tied: bool) -> NDArray[np.float32]:
    """float32 [H]: the head's row of "yes" less its row of "no".

    Raises:
        CheckpointError: the tokenizer lacks one of the words, or the weights lack the head.
    """
    matrix = weights.rows(EMBEDDINGS if tied else HEAD)
    yes, no = matrix[answer_tokens(folder, vocabulary=matrix.shape[0])]
    head: NDArray[np.float32] = yes - no
    return head


def _files(folder: Path) -> list[Path]:
    """The weight files: one, or the shards that the index names."""
    single, index = folder / _SINGLE, folder / _INDEX
    if single.is_file():
        return [single]
    try:
        raw: Any = json.loads(index.read_text(encoding="utf-8"))
        names = sorted({str(name) for name in raw["weight_map"].values()})
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: neither {_SINGLE} nor {_INDEX}. Download the checkpoint again."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: cannot be read ({error}). Download the checkpoint again.") from error
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index}: names a file outside the folder: {name!r}. Do not use it.")
    return [folder / name for name in names]


def _mapped(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return {canonical_name(name): opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}). Download the checkpoint again.") from error
