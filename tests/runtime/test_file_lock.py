"""A lock that is a file: one owner at a time, also where the file goes when it is let go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from qvl_local.runtime.file_lock import LockFile

HOLD = """
import sys
from pathlib import Path
from qvl_local.runtime.file_lock import LockFile

lock = LockFile.take(Path(sys.argv[1]))
lock.write("held by a process")
print(lock is not None, flush=True)
sys.stdin.read()
"""


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = LockFile.take(path)
    assert first is not None
    assert LockFile.take(path) is None  # in the same process, too
    first.release()
    second = LockFile.take(path)
    assert second is not None
    first.release()  # once is enough: it does not take the lock from its next owner
    assert LockFile.take(path) is None
    second.release(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_owner_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert LockFile.take(path) is None
        assert path.read_text() == "held by a process"
        process.kill()
    lock = LockFile.take(path)
    assert lock is not None
    lock.release()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_who_waited_for_a_file_that_was_removed_does_not_hold_the_name(tmp_path: Path) -> None:
    """The last owner removed it between our opening and our locking it: another may have made it anew."""
    path = tmp_path / "lock"
    owner = LockFile.take(path)
    assert owner is not None
    path.unlink()
    other = LockFile.take(path)
    assert other is not None  # another file of that name
    assert owner._descriptor is not None
    from qvl_local.runtime.file_lock import _is_still

    assert not _is_still(path, owner._descriptor)
    owner.release()
    assert path.exists()
    other.release(remove=True)
