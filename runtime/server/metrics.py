"""Counts and times of a server, and the text that Prometheus reads.

The text format is a few lines (prometheus.io, "Exposition formats", version 0.0.4); label values are route
templates, statuses and names of ours, never what a client wrote.
"""

from __future__ import annotations

import os
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total: float = 0.0


class Metrics:
    """Counters, histograms of seconds, and gauges, which are asked when somebody reads. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._help: dict[str, str] = {}
        self._counters: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}
        self._gauges: dict[str, Callable[[], float | Mapping[Labels, float] | None]] = {}

    def count(self, name: str, help_: str, /, by: float = 1, **labels: str) -> None:
        """Add to a counter; its name ends in `_total`."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._help[name] = help_
            values = self._counters.setdefault(name, {})
            values[key] = values.get(key, 0) + by

    def observe(self, name: str, help_: str, seconds: float, /, **labels: str) -> None:
        """Put a duration into a histogram; its name ends in `_seconds`."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._help[name] = help_
            histogram = self._histograms.setdefault(name, {}).setdefault(key, _Histogram())
            histogram.counts[bisect_left(BUCKETS_S, seconds)] += 1
            histogram.total += seconds

    def gauge(
        self, name: str, help_: str, read: Callable[[], float | Mapping[Labels, float] | None], /
    ) -> None:
        """Name what is asked for its value when somebody reads: a number, or one for each set of labels."""
        with self._lock:
            self._help[name] = help_
            self._gauges[name] = read

    def render(self) -> str:
        """Everything, as Prometheus reads it."""
        with self._lock:
            gauges = dict(self._gauges)
        # Asked without the lock: they may take other locks.
        read = {name: _values(ask()) for name, ask in gauges.items()}
        lines: list[str] = []
        with self._lock:
            for name, values in sorted({**self._counters, **read}.items()):
                kind = "gauge" if name in read else "counter"
                lines += self._heading(name, kind)
                lines += [f"{name}{_braces(labels)} {_number(value)}" for labels, value in values.items()]
            for name, histograms in sorted(self._histograms.items()):
                lines += self._heading(name, "histogram")
                for labels, histogram in histograms.items():
                    lines += _histogram_lines(name, labels, histogram)
        return "\n".join(lines) + "\n"

    def _heading(self, name: str, kind: str) -> list[str]:
        return [f"# HELP {name} {self._help[name]}", f"# TYPE {name} {kind}"]


def resident_bytes() -> float | None:
    """The memory that this process holds now; its peak where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def _values(value: float | Mapping[Labels, float] | None) -> Mapping[Labels, float]:
    if value is None:
        return {}
    return value if isinstance(value, Mapping) else {(): value}


def _histogram_lines(name: str, labels: Labels, histogram: _Histogram) -> list[str]:
    lines, running = [], 0
    for bound, count in zip((*(f"{b:g}" for b in BUCKETS_S), "+Inf"), histogram.counts, strict=True):
        running += count
        lines.append(f"{name}_bucket{_braces((*labels, ('le', bound)))} {running}")
    lines.append(f"{name}_sum{_braces(labels)} {_number(histogram.total)}")
    lines.append(f"{name}_count{_braces(labels)} {running}")
    return lines


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
