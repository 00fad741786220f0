"""A lock on a file, held by one process at a time and released by the system when that process dies."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import LibraryBusyError
from ..file_lock import LockFile
from .connection import storage_errors


class FileLock:
    """Held from construction until `release`, or until the process ends in whatever way.

    The file holds the process id of its owner, for messages only: the operating system's lock decides.
    Raises LibraryBusyError at once when another process (or another object in this one) holds it.
    """

    def __init__(self, path: Path, *, busy: str) -> None:
        """`busy` is the message of the error, with `{owner}` where "process 1234" belongs."""
        with storage_errors(path):
            held = LockFile.take(path)
            if held is None:
                # Not str.format: the message holds a path, and a path may hold braces.
                raise LibraryBusyError(busy.replace("{owner}", _read_owner(path)))
            self._lock = held
            self._lock.write(str(os.getpid()))

    def release(self) -> None:
        """Let go. The file stays."""
        self._lock.release()


def _read_owner(path: Path) -> str:
    text = path.read_bytes()[:32].decode("ascii", "replace").strip()
    return f"process {text}" if text.isdigit() else "another process"
