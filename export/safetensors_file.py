"""One safetensors file: its header, checked, and where each tensor lies in it.

Knows the file format (an 8-byte little-endian header length, a JSON header, then raw tensors) and nothing
about models. Only the header is read; tensors are mapped one at a time by whoever needs them.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import CheckpointError

# bfloat16 has no numpy type: its bits are kept as uint16 until they are widened.
STORAGE_TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}

_HASHED_AT_ONCE = 8 << 20
_LONGEST_HEADER = 100_000_000  # the limit of the format's own reader


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: `size` bytes at `offset`; `dtype` is F32, F16 or BF16."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    def map(self) -> NDArray[Any]:
        """The stored bits as a read-only view of the file; unmapped when the array is dropped."""
        storage = STORAGE_TYPES[self.dtype]
        if self.size == 0:
            return np.zeros(self.shape, storage)
        try:
            view: NDArray[Any] = np.memmap(
                self.file, dtype=storage, mode="r", offset=self.offset, shape=self.shape
            )
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        return view

    def sha256(self) -> str:
        """Hex sha256 of storage type, shape and bits, read in pieces."""
        sha = hashlib.sha256(f"{self.dtype}{list(self.shape)}".encode())
        try:
            with self.file.open("rb") as stream:
                stream.seek(self.offset)
                left = self.size
                while left and (piece := stream.read(min(left, _HASHED_AT_ONCE))):
                    sha.update(piece)
                    left -= len(piece)
        except OSError as error:
            raise self._unreadable(error) from error
        if left:
            raise self._unreadable("the file became shorter")
        return sha.hexdigest()

    def float32(self) -> NDArray[np.float32]:
        """The values as float32; exact for every storage type."""
        return self._widen(self.map())

    def rows(self, index: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Chosen rows of a table as float32, without reading the others."""
        return self._widen(self.map()[index])

    def _unreadable(self, reason: object) -> CheckpointError:
        return CheckpointError(
            f"{self.file}: tensor {self.name} cannot be read ({reason}). Download the file again."
        )

    def _widen(self, bits: NDArray[Any]) -> NDArray[np.float32]:
        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32.
            wide = bits.astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32)
        return bits.astype(np.float32, copy=False)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Tensors of one file by name.

    Raises:
        CheckpointError: the file is missing, cut short, or its header contradicts its contents.
    """
    try:
        length = file.stat().st_size
        with file.open("rb") as stream:
            start = 8 + _header_length(stream.read(8), file, length)
            header = json.loads(stream.read(start - 8))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing. Download the checkpoint again.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file}: its header cannot be read ({error}). Download it again.") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: its header is not a table of tensors. Download it again.")
    return {
        name: _stored_tensor(name, entry, file, start, length)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _header_length(raw: bytes, file: Path, length: int) -> int:
    size = int.from_bytes(raw, "little")
    if len(raw) < 8 or size > min(length - 8, _LONGEST_HEADER):
        raise CheckpointError(f"{file}: is not a safetensors file, or is cut short. Download it again.")
    return size


def _stored_tensor(name: str, entry: Any, file: Path, start: int, length: int) -> StoredTensor:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(side) for side in entry["shape"])
        first, last = (int(place) for place in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{file}: the header entry of {name} is damaged. Download it again.") from None
    if dtype not in STORAGE_TYPES:
        raise CheckpointError(
            f"{file}: tensor {name} is stored as {dtype}; only {', '.join(STORAGE_TYPES)} are read. "
            "Use the checkpoint as published, not one that is already quantized."
        )
    if any(side < 0 for side in shape) or not 0 <= first <= last:
        raise CheckpointError(f"{file}: the header entry of {name} is damaged. Download it again.")
    if math.prod(shape) * STORAGE_TYPES[dtype].itemsize != last - first:
        raise CheckpointError(
            f"{file}: tensor {name} has {last - first} bytes, which is not {list(shape)} in {dtype}. "
            "Download it again."
        )
    if start + last > length:
        raise CheckpointError(
            f"{file}: cut short at {length} bytes; tensor {name} ends at {start + last}. Download it again."
        )
    return StoredTensor(name, file, dtype, shape, start + first, last - first)
