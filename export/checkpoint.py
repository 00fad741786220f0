"""A Hugging Face checkpoint folder: its configuration and its tensors under one set of names.

Checkpoints come in several dresses: one safetensors file or shards with an index; tensor names with or
without a leading `model.`, with or without `language_model.`; a head that is tied, absent or separate. All
are read here and nowhere else. Tensors are mapped, never loaded together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import CheckpointError
from qvl_local.runtime.model.config import ModelConfig, load_config
from qvl_local.runtime.model.tensor_names import canonical_name

from .safetensors_file import StoredTensor, read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

EMBEDDINGS = "language_model.embed_tokens.weight"
HEAD = "lm_head.weight"


class Checkpoint:
    """An opened checkpoint. Tensors go by canonical name: `language_model.*`, `visual.*`, `lm_head.*`."""

    def __init__(self, folder: Path) -> None:
        """Read the configuration and the headers of all weight files.

        Raises:
            CheckpointError: a file is missing or damaged, or the tokenizer cannot be trusted.
        """
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: not a folder. Give the folder of a downloaded checkpoint.")
        self.folder = folder
        self.config: ModelConfig = load_config(folder)
        self._refuse_bare_vocabulary()
        self._tensors = {canonical_name(stored.name): stored for stored in _stored_tensors(folder)}
        self._digests: dict[str, str] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def names(self) -> list[str]:
        """Canonical names of all tensors, sorted."""
        return sorted(self._tensors)

    def stored(self, name: str, shape: tuple[int, ...] | None = None) -> StoredTensor:
        """Where a tensor lies, after checking that it has the `shape` that the configuration implies.

        Raises:
            CheckpointError: it is absent or has another shape.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(
                f"{self.folder}: tensor {name} is missing from {self._weight_files()}. "
                "Download the checkpoint again, or use a complete one."
            )
        if shape is not None and tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.file}: tensor {tensor.name} has shape {list(tensor.shape)}, but config.json asks "
                f"for {list(shape)}. The configuration belongs to another checkpoint; download both again."
            )
        return tensor

    def float32(self, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
        """A tensor's values, exact."""
        return self.stored(name, shape).float32()

    def head_name(self) -> str:
        """The tensor whose rows turn states into token logits.

        Raises:
            CheckpointError: the head is separate and absent.
        """
        if self.config.text.tied_head:
            return EMBEDDINGS
        self.stored(HEAD, (self.config.text.vocab_size, self.config.text.hidden_size))
        return HEAD

    def digest(self, name: str) -> str:
        """Hex sha256 of a tensor's storage type, shape and bits; remembered."""
        if name not in self._digests:
            self._digests[name] = self.stored(name).sha256()
        return self._digests[name]

    def prefix_digest(self, prefix: str) -> str:
        """Hex sha256 over all tensors whose names begin with `prefix`, names included."""
        sha = hashlib.sha256()
        for name in self.names():
            if name.startswith(prefix):
                sha.update(f"{name}={self.digest(name)}\n".encode())
        return sha.hexdigest()

    def content_hash(self, progress: Callable[[float], None] | None = None) -> str:
        """Hex sha256 of config.json and every tensor; the same however the tensors are spread over files.

        `progress` hears the fraction of bytes that is done.
        """
        total = sum(tensor.size for tensor in self._tensors.values()) or 1
        done = 0
        for name in self.names():
            self.digest(name)
            done += self._tensors[name].size
            if progress is not None:
                progress(done / total)
        config = (self.folder / "config.json").read_bytes()
        return hashlib.sha256(config + self.prefix_digest("").encode()).hexdigest()

    def _weight_files(self) -> str:
        return ", ".join(sorted({tensor.file.name for tensor in self._tensors.values()})) or WEIGHTS

    def _refuse_bare_vocabulary(self) -> None:
        if (self.folder / "tokenizer.json").is_file():
            return
        # Rebuilding a tokenizer from vocab.json and merges.txt gives wrong ids for special tokens, silently.
        raise CheckpointError(
            f"{self.folder}: no tokenizer.json; vocab.json with merges.txt is not enough. "
            "Take tokenizer.json from the published checkpoint."
        )


def _stored_tensors(folder: Path) -> Iterator[StoredTensor]:
    if (folder / WEIGHTS).is_file():
        yield from read_header(folder / WEIGHTS).values()
    elif (folder / INDEX).is_file():
        yield from _sharded(folder)
    else:
        raise CheckpointError(
            f"{folder}: neither {WEIGHTS} nor {INDEX}. Download the safetensors files of the checkpoint."
        )


def _sharded(folder: Path) -> Iterator[StoredTensor]:
    index = folder / INDEX
    try:
        raw: Any = json.loads(index.read_text(encoding="utf-8"))
        weight_map: dict[str, str] = dict(raw["weight_map"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{index}: cannot be read ({error}). Download it again.") from error
    headers: dict[str, dict[str, StoredTensor]] = {}
    for name, shard in weight_map.items():
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: names a file outside the folder: {shard!r}. Do not use it.")
        if shard not in headers:
            headers[shard] = read_header(folder / shard)
        if name not in headers[shard]:
            raise CheckpointError(
                f"{folder / shard}: tensor {name} is missing, but {INDEX} places it there. Download it again."
            )
        yield headers[shard][name]
