"""What this computer has that decides which model fits, and how fast: processor, memory, graphics cards.

Every fact is read, never guessed: what the system does not tell is None or left out. Knows nothing about
models.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Linux's spelling (x86 `flags`, Arm `Features`) -> the name people know.
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
# Windows tells these two; whether it has VNNI it does not tell.
_WINDOWS_FEATURES = {40: "AVX2", 41: "AVX-512"}

_NVIDIA_FIELDS = "name,memory.total,memory.free,driver_version,compute_cap"
_NVIDIA_PLACES = ("/usr/lib/wsl/lib/nvidia-smi", r"C:\Windows\System32\nvidia-smi.exe")
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics card as its driver describes it; memory in bytes, None where it does not tell."""

    name: str
    memory_bytes: int | None
    free_bytes: int | None
    driver: str | None
    compute_capability: str | None


def cpu_name() -> str | None:
    """The processor as its maker calls it."""
    if sys.platform == "linux":
        return _cpuinfo().get("model name") or platform.processor() or None
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    return platform.processor() or None


def cpu_features() -> tuple[str, ...] | None:
    """Those of its instructions that matter here: VNNI and AMX make int8 fast."""
    if sys.platform == "linux":
        cpuinfo = _cpuinfo()
        words = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
        return tuple(name for flag, name in _LINUX_FLAGS.items() if flag in words) if words else None
    if sys.platform == "darwin":
        return tuple(name for key, name in _MAC_FLAGS.items() if _sysctl(key) == "1")
    if sys.platform == "win32":
        present = _kernel32().IsProcessorFeaturePresent
        return tuple(name for number, name in _WINDOWS_FEATURES.items() if present(number))
    return None


def is_known_without_vnni() -> bool:
    """Whether this is an x86 processor that certainly lacks VNNI; only Linux tells."""
    features = cpu_features() or ()
    return sys.platform == "linux" and "AVX2" in features and not any("VNNI" in name for name in features)


def memory_bytes() -> int | None:
    """Memory that this process may use in the end: the machine's, or less in a container with a limit."""
    total = _physical_bytes()
    limits = [limit for limit in map(_number_in, map(Path, _CGROUP_LIMITS)) if limit is not None]
    return min([total, *limits]) if total is not None else None


def available_bytes() -> int | None:
    """Memory that could be had now without pushing anything out."""
    if sys.platform == "linux":
        with suppress(OSError, ValueError):
            for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _windows_memory("free")
    return None


def read_gpus() -> tuple[Gpu, ...]:
    """NVIDIA's cards, by the driver's own tool; empty where there is none. No others are used here."""
    tool = shutil.which("nvidia-smi") or next(
        (place for place in _NVIDIA_PLACES if Path(place).exists()), None
    )
    if tool is None:
        return ()
    try:
        answer = subprocess.run(
            [tool, f"--query-gpu={_NVIDIA_FIELDS}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,  # a driver that sleeps takes seconds to wake
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = ([field.strip() for field in line.split(",")] for line in answer.stdout.splitlines())
    return tuple(_gpu(row) for row in rows if len(row) == len(_NVIDIA_FIELDS.split(",")))


def first_gpu(gpus: Sequence[Gpu]) -> Gpu | None:
    """The card that CUDA uses unless told otherwise: the first that CUDA_VISIBLE_DEVICES leaves visible."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else visible.partition(",")[0].strip()
    if chosen is not None and chosen.isdigit():
        return gpus[int(chosen)] if int(chosen) < len(gpus) else None
    return gpus[0] if gpus and chosen not in ("", "-1") else None


def _gpu(row: list[str]) -> Gpu:
    name, total, free, driver, capability = row
    return Gpu(name, _mebibytes(total), _mebibytes(free), _told(driver), _told(capability))


def _mebibytes(text: str) -> int | None:
    return int(text) << 20 if text.isdigit() else None


def _told(text: str) -> str | None:
    """The tool writes [N/A] or [Not Supported] where it does not know."""
    return None if not text or text.startswith("[") else text


def _physical_bytes() -> int | None:
    if sys.platform == "win32":
        return _windows_memory("total")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _number_in(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None  # "max" means no limit


def _windows_memory(field: str) -> int | None:
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
    return int(getattr(status, field)) if _kernel32().GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _kernel32() -> Any:
    import ctypes

    return getattr(ctypes, "windll").kernel32  # noqa: B009 - absent from the type stubs of other systems


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
