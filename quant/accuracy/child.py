"""Runs the measuring program for one bundle and brings back what it found."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from qvl_local.runtime.errors import ModelError, QvlError

from .answer import read_answer
from .measured import Job, Measured
from .worker import JOB

Tell = Callable[[str, int, int], None]

_STEP = re.compile(r"(documents|pairs) (\d{1,12}) (\d{1,12})\n", re.ASCII)


def measure_in_process(job: Job, tell: Tell) -> Measured:
    """Measure one bundle in a process of its own. `tell` hears a stage, what is done of it, and of how much.

    Raises:
        QvlError: what the measurement raised.
        ModelError: the process died, or answered what makes no sense.
    """
    with tempfile.TemporaryDirectory(prefix="qvl-accuracy-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pickle.dumps(job, protocol=5))
        status = _run(folder, tell)
        answer = read_answer(folder, job.datasets)
        if isinstance(answer, QvlError):
            raise answer
        if status or answer is None:
            raise ModelError(f"{job.bundle}: measuring it ended with {_reason(status, folder / 'stderr')}.")
        return answer


def _run(folder: Path, tell: Tell) -> int:
    # -P: a folder with a numpy.py in it must not be where modules come from.
    command = (sys.executable, "-P", "-m", f"{__package__}.worker", str(folder))
    with (
        (folder / "stderr").open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if (step := _STEP.fullmatch(line)) is not None:  # libraries of the system may write there
                    tell(step[1], int(step[2]), int(step[3]))
            return process.wait()
        except BaseException:
            process.kill()
            raise


def _reason(status: int, stderr: Path) -> str:
    if status == -9:
        return "the system killing it, probably for want of memory: free some, or use a smaller --limit"
    lines = stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"status {status}{': ' + lines[-1] if lines else ''}"
