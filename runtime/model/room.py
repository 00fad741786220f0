"""Which disk a folder is on, or would be made on, and how much is free there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk as the system tells it apart by `device`; `free` in bytes."""

    device: int
    free: int


def disk_of(folder: Path) -> Disk | None:
    """The disk where `folder` is, or would be made; None where the system does not tell."""
    folder = folder.absolute()
    for place in (folder, *folder.parents):
        try:
            return Disk(place.stat().st_dev, shutil.disk_usage(place).free)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None
