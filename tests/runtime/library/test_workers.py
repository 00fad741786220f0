"""Decoding processes that hang, crash, eat memory or talk nonsense: each costs its own task alone."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.errors import QvlError
from qvl_local.runtime.library.decode import Piece
from qvl_local.runtime.library.messages import Done, Failed, Part
from qvl_local.runtime.library.workers import NONSENSE, Answer, WorkerPool, WorkerSettings

# A worker whose tasks are Python expressions, so that a test can make it do anything.
WORKER = """
import math, os, signal, sys, time
import numpy as np
from qvl_local.runtime.errors import MediaError
from qvl_local.runtime.library import messages
from qvl_local.runtime.library.decode import Description, Piece
from qvl_local.runtime.library.records import MediaInfo
from qvl_local.runtime.library.worker import serve

PIXELS = np.zeros((1, 1, 3), np.uint8)

def fail(reason):
    raise MediaError("a.jpg", reason)

def described(**given):
    return Description(MediaInfo("photo", 1, 1, **given), b"")

def run(task, beat):
    for part in task:
        value = eval(part, {**globals(), "beat": beat})
        # What a test wants to see travels where the frames of a scene would.
        is_part = isinstance(value, (Description, Piece))
        yield value if is_part else Piece(0, 0, PIXELS, repr(value).encode())

