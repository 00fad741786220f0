"""The first SIGTERM is a wish, the second the end, and what was set before comes back."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from qvl_local.desktop.termination import stop_on_sigterm

STUBBORN = """
import signal, time
from qvl_local.desktop.termination import stop_on_sigterm
with stop_on_sigterm() as stop:
    print("ready", flush=True)
    stop.wait()
    print("asked", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """A SIGTERM that none of the code under test takes must not end the test run."""
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, previous)


def test_the_event_is_set_and_the_handler_put_back() -> None:
    with stop_on_sigterm() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(10)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_other_threads_get_an_event_that_nobody_sets() -> None:
    seen = []

    def use() -> None:
        with stop_on_sigterm() as stop:
            signal.raise_signal(signal.SIGTERM)
            seen.append(stop.is_set())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.skipif("os.name != 'posix'", reason="Windows ends a program without telling it")
def test_the_second_one_ends_the_program() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "asked\n"
        process.terminate()
    assert process.returncode == -signal.SIGTERM
