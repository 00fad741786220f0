"""A file in which arrays wait between being found and being written: memory never holds all of them.

It has no name, and goes with its process.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """An array in a spool, which must be open when it is read."""

    file: IO[bytes]
    place: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self) -> NDArray[Any]:
        """The array."""
        self.file.seek(self.place)
        content = self.file.read(self.dtype.itemsize * math.prod(self.shape))
        return np.frombuffer(content, self.dtype).reshape(self.shape)


class Spool:
    """Keeps arrays in a file that is open for reading and writing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def keep(self, array: NDArray[Any]) -> Kept:
        """Put an array into the file, behind what is there."""
        place = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(array).data)
        return Kept(self._file, place, array.dtype, array.shape)


@contextmanager
def open_spool(folder: Path | None = None) -> Iterator[Spool]:
    """A new spool on the disk of `folder`, or where the system has its temporary files."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Spool(file)
