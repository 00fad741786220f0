"""Work in the background asks the system for less: processes and threads that run when others do not.

Only ever downwards: a thread or process of a user can lower its own priority and not raise it again. What a
thread starts inherits its priority on Linux, so a thread is lowered after it has loaded what others share.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress

_PROCESS_NICENESS = 10
_THREAD_NICENESS = 5

BACKGROUND_FLAGS: int = getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)
"""`creationflags` of a process in the background on Windows; 0 elsewhere."""


def lower_process(pid: int) -> None:
    """Let a process of ours run behind others. One that is gone, or a system that refuses, is no error."""
    if sys.platform != "win32":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, _PROCESS_NICENESS)


def lower_thread() -> None:
    """Let the calling thread run behind others, where threads have a priority of their own (Linux)."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _THREAD_NICENESS)
