"""The operating system's lock on an open file: held by one process at a time, released when it dies.

Who waits, who gives up and what the file holds are the business of those who call.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

# Windows refuses reads of a locked range, so the locked byte lies far behind whatever the file holds.
_LOCKED_BYTE = 1 << 20

if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Take the lock if nobody holds it; closing the descriptor lets go."""
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def unlock(descriptor: int) -> None:
        """Let go."""
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    # flock, not lockf: it belongs to the open file, so a second owner in this process is refused too, and
    # closing some other descriptor of the file does not drop it.
    def try_lock(descriptor: int) -> bool:
        """Take the lock if nobody holds it; closing the descriptor lets go."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Let go."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class LockFile:
    """A file that is there to be locked. Held until `release`, or until the process ends in whatever way."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Use `LockFile.take`."""
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path) -> LockFile | None:
        """Take the lock; None while somebody else holds it. The folder must exist.

        Raises:
            OSError: the file cannot be made.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if try_lock(descriptor) and _is_still(path, descriptor):
                return cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def write(self, text: str) -> None:
        """Replace what the file holds, for people and messages: the lock alone decides."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, text.encode())

    def release(self, *, remove: bool = False) -> None:
        """Let go, once. With `remove` the file goes too: `take` sees whether it locked one that is gone."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        if remove:
            with suppress(OSError):  # Windows keeps a file that another process has open
                self._path.unlink()
        unlock(descriptor)
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the locked file is the one of that name: its last owner may have deleted it meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
