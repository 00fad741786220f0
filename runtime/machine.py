"""What the runtime asks of the machine and of its own installation. Imports nothing that is not needed."""

from __future__ import annotations

import os
import sys


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine has, under taskset or in a container."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed_version() -> str | None:
    """The version of the installed qvl-local; None when it runs without being installed."""
    # Here, since a search, which writes nothing, should not wait for it.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("qvl-local")
    except PackageNotFoundError:
        return None
