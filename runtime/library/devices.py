"""Which device a folder lies on, and whether another one begins there.

A *mount point* is a folder on another device than the folder that it lies in, or a link to one.
"""

from __future__ import annotations

import os


def device_of(path: str) -> int:
    """What tells the device that a folder lies on from others, until the machine is restarted.

    Raises:
        OSError: there is no such folder, or it cannot be looked at.
    """
    return os.stat(path).st_dev  # noqa: PTH116 - keeps surrogate escapes


def is_mount_point(path: str) -> bool:
    """Whether another device begins at a folder; not where there is none, or it cannot be looked at."""
    try:
        return device_of(path) != device_of(os.path.dirname(path))  # noqa: PTH120
    except OSError:
        return False
