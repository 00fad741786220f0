"""Runs the measuring program for one bundle and brings back what it found."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from qvl_local.runtime.errors import ModelError, QvlError

from .measured import Job, Measured
from .worker import ERROR, JOB, RESULT

Tell = Callable[[str, int, int], None]


def measure_in_process(job: Job, tell: Tell) -> Measured:
    """Measure one bundle in a process of its own. `tell` hears a stage, what is done of it, and of how much.

    Raises:
        QvlError: what the measurement raised.
        ModelError: the process died.
    """
    with tempfile.TemporaryDirectory(prefix="qvl-accuracy-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pickle.dumps(job, protocol=5))
        status = _run(folder, tell)
        if (folder / ERROR).is_file():
            error: QvlError = pickle.loads((folder / ERROR).read_bytes())
            raise error
        if status or not (folder / RESULT).is_file():
            raise ModelError(f"{job.bundle}: measuring it ended with {_reason(status, folder / 'stderr')}.")
        result: Measured = pickle.loads((folder / RESULT).read_bytes())
        return result


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
                stage, done, total = line.split()
                tell(stage, int(done), int(total))
            return process.wait()
        except BaseException:
            process.kill()
            raise


def _reason(status: int, stderr: Path) -> str:
    if status == -9:
        return "the system killing it, probably for want of memory: free some, or use a smaller --limit"
    lines = stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"status {status}{': ' + lines[-1] if lines else ''}"
