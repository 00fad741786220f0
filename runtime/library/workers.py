"""A pool of decoding processes in which a file can cost itself and nothing more.

Each process hangs on two pipes of its own: one that crashes, or is killed because it overran its time,
takes no shared lock or queue with it, and it is always known which file it was busy with. Processes are
plain subprocesses (`worker.py`), not `multiprocessing`: a script that indexes needs no `if __name__ ==
"__main__"`, and nothing of the parent's modules is imported. Answers pass through a bounded queue, so that
decoding cannot run away from embedding.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import QvlError
from ..machine import usable_cores
from .decode import Description
from .messages import (
    Done,
    Failed,
    Message,
    MessageError,
    Part,
    Ready,
    read_message,
    write_task,
)
from .priority import BACKGROUND_FLAGS, lower_process

_START_LIMIT_S = 120
_TICK_S = 0.2
_DYING_S = 2
NONSENSE = "its decoder answered what makes no sense; the file may be made to attack it"


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How many processes, how much memory each gets, and how long it may take, in seconds.

    `time_limit_s`: for the next sign of life; `part_limit_s`: for the next part of a file, whatever signs of
    life there are; `file_limit_s`: for all of a file. A decoder at work gives up before the last two; they
    are for one that a file has taken over. The time in which nobody takes its parts does not count.
    `is_background`: the processes run behind all others.
    """

    count: int
    time_limit_s: float = 60.0
    memory_mb: int = 4096
    part_limit_s: float = 1800.0
    file_limit_s: float = 43_200.0
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker says about the task that was submitted as `key`: parts, then `Done` or `Failed`."""

    key: Hashable
    message: Part | Done | Failed


@dataclass(slots=True)
class _Job:
    """A task at a worker: what it may still send, and how long that may take."""

    key: Hashable
    task: Any
    parts_left: int
    file_left_s: float
    part_left_s: float
    is_described: bool = False


def default_worker_count() -> int:
    """One process a core, at most eight: beyond that, embedding and the disk are what one waits for."""
    return min(8, usable_cores())


def worker_command() -> tuple[str, ...]:
    """The command line of a worker, without its two limits."""
    # -P: a photo folder with a numpy.py in it must not be where modules come from.
    return sys.executable, "-P", "-m", f"{__package__}.worker"


class WorkerPool:
    """Decoding processes, started when there is work. Use as a context manager, from one thread."""

    def __init__(self, settings: WorkerSettings, *, command: Sequence[str] | None = None) -> None:
        """`command` is the program to run, `worker_command()` by default."""
        self._settings = settings
        self._command = tuple(command or worker_command())
        self._tasks: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._answers: queue.Queue[Answer | QvlError] = queue.Queue(maxsize=4 * settings.count)
        self._closing = threading.Event()
        self._workers: list[_Worker] = []
        self._open_tasks = 0

    @property
    def open_tasks(self) -> int:
        """Tasks submitted and not yet done or failed, as far as `next` has told."""
        return self._open_tasks

    def submit(self, key: Hashable, task: Any, *, parts: int) -> None:
        """Queue a task that yields up to `parts` values; its answers will carry `key`."""
        settings = self._settings
        self._open_tasks += 1
        self._tasks.put(_Job(key, task, parts, settings.file_limit_s, settings.part_limit_s))
        if len(self._workers) < min(self._settings.count, self._open_tasks):
            self._workers.append(_Worker(self))

    def next(self) -> Answer | None:
        """The next answer of any worker; None when there is none for a moment.

        Raises:
            QvlError: no worker can be started on this machine.
        """
        for worker in self._workers:
            worker.check_time()
        try:
            # A wait without end could not be interrupted by Ctrl-C on Windows.
            answer = self._answers.get(timeout=_TICK_S)
        except queue.Empty:
            return None
        if isinstance(answer, QvlError):
            raise answer
        if not isinstance(answer.message, Part):
            self._open_tasks -= 1
        return answer

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        self._closing.set()
        for worker in self._workers:
            self._tasks.put(None)
            worker.kill()
        for worker in self._workers:
            worker.join()
        self._workers.clear()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Worker:
    """One process and the thread that talks to it."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None
        self._is_late = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="decoding worker", daemon=True)
        self._thread.start()

    def check_time(self) -> None:
        """Kill the process when the answer that it owes is overdue."""
        with self._lock:
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._is_late = True
                self._deadline = None
                if self._process is not None:
                    _kill(self._process)

    def kill(self) -> None:
        with self._lock:
            if self._process is not None:
                _kill(self._process)

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        try:
            while (job := self._pool._tasks.get()) is not None and not self._pool._closing.is_set():
                self._run(job)
        except QvlError as error:
            self._put(error)
        except BaseException as error:  # whatever it is, it must end the run and not leave it waiting
            self._put(QvlError(f"The decoding of files stopped: {type(error).__name__}: {error}"))
        finally:
            self._end()

    def _run(self, job: _Job) -> None:
        if self._process is None:
            self._start()
        process = self._process
        if process is None:  # closing
            return
        with contextlib.suppress(OSError):  # a dead process shows in what it answers: nothing
            write_task(process.stdin, job.task)  # type: ignore[arg-type]
        message: Message | None = None
        while not isinstance(message, Done | Failed):
            message = self._next(process, job)
            if isinstance(message, Part | Done | Failed):
                self._put(Answer(job.key, message))
        if isinstance(message, Failed):
            # Failures are rare, and one of memory leaves a process in pieces: begin afresh.
            self._end()

    def _next(self, process: subprocess.Popen[bytes], job: _Job) -> Message:
        """What the process says next about its job, or why nothing is to be had from it any more."""
        settings = self._pool._settings
        left_s, limit_s = min(
            (settings.time_limit_s, settings.time_limit_s),
            (job.part_left_s, settings.part_limit_s),
            (job.file_left_s, settings.file_limit_s),
        )
        began = time.monotonic()
        message = self._receive(process, limit_s=left_s) if left_s > 0 else None
        spent_s = time.monotonic() - began
        job.part_left_s -= spent_s
        job.file_left_s -= spent_s
        if message is None:
            return Failed(self._why_it_died(process, limit_s, is_late=self._is_late or left_s <= 0))
        if isinstance(message, Part):
            job.part_left_s = settings.part_limit_s
            job.parts_left -= 1
            if job.is_described or job.parts_left < 0:
                return Failed(NONSENSE)
            job.is_described = isinstance(message.value, Description)
        return Failed(NONSENSE) if isinstance(message, Ready) else message

    def _start(self) -> None:
        settings = self._pool._settings
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with self._lock:
            if self._pool._closing.is_set():
                return
            try:
                process = self._process = subprocess.Popen(
                    [*self._pool._command, str(settings.memory_mb), str(settings.time_limit_s)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    # Ctrl-C in the terminal is the parent's to answer.
                    start_new_session=os.name == "posix",
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
                    | getattr(subprocess, "CREATE_NO_WINDOW", 0)
                    | (BACKGROUND_FLAGS if settings.is_background else 0),
                )
            except OSError as error:
                raise QvlError(f"A decoding process cannot be started: {error}.") from error
        if settings.is_background:
            lower_process(process.pid)
        message = self._receive(process, limit_s=_START_LIMIT_S)
        if isinstance(message, Ready):
            return
        if not self._pool._closing.is_set():
            raise QvlError(self._why_it_did_not_start(process, message))
        self._end()

    def _why_it_did_not_start(self, process: subprocess.Popen[bytes], message: Message | None) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_DYING_S if message is None and not self._is_late else 0)
        # It may live on: with its output closed, or writing what is no message.
        _kill(process)
        status = process.wait()
        command = " ".join(self._pool._command)
        if message is not None:
            return (
                "The decoding process wrote something else to its output before it was ready; "
                "a .pth file or a sitecustomize module of this Python may print. "
                f"Run `{command} 4096 60` to see what."
            )
        if self._is_late:
            return (
                f"The decoding process did not start within {_START_LIMIT_S} s. The machine may be too busy."
            )
        return (
            f"The decoding process did not start (exit status {status}). Run `{command} 4096 60` to see why."
        )

    def _receive(self, process: subprocess.Popen[bytes], *, limit_s: float) -> Message | None:
        with self._lock:
            self._deadline = time.monotonic() + limit_s
            self._is_late = False
        try:
            return read_message(process.stdout)  # type: ignore[arg-type]
        except MessageError:
            # A decoder that writes over its own answers, or one that a file has taken over.
            return Failed(NONSENSE)
        finally:
            with self._lock:
                self._deadline = None

    def _why_it_died(self, process: subprocess.Popen[bytes], limit_s: float, *, is_late: bool) -> str:
        # Its pipe closes a moment before it is gone, and how it went is what we want to know.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0 if is_late else _DYING_S)
        _kill(process)
        status = process.wait()
        if is_late:
            return f"decoding it took longer than the limit of {limit_s:g} s and was stopped"
        if status == -getattr(signal, "SIGKILL", 9):
            return "its decoder was killed by the system, most likely for lack of memory"
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"its decoder crashed ({signal.Signals(-status).name})"
        return f"its decoder ended unexpectedly (exit status {status})"

    def _put(self, answer: Answer | QvlError) -> None:
        while not self._pool._closing.is_set():
            with contextlib.suppress(queue.Full):
                self._pool._answers.put(answer, timeout=_TICK_S)
                return

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            _kill(process)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started, which would hold its pipes: it leads a group of its own."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
