"""How far a long run is, on stderr: a bar on a terminal, one line every few seconds elsewhere.

    with progress_view() as view:
        library.index(paths, progress=view.index)

A view takes what the library, the exporter and the sample world report, and knows nothing else about them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from .console import note, stderr_console
from .text import count, duration

if TYPE_CHECKING:
    from qvl_local.quant.accuracy.bench import Step
    from qvl_local.runtime.library.tally import IndexProgress
    from rich.progress import TaskID

_STAGES = {"scan": "Looking for files", "embed": "Indexing", "remove": "Forgetting what is gone"}
# Slow enough for a log file, fast enough to show life.
LINE_EVERY_S = 5.0
MAKING_READY = "Making the model ready. This happens once and may take a while."
# The first files wait for models and workers; an estimate made of them frightens for nothing.
TOLD_FROM = 10
# A step of making a model ready is watched this long before its end is foretold.
ESTIMATE_AFTER_S = 3.0


def progress_view() -> View:
    """The view that suits where stderr goes."""
    return BarView() if sys.stderr.isatty() else LineView()


def first_model_step() -> Callable[[str, float], None]:
    """For commands that show no progress: one line when a model has to be made ready, and news of that."""
    is_told = False

    def tell(step: str, _fraction: float) -> None:
        nonlocal is_told
        if _is_news(step):
            note(step)
        elif not is_told:
            note(MAKING_READY)
            is_told = True

    return tell


class View:
    """Shows nothing; what the others have in common. Use as a context manager."""

    # The step of `model` that is going on: its name, when it began, and how far it was then.
    _step = ("", 0.0, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the progress off the screen."""

    def show(
        self, label: str, done: float, total: float | None, *, speed: str = "", left_s: float | None = None
    ) -> None:
        """`done` of `total` (None while that is not known), with a speed in words and the seconds left."""

    def index(self, progress: IndexProgress) -> None:
        """Progress of `Library.index`."""
        if progress.stage == "renew":
            note(
                f"The library was indexed with another model: {count(progress.total or 0, 'item')} will be "
                "embedded anew, which takes as long as the first time. Until then the old model still serves."
            )
            return
        per_s = progress.per_s
        speed = [] if per_s is None else [f"{per_s:.1f} files/s" if per_s < 100 else f"{per_s:,.0f} files/s"]
        if progress.failed:
            speed.append(f"{progress.failed:,} failed")
        self.show(
            _STAGES[progress.stage],
            progress.done,
            progress.total,
            speed=", ".join(speed),
            left_s=progress.eta_s if progress.done >= TOLD_FROM else None,
        )

    def files(self, done: int, total: int) -> None:
        """Progress of the making of the sample library; called from any thread."""
        self.show("Making sample pictures", done, total)

    def check(self, subject: str) -> None:
        """What is being verified now."""
        self.show(f"Checking {subject}", 0, None)

    def measure(self, step: Step) -> None:
        """Progress of a fidelity report."""
        self.show(step.label, round(100 * step.fraction), 100, left_s=step.left_s)

    def model(self, step: str, fraction: float) -> None:
        """Progress of getting a model ready: a step's name and its part done, in [0, 1]; or news."""
        if _is_news(step):
            note(step)
            return
        now = time.monotonic()
        if step != self._step[0]:
            self._step = (step, now, fraction)
        _, began, at_first = self._step
        left_s = None
        if now - began >= ESTIMATE_AFTER_S and fraction > at_first:
            left_s = (now - began) * (1 - fraction) / (fraction - at_first)
        self.show(f"Model: {step}", round(100 * fraction), 100, left_s=left_s)


class BarView(View):
    """One bar that changes its label as the work goes on."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[aside]}", markup=False),
            console=stderr_console(),
            transient=True,
        )
        self._task: TaskID | None = None
        self._label = ""

    def close(self) -> None:
        """Take the bar off the screen."""
        self._progress.stop()

    def show(
        self, label: str, done: float, total: float | None, *, speed: str = "", left_s: float | None = None
    ) -> None:
        """See `View.show`."""
        left = "" if left_s is None else f"{duration(left_s)} left"
        aside = ", ".join(filter(None, [speed, left]))
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task(label, total=total, aside=aside)
        elif label != self._label:
            self._progress.reset(self._task, total=total, description=label, aside=aside)
        self._label = label
        self._progress.update(self._task, completed=done, total=total, aside=aside)


class LineView(View):
    """A line now and then, for logs and pipes."""

    def __init__(self, every_s: float = LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._has_model_step = False
        self._next = time.monotonic() + every_s

    def show(
        self, label: str, done: float, total: float | None, *, speed: str = "", left_s: float | None = None
    ) -> None:
        """See `View.show`."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every_s
        amount = f"{done:,.0f}" if total is None else f"{done:,.0f} of {total:,.0f}"
        left = "" if left_s is None else f"{duration(left_s)} left"
        note(f"{label}: {', '.join(filter(None, [amount, speed, left]))}")

    def model(self, step: str, fraction: float) -> None:
        """See `View.model`; the first step is told at once."""
        if not self._has_model_step and not _is_news(step):
            note(MAKING_READY)
            self._has_model_step = True
        super().model(step, fraction)


def _is_news(step: str) -> bool:
    """Whether what is told is a sentence to be read, and no step: see `qvl_local.runtime.model.progress`."""
    return step.endswith(".")
