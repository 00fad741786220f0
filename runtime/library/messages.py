"""What travels between the indexing process and a decoding process: pickles behind a length of 8 bytes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, BinaryIO

_LARGEST = 2**31  # more is no message but a decoder that wrote over its own answers


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started and waits for a task."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The task is being worked on; there is nothing to hand over yet."""


@dataclass(frozen=True, slots=True)
class Part:
    """One value that a task yielded."""

    value: Any


@dataclass(frozen=True, slots=True)
class Done:
    """The task has yielded everything."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task cannot be done; `reason` says why in one line.

    `is_access`: the system refused the file, so that trying again may end differently.
    """

    reason: str
    is_access: bool = False


def write_message(file: BinaryIO, message: object) -> None:
    """Write one message and flush."""
    body = pickle.dumps(message, protocol=5)
    file.write(len(body).to_bytes(8, "little"))
    file.write(body)
    file.flush()


def read_message(file: BinaryIO) -> Any:
    """Read one message; None when the other side is gone."""
    head = _read(file, 8)
    count = 0 if head is None else int.from_bytes(head, "little")
    body = _read(file, count) if 0 < count <= _LARGEST else None
    return None if body is None else pickle.loads(body)


def _read(file: BinaryIO, count: int) -> bytes | None:
    try:
        body = file.read(count)
    except OSError:
        return None
    return body if len(body) == count else None
