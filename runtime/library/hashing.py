"""The content hash of a file: what recognises a picture that was moved, renamed or copied.

BLAKE2b of 20 bytes over the whole file up to `WHOLE_BYTES`; of larger files, which are films and a few raw
files, over the size, the first and last `END_BYTES` and `SAMPLES` pieces in between, so that a moved film on
a slow disk costs a second instead of minutes. Two different large files with the same size, beginning, end
and samples would be taken for one: cameras and editors do not make those. The size and time of a file are
compared before any hash is made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from .survey import Todo

WHOLE_BYTES = 64 * 2**20
END_BYTES = 2 * 2**20
SAMPLES = 64
SAMPLE_BYTES = 128 * 2**10
_READ_BYTES = 2**20


def content_hash(path: str | Path) -> bytes:
    """Hash the file's content: 20 bytes.

    Raises:
        OSError: the file cannot be read.
    """
    digest = blake2b(digest_size=20)
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size <= WHOLE_BYTES:
            _feed(digest, file, size)
            return digest.digest()
        digest.update(size.to_bytes(8, "little"))
        _feed(digest, file, END_BYTES)
        step = (size - 2 * END_BYTES) // SAMPLES
        for sample in range(SAMPLES):
            file.seek(END_BYTES + sample * step)
            _feed(digest, file, SAMPLE_BYTES)
        file.seek(size - END_BYTES)
        _feed(digest, file, END_BYTES)
    return digest.digest()


def hash_ahead(
    executor: ThreadPoolExecutor, todo: Sequence[Todo], *, ahead: int
) -> Iterator[tuple[Todo, bytes | OSError]]:
    """Each file with its content hash or the error of reading it, in order, hashed ahead of the caller."""
    waiting: deque[tuple[Todo, Future[bytes | OSError]]] = deque()
    upcoming = iter(todo)
    for _ in todo:
        while len(waiting) < ahead and (one := next(upcoming, None)) is not None:
            waiting.append((one, executor.submit(_hash, one.path)))
        first, future = waiting.popleft()
        yield first, future.result()


def _hash(path: str) -> bytes | OSError:
    try:
        return content_hash(path)
    except OSError as error:
        return error


def _feed(digest: blake2b, file: BinaryIO, count: int) -> None:
    while count > 0 and (block := file.read(min(count, _READ_BYTES))):
        digest.update(block)
        count -= len(block)