serve(run, memory_mb=int(sys.argv[1]), time_limit_s=float(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    script = tmp_path_factory.mktemp("worker") / "worker.py"
    script.write_text(WORKER)
    return sys.executable, str(script)


def run(
    command: tuple[str, ...],
    *tasks: list[str],
    count: int = 2,
    limit_s: float = 60,
    part_limit_s: float = 600,
    file_limit_s: float = 600,
    memory_mb: int = 4096,
    parts: int = 100,
) -> dict[Any, list[Any]]:
    """Each task's parts and how it ended: a list of values, then `Done` or the reason of the failure."""
    outcome: dict[Any, list[Any]] = {}
    settings = WorkerSettings(
        count,
        time_limit_s=limit_s,
        part_limit_s=part_limit_s,
        file_limit_s=file_limit_s,
        memory_mb=memory_mb,
    )
    with WorkerPool(settings, command=command) as pool:
        for key, task in enumerate(tasks):
            pool.submit(key, task, parts=parts)
        while pool.open_tasks:
            if (answer := pool.next()) is None:
                continue
            match answer.message:
                case Part(value=Piece(strip=bytes() as strip)):
                    outcome.setdefault(answer.key, []).append(ast.literal_eval(strip.decode()))
                case Part():
                    outcome.setdefault(answer.key, []).append(Part)
                case Failed(reason=reason):
                    outcome.setdefault(answer.key, []).append(reason)
                case Done():
                    outcome.setdefault(answer.key, []).append(Done)
    return outcome


def test_parts_come_in_order_and_tasks_keep_apart(command: tuple[str, ...]) -> None:
    tasks = [[f"({task}, {part})" for part in range(20)] for task in range(30)]
    outcome = run(command, *tasks, count=3)
    assert len(outcome) == 30
    for task, parts in outcome.items():
        assert parts == [*((task, part) for part in range(20)), Done]


def test_large_parts_pass(command: tuple[str, ...]) -> None:
    (parts,) = run(command, ["b'x' * 30_000_000"]).values()
    assert len(parts[0]) == 30_000_000


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("fail('it is torn')", "it is torn"),
        ("1 / 0", "cannot be decoded: ZeroDivisionError: division by zero"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its decoder crashed .SIGSEGV"),
        ("os.abort()", "its decoder crashed .SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by the system, most likely for lack of memory"),
        ("os._exit(7)", "ended unexpectedly .exit status 7"),
        ("sys.exit(3)", "ended unexpectedly .exit status 3"),
    ],
)
def test_a_bad_file_costs_itself(command: tuple[str, ...], task: str, reason: str) -> None:
    import re

    good = ["'fine'"]
    outcome = run(command, good, ["'a part first'", task], good, good, count=1)
    assert [outcome[key] for key in (0, 2, 3)] == [["fine", Done]] * 3
    assert outcome[1][0] == "a part first"
    assert re.search(reason, outcome[1][1]), outcome[1][1]


@pytest.mark.parametrize("hang", ["time.sleep(600)", "(lambda: [0 for i in iter(int, 1)])()"])
def test_a_hanging_decoder_is_stopped(command: tuple[str, ...], hang: str) -> None:
    outcome = run(command, ["'fine'"], [hang], ["'fine'"], count=1, limit_s=2)
    assert outcome[0] == outcome[2] == ["fine", Done]
    assert outcome[1] == ["decoding it took longer than the limit of 2 s and was stopped"]


@pytest.mark.timeout(120)  # such a process would hold the pipe, and the run, for ever
@pytest.mark.parametrize("then", ["time.sleep(600)", "os._exit(7)", "fail('it is torn')"])
def test_processes_that_a_decoder_started_end_with_it(command: tuple[str, ...], then: str) -> None:
    starting = "(lambda pid: pid or time.sleep(100_000))(os.fork())"
    outcome = run(command, [starting, then], ["'fine'"], count=1, limit_s=2)
    assert outcome[1] == ["fine", Done]
    started, reason = outcome[0]
    assert isinstance(reason, str)
    for _ in range(100):  # whoever takes in orphans may take a moment to bury them
        if not is_alive(started):
            return
        time.sleep(0.05)
    os.kill(started, signal.SIGKILL)
    pytest.fail("it lives on")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_beat_is_a_sign_of_life(command: tuple[str, ...]) -> None:
    slow = ["[time.sleep(1.1) or beat() for _ in range(4)] and 5"]
    assert run(command, slow, limit_s=3) == {0: [5, Done]}


@pytest.mark.parametrize(("part_limit_s", "file_limit_s"), [(2.5, 100), (100, 2.5)])
def test_beats_are_no_way_to_hold_a_run(
    command: tuple[str, ...], part_limit_s: float, file_limit_s: float
) -> None:
    forever = ["[beat() or time.sleep(0.2) for _ in range(1000)]"]
    assert run(command, forever, part_limit_s=part_limit_s, file_limit_s=file_limit_s) == {
        0: ["decoding it took longer than the limit of 2.5 s and was stopped"]
    }


def test_parts_are_no_way_to_hold_a_run(command: tuple[str, ...]) -> None:
    slow = ["time.sleep(0.5)"] * 100
    (told,) = run(command, slow, limit_s=60, file_limit_s=2.5).values()
    assert told[-1] == "decoding it took longer than the limit of 2.5 s and was stopped"
    assert 2 <= len(told) <= 6


def test_only_the_time_of_the_decoder_counts(command: tuple[str, ...]) -> None:
    settings = WorkerSettings(1, file_limit_s=2.5)
    with WorkerPool(settings, command=command) as pool:
        pool.submit(0, ["1"] * 12, parts=12)
        answers: list[Any] = []
        while pool.open_tasks:
            time.sleep(0.4)  # an embedder that takes its time
            answers.append(pool.next())
    assert Answer(0, Done()) in answers


@pytest.mark.parametrize(
    "task",
    [
        ["1"] * 5,  # more than may come
        ["1", "described()", "described()"],
        ["1", "described()", "1"],
    ],
)
def test_parts_out_of_order_are_nonsense(command: tuple[str, ...], task: list[str]) -> None:
    outcome = run(command, task, ["1", "described()"], count=1, parts=4)
    assert outcome[0] == [*(1 if part == "1" else Part for part in task[:-1]), NONSENSE]
    assert outcome[1] == [1, Part, Done]


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("described(duration_s=math.nan)", "what was decoded holds a number that is none"),
        (
            "Piece(0, 0, np.zeros((2**14, 2**13, 3), np.uint8))",
            "what was decoded is too large to be handed over",
        ),
        ("Description('no info', b'')", "it cannot be decoded: AttributeError: "),
    ],
)
def test_what_cannot_be_handed_over_says_why(command: tuple[str, ...], task: str, reason: str) -> None:
    outcome = run(command, ["1", task, "2"], ["'fine'"], count=1)
    assert outcome[0][0] == 1
    (told,) = outcome[0][1:]
    assert told.startswith(reason)
    assert outcome[1] == ["fine", Done]


def test_the_limit_counts_from_part_to_part(command: tuple[str, ...]) -> None:
    slow = ["time.sleep(0.8)"] * 4
    assert run(command, slow, limit_s=2.4) == {0: [None, None, None, None, Done]}


