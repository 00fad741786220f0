"""A lock on a file, held by one process at a time and released by the system when that process dies."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import LibraryBusyError
from ..file_lock import try_lock, unlock
from .connection import storage_errors


class FileLock:
    """Held from construction until `release`, or until the process ends in whatever way.

    The file holds the process id of its owner, for messages only: the operating system's lock decides.
    Raises LibraryBusyError at once when another process (or another object in this one) holds it.
    """

    def __init__(self, path: Path, *, busy: str) -> None:
        """`busy` is the message of the error, with `{owner}` where "process 1234" belongs."""
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not try_lock(self._descriptor):
            owner = _read_owner(self._descriptor)
            os.close(self._descriptor)
            # Not str.format: the message holds a path, and a path may hold braces.
            raise LibraryBusyError(busy.replace("{owner}", owner))
        with storage_errors(path):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, str(os.getpid()).encode())
        self._held = True

    def release(self) -> None:
        """Let go. The file stays: deleting it would let two processes lock two files of one name."""
        if self._held:
            self._held = False
            unlock(self._descriptor)
            os.close(self._descriptor)


def _read_owner(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 32).decode("ascii", "replace").strip()
    return f"process {text}" if text.isdigit() else "another process"
