"""Facts about this machine that decide what qvl-local can run and how fast, for `doctor`.

Every fact is read, never guessed: what the system does not tell is None or left out. Knows nothing about
models or libraries.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from qvl_local.runtime import hardware
from qvl_local.runtime.hardware import Gpu
from qvl_local.runtime.machine import usable_cores


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer: names as the system gives them, memory in bytes; None where it does not tell."""

    system: str
    architecture: str
    cpu: str | None
    cpu_features: tuple[str, ...] | None
    cores: int
    memory_bytes: int | None
    available_bytes: int | None
    gpus: tuple[Gpu, ...]


def read_machine() -> Machine:
    """Ask the system."""
    return Machine(
        system=platform.platform(terse=True),
        architecture=platform.machine(),
        cpu=hardware.cpu_name(),
        cpu_features=hardware.cpu_features(),
        cores=usable_cores(),
        memory_bytes=hardware.memory_bytes(),
        available_bytes=hardware.available_bytes(),
        gpus=hardware.read_gpus(),
    )


def free_bytes(folder: Path) -> int | None:
    """Free space where `folder` is, or would be made."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def can_write(folder: Path) -> bool:
    """Whether `folder` can be written to, or made where it is missing."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False
