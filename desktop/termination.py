"""SIGTERM, with which systems end a program at shutdown and services their children: a wish, not a blow.

Knows signals and nothing of what is stopped. Ctrl-C is not its business: Python raises KeyboardInterrupt.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_STATUS = 143
"""What shells say of a program that SIGTERM ended: 128 + 15."""


@contextmanager
def stop_on_sigterm() -> Iterator[threading.Event]:
    """An event that the first SIGTERM sets; a second one ends the program as it would have without this.

    Outside the main thread, where Python takes no signals, the event is simply never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.getsignal(signal.SIGTERM)

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        # None stands for a handler that was not set from Python and cannot be put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
