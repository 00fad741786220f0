"""The program that a decoding process runs: read a task, answer with what it yields, until the input ends.

Started by `workers.py` as `python -m qvl_local.runtime.library.worker`. Tasks come on standard input,
answers go to what was standard output. A task may do anything: hang, crash, or ask for all memory; it takes
this process with it and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ..errors import MediaAccessError, MediaError
from .messages import Beat, Done, Failed, Part, Ready, read_task, write_message

_GRACE_S = 30


def serve(
    run: Callable[[Any, Callable[[], None]], Iterator[Any]], *, memory_mb: int, time_limit_s: float
) -> None:
    """Answer tasks with `run(task, beat)` until standard input ends; `beat()` says that it is still at work.

    Memory is limited where the system can (`RLIMIT_AS`; macOS accepts and ignores it). `time_limit_s` is the
    parent's business; here it only ends a process whose parent was killed while a task hangs.
    """
    warnings.simplefilter("ignore")  # nobody reads what a decoder thinks of a file; its errors count
    source, target = _private_pipes()
    _limit_memory(memory_mb)
    write_message(target, Ready())
    while (task := read_task(source)) is not None:
        beat = _Beat(target, time_limit_s)
        try:
            for answer in _answers(run, task, beat):
                _alarm(0)
                if not _hand_over(target, answer):
                    break
                _alarm(time_limit_s + _GRACE_S)
        except BrokenPipeError:
            return  # the parent is gone
        _alarm(0)


def _hand_over(target: BinaryIO, answer: Part | Done | Failed) -> bool:
    """Write an answer, or why it cannot be written; returns whether there may be more."""
    try:
        write_message(target, answer)
    except OSError:
        raise  # the parent is gone
    except ValueError as error:
        write_message(target, Failed(_one_line(error)))
        return False
    except Exception as error:  # a decoder's bug: a value that is not what it says
        write_message(target, Failed(_undecodable(error)))
        return False
    return True


class _Beat:
    """Tells the parent at most once a second that the task is still being worked on."""

    def __init__(self, target: BinaryIO, time_limit_s: float) -> None:
        self._target = target
        self._time_limit_s = time_limit_s
        self._told_at = time.monotonic()
        _alarm(time_limit_s + _GRACE_S)

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= 1:
            self._told_at = now
            _alarm(0)
            write_message(self._target, Beat())
            _alarm(self._time_limit_s + _GRACE_S)


def _answers(
    run: Callable[[Any, Callable[[], None]], Iterator[Any]], task: Any, beat: Callable[[], None]
) -> Iterator[Part | Done | Failed]:
    try:
        for value in run(task, beat):
            yield Part(value)
    except BrokenPipeError:
        raise  # the parent is gone, and it is no fault of the file
    except MediaAccessError as error:
        yield Failed(error.reason, is_access=True)
    except MediaError as error:
        yield Failed(error.reason)
    except MemoryError:
        yield Failed("decoding it needs more memory than a worker may use")
    except Exception as error:  # a decoder's bug costs this file only
        yield Failed(_undecodable(error))
    else:
        yield Done()


def _undecodable(error: Exception) -> str:
    return f"it cannot be decoded: {type(error).__name__}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    # Codecs print; whatever they print must not end up between two messages.
    source = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return source, target


def _limit_memory(memory_mb: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    # A core dump of every hostile file would fill the disk.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        limit = memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # not on Windows
        # SIGALRM is left at its default: the kernel ends the process even inside a decoder that never
        # returns.
        signal.setitimer(signal.ITIMER_REAL, seconds)


def main() -> None:
    """Serve decoding tasks; the arguments are the memory limit in MB and the time limit in seconds."""
    from .decode import decode_file

    serve(decode_file, memory_mb=int(sys.argv[1]), time_limit_s=float(sys.argv[2]))


if __name__ == "__main__":
    main()
