"""How the C library keeps memory, for a process that runs for weeks with many threads."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

# The names of glibc's malloc.h. By default it keeps what was freed, of up to 32 MB at a time, in one heap for
# each thread that ever asked: every thread that has read the pictures of a search then holds as much as the
# largest search took.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

_LARGE = 1 << 20
_KEPT = 4 << 20
_HEAPS = 4


def keep_memory_steady() -> bool:
    """Let freed arrays go back to the system, and threads share a few heaps; for the whole process.

    Best before threads are started. Returns whether the C library knows how: that of most Linux systems does.
    """
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):  # another C library than glibc
        set_option = ctypes.CDLL(None).mallopt
        options = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, _HEAPS))
        taken = [set_option(name, value) for name, value in options]
        return all(taken)
    return False
