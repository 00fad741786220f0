"""Memory of this process as Linux counts it, in MiB: now, and at most since it was last asked to forget.

`getrusage` has one peak for the life of a process, which never falls and survives `exec`: whatever was done
before, an export for example, would count for everything after it.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
# Sets the peak of resident memory to what is resident now; see proc_pid_clear_refs(5).
_FORGET_PEAK = "5"


def forget_peak() -> bool:
    """Begin a phase: from now on `peak_mib` is of what follows. False where the system cannot do that."""
    try:
        _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def peak_mib() -> float | None:
    """The most that was resident since the last `forget_peak`; None where the system does not tell."""
    return _field("VmHWM")


def resident_mib() -> float | None:
    """What is resident now, after memory that was freed has gone back to the system."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not every Linux has glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _field("VmRSS")


def _field(name: str) -> float | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)
