"""Facts about this machine that decide how fast qvl-local runs, for `doctor`.

Every fact is read, never guessed: what the system does not tell is None or left out. Knows nothing about
models or libraries.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qvl_local.runtime.machine import usable_cores

# Linux's spelling (x86 `flags`, Arm `Features`) -> the name people know. VNNI and AMX make int8 fast.
_LINUX_FLAGS = {
    "avx2": "AVX2",
    "f16c": "F16C",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "i8mm": "NEON int8 matmul",
    "sve": "SVE",
}
_MAC_FLAGS = {
    "hw.optional.avx2_0": "AVX2",
    "hw.optional.avx512f": "AVX-512",
    "hw.optional.AdvSIMD": "NEON",
    "hw.optional.arm.FEAT_DotProd": "NEON dot product",
    "hw.optional.arm.FEAT_I8MM": "NEON int8 matmul",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer: names as the system gives them, memory in bytes; None where it does not tell."""

    system: str
    architecture: str
    cpu: str | None
    cpu_features: tuple[str, ...] | None
    cores: int
    memory_bytes: int | None


def read_machine() -> Machine:
    """Ask the system."""
    return Machine(
        system=platform.platform(terse=True),
        architecture=platform.machine(),
        cpu=_cpu_name(),
        cpu_features=_cpu_features(),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
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


def _memory_bytes() -> int | None:
    if sys.platform == "win32":
        return _windows_memory_bytes()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _windows_memory_bytes() -> int | None:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *(
                (name, ctypes.c_uint64)
                for name in ("total", "free", "page", "page_free", "virtual", "v_free", "ext")
            ),
        )

    status = MemoryStatus()
    status.length = ctypes.sizeof(status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - absent from the type stubs of other systems
    return int(status.total) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _cpu_name() -> str | None:
    if sys.platform == "linux":
        return _cpuinfo().get("model name") or platform.processor() or None
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    return platform.processor() or None


def _cpu_features() -> tuple[str, ...] | None:
    if sys.platform == "linux":
        cpuinfo = _cpuinfo()
        words = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
        return tuple(name for flag, name in _LINUX_FLAGS.items() if flag in words) if words else None
    if sys.platform == "darwin":
        return tuple(name for key, name in _MAC_FLAGS.items() if _sysctl(key) == "1")
    return None


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _sysctl(key: str) -> str | None:
    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
