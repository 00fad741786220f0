"""A lock on a file, held by one process at a time and released by the system when that process dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import LibraryBusyError
from .connection import storage_errors

# Windows refuses reads of a locked range, so the locked byte lies far behind the process id.
_LOCKED_BYTE = 1 << 20


class FileLock:
    """Held from construction until `release`, or until the process ends in whatever way.

    The file holds the process id of its owner, for messages only: the operating system's lock decides.
    Raises LibraryBusyError at once when another process (or another object in this one) holds it.
    """

    def __init__(self, path: Path, *, busy: str) -> None:
        """`busy` is the message of the error, with `{owner}` where "process 1234" belongs."""
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _try_lock(self._descriptor):
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
            _unlock(self._descriptor)
            os.close(self._descriptor)


def _read_owner(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 32).decode("ascii", "replace").strip()
    return f"process {text}" if text.isdigit() else "another process"


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    # flock, not lockf: it belongs to the open file, so a second library object in this process is refused
    # too, and closing some other descriptor of the file does not drop it.
    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
