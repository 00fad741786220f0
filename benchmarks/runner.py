"""What every benchmark shares: the facts of the machine, medians, and a JSON file for each result.

record("vector_search", {"rows": [...]})        # -> benchmarks/results/vector_search.json
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# Instruction sets that decide how fast integer and vector arithmetic runs.
_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "avx512_vpopcntdq",
    "amx_int8",
    "asimddp",
)
_LIBRARIES = (
    "qvl-local",
    "numpy",
    "onnxruntime",
    "apsw",
    "sqlite-vec",
    "faiss-cpu",
    "pillow",
    "av",
    "tokenizers",
    "typer",
    "torch",
    "transformers",
    "optimum",
)


def record(name: str, payload: Mapping[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write `payload` with the machine's facts to `folder`/`name`.json and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {"benchmark": name, "machine": machine_facts(), **payload}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def machine_facts() -> dict[str, Any]:
    """CPU, memory, system, libraries, revision and date: enough to judge whether two figures compare."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "flags": _cpu_flags(),
        "ram_gib": _ram_gib(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": _gpu(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name)) is not None},
        "revision": _revision(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def in_one_thread(module: str) -> None:
    """Start the benchmark `module` again with one thread for every library, unless that is so already.

    Thread pools read their size when they are loaded, which is before any code of a script runs.
    """
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if any(os.environ.get(name) != value for name, value in limits.items()):
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=os.environ | limits, check=False).returncode)


def timed(action: Callable[[], _T]) -> tuple[_T, float, float]:
    """Run once: what it returned, milliseconds of wall clock, milliseconds of this process's CPU."""
    cpu, wall = time.process_time(), time.perf_counter()
    value = action()
    return value, (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile (the highest value below 20 samples)."""
    ordered = sorted(milliseconds)
    return {
        "median_ms": round(statistics.median(ordered), 3),
        "p95_ms": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3),
        "samples": len(ordered),
    }


def _cpu_model() -> str:
    for key in ("model name", "Hardware", "cpu model"):
        if value := _cpuinfo(key):
            return value
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    known = (_cpuinfo("flags") or _cpuinfo("Features") or "").split()
    return [flag for flag in _FLAGS if flag in known]


def _cpuinfo(key: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _ram_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _gpu() -> str | None:
    return _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


def _revision() -> str | None:
    revision = _output("git", "-C", str(ROOT), "rev-parse", "HEAD")
    if revision is None:
        return None
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{revision}+changes" if changed else revision


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
