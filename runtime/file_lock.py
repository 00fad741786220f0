"""The operating system's lock on an open file: held by one process at a time, released when it dies.

Who waits, who gives up and what the file holds are the business of those who call.
"""

from __future__ import annotations

import os
import sys

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