@pytest.mark.skipif("sys.platform != 'linux'", reason="only Linux enforces RLIMIT_AS")
def test_memory_is_limited(command: tuple[str, ...]) -> None:
    outcome = run(command, ["len(bytearray(3 * 2**30))"], ["'fine'"], count=1, memory_mb=1024)
    assert "more memory than a worker may use" in outcome[0][0]
    assert outcome[1] == ["fine", Done]


def test_what_a_decoder_prints_does_no_harm(command: tuple[str, ...]) -> None:
    noisy = ["print('hello', flush=True)", "os.write(1, b'noise')", "os.system('echo more')"]
    assert run(command, noisy) == {0: [None, 5, 0, Done]}


# The last is a pickle of a call, which ends the process that loads it.
@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        ("b'n' * 99", "makes no sense"),
        ("(20).to_bytes(8, 'little') + bytes(8) + b'?' * 20", "makes no sense"),
        ("b'short'", "its decoder ended unexpectedly"),
        ("(20).to_bytes(8, 'little') + bytes(8) + b'short'", "its decoder ended unexpectedly"),
        ("bytes(6) + b'\\xff' + bytes(9)", "makes no sense"),
        ("(16).to_bytes(8, 'little') + bytes(8) + b'csys\\nexit\\n(K\\x01tR.'", "makes no sense"),
    ],
)
def test_a_worker_that_talks_nonsense_is_given_up(garbage: str, reason: str) -> None:
    program = (
        "import sys\n"
        "from qvl_local.runtime.library.messages import Ready, read_task, write_message\n"
        "write_message(sys.stdout.buffer, Ready())\n"
        "read_task(sys.stdin.buffer)\n"
        f"sys.stdout.buffer.write({garbage})\n"
    )
    ((told,),) = run((sys.executable, "-c", program), ["1"], limit_s=20).values()
    assert reason in told


def test_a_bug_in_a_thread_ends_the_run(command: tuple[str, ...]) -> None:
    with WorkerPool(WorkerSettings(1), command=command) as pool:
        pool.submit(0, lambda: "no pickle can hold this", parts=1)
        with pytest.raises(QvlError, match=r"decoding of files stopped: .*pickle"):
            all(pool.next() is None for _ in range(200))


def test_a_worker_that_cannot_start_says_so() -> None:
    with pytest.raises(QvlError, match=r"did not start .exit status 9"):
        run((sys.executable, "-c", "raise SystemExit(9)"), ["1"])
    with pytest.raises(QvlError, match="cannot be started"):
        run(("/no/such/program",), ["1"])


@pytest.mark.parametrize(
    "program",
    [
        "print('hello from a .pth file', flush=True); import time; time.sleep(600)",
        "import sys, time; sys.stdout.buffer.write(bytes(16) + b'{}'); sys.stdout.flush(); time.sleep(600)",
    ],
)
def test_a_worker_that_prints_before_it_is_ready_says_so(program: str) -> None:
    with pytest.raises(QvlError, match=r"wrote something else to its output .*sitecustomize"):
        run((sys.executable, "-c", program), ["1"])


def test_a_worker_that_closes_its_output_and_lives_is_ended() -> None:
    program = "import os, time; os.close(1); time.sleep(600)"
    with pytest.raises(QvlError, match="did not start"):
        run((sys.executable, "-c", program), ["1"])


def children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children(recursive=True) if child.status() != "zombie"}


def test_closing_ends_every_process(command: tuple[str, ...]) -> None:
    before = children()
    with WorkerPool(WorkerSettings(3), command=command) as pool:
        for key in range(6):
            pool.submit(key, ["1", "time.sleep(600)"], parts=9)
        answers = 0
        while answers < 3:
            answers += pool.next() is not None
        assert len(children() - before) == 3
    assert children() - before == set()


def gone(pid: int) -> Iterator[bool]:
    import psutil

    for _ in range(200):
        yield not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
        time.sleep(0.05)


@pytest.mark.skipif("os.name != 'posix'", reason="Windows has no SIGKILL")
def test_workers_do_not_outlive_a_killed_parent(command: tuple[str, ...], tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import sys\n"
        "from qvl_local.runtime.library.workers import WorkerPool, WorkerSettings\n"
        f"pool = WorkerPool(WorkerSettings(1), command={command!r})\n"
        "pool.submit(0, ['os.getpid()', 'time.sleep(1)'], parts=9)\n"
        "answer = None\n"
        "while answer is None: answer = pool.next()\n"
        "print(answer.message.value.strip.decode(), flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert any(gone(worker))
