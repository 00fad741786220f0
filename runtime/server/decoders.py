"""Processes that decode what clients sent, lent to one request's thread at a time and ended when idle.

A hostile file costs its process and its request, as it does while indexing. Knows nothing of where files come
from, nor of requests.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from ..library.decode import Piece, nothing
from ..library.messages import Failed, Part
from ..library.workers import WorkerPool, WorkerSettings
from ..model.pixels import PixelBudget
from ..model.video import VideoFrames
from .input_worker import InputTask


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings:
    """What a file that a client sent may cost: pixels of a picture, seconds that a film lasts, seconds that
    decoding may take, memory of its process. At most `count` processes run; they end `idle_s` after their
    last file."""

    count: int = 4
    max_pixels: int = 200_000_000
    max_film_s: float = 6 * 3600.0
    time_limit_s: float = 60.0
    memory_mb: int = 4096
    idle_s: float = 60.0


class Decoders:
    """Decodes files in processes. Safe between threads; done with after `close`."""

    def __init__(self, settings: DecoderSettings | None = None) -> None:
        self._settings = settings or DecoderSettings()
        self._places = threading.BoundedSemaphore(self._settings.count)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, WorkerPool]] = []
        self._sweeper: threading.Timer | None = None
        self._is_closed = False

    @property
    def idle(self) -> int:
        """How many processes wait for a file."""
        return len(self._idle)

    def picture(
        self, path: Path, budget: PixelBudget, *, go_on: Callable[[], None] = nothing
    ) -> NDArray[np.uint8]:
        """A picture file's pixels, fitted to the budget: uint8 [h, w, 3].

        Raises:
            MediaError: it cannot be used, or is over a limit.
            QvlError: whatever `go_on`, which is called while it is decoded, raises to end it.
        """
        settings = self._settings
        task = InputTask(str(path), "image", budget, settings.max_pixels, settings.max_film_s)
        pixels = self._run(task, go_on)
        if isinstance(pixels, VideoFrames):
            raise MediaError(path, "its decoder answered with a film")
        return pixels

    def film(
        self,
        path: Path,
        budget: PixelBudget,
        *,
        fps: float | None = None,
        max_frames: int | None = None,
        go_on: Callable[[], None] = nothing,
    ) -> VideoFrames:
        """A film's frames, sampled and fitted to the budget. Errors as for `picture`."""
        settings = self._settings
        task = InputTask(
            str(path), "video", budget, settings.max_pixels, settings.max_film_s, fps, max_frames
        )
        frames = self._run(task, go_on)
        if not isinstance(frames, VideoFrames):
            raise MediaError(path, "its decoder answered with a picture")
        return frames

    def close(self) -> None:
        """End all processes that are not lent; those that are end when they come back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            if self._sweeper is not None:
                self._sweeper.cancel()
        for _, pool in idle:
            pool.close()

    def _run(self, task: InputTask, go_on: Callable[[], None]) -> NDArray[np.uint8] | VideoFrames:
        with self._lent() as pool:
            pool.submit(0, task, parts=1)
            made: Any = None
            while pool.open_tasks:
                go_on()
                answer = pool.next()
                if answer is None:
                    continue
                if isinstance(answer.message, Failed):
                    raise MediaError(task.path, answer.message.reason)
                if isinstance(answer.message, Part) and isinstance(answer.message.value, Piece):
                    made = answer.message.value.pixels
        if made is None:
            raise MediaError(task.path, "its decoder answered nothing")
        pixels: NDArray[np.uint8] | VideoFrames = made
        return pixels

    @contextlib.contextmanager
    def _lent(self) -> Iterator[WorkerPool]:
        """A process of one's own; afterwards it is idle, or ended when it still has something to do."""
        with self._places:
            with self._lock:
                pool = self._idle.pop()[1] if self._idle else None
            if pool is None:
                pool = self._new()
            is_reusable = False
            try:
                yield pool
                is_reusable = True
            except MediaError:
                is_reusable = True
                raise
            finally:
                if not (is_reusable and self._keep(pool)):
                    pool.close()

    def _new(self) -> WorkerPool:
        settings = self._settings
        worker = WorkerSettings(1, time_limit_s=settings.time_limit_s, memory_mb=settings.memory_mb)
        return WorkerPool(worker, command=(sys.executable, "-P", "-m", f"{__package__}.input_worker"))

    def _keep(self, pool: WorkerPool) -> bool:
        """Keep a process for the next file; whether that is still wanted."""
        with self._lock:
            if self._is_closed or pool.open_tasks:
                return False
            self._idle.append((time.monotonic(), pool))
            if self._sweeper is None:
                self._sweep_later()
        return True

    def _sweep_later(self) -> None:
        self._sweeper = threading.Timer(self._settings.idle_s, self._sweep)
        self._sweeper.daemon = True
        self._sweeper.start()

    def _sweep(self) -> None:
        """End what was idle for long enough."""
        oldest = time.monotonic() - self._settings.idle_s
        with self._lock:
            done = [pool for since, pool in self._idle if since <= oldest]
            self._idle = [(since, pool) for since, pool in self._idle if since > oldest]
            self._sweeper = None
            if self._idle and not self._is_closed:
                self._sweep_later()
        for pool in done:
            pool.close()
