"""A folder that appears whole or not at all.

Work happens in a hidden sibling, `.NAME.tmp-xxxxxxxx`, while a lock on `.NAME.lock` keeps other processes
away. At the end every file is synced and the sibling put into place. An exception, SIGINT or SIGTERM removes
the sibling; what a killed process left is removed by the next export into the same parent, which finds its
lock free. How one folder replaces another is `runtime.model.replacement`'s business.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from qvl_local.runtime.errors import BundleError, InputError
from qvl_local.runtime.file_lock import LockFile
from qvl_local.runtime.model.bundle import MANIFEST
from qvl_local.runtime.model.replacement import (
    lock_of,
    recover,
    replace,
    settle,
    sync_folder,
    unsettled,
    working_name,
)

_POLL_SECONDS = 0.1
_REBUILDABLE = {"engines"}


def check_target(output: Path) -> None:
    """Refuse to write over anything but an empty folder or a bundle with nothing added to it.

    A bundle whose replacement was cut short comes back first.

    Raises:
        InputError: something else is there.
        BundleError: what was there cannot come back.
    """
    recover(output)
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    try:
        known = set(json.loads((output / MANIFEST).read_text(encoding="utf-8"))["files"]) | {MANIFEST}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise InputError(
            f"{output}: exists and is not a bundle. Choose a new folder, or remove it first."
        ) from None
    for path in sorted(output.rglob("*")):
        relative = path.relative_to(output)
        if not path.is_dir() and relative.as_posix() not in known and relative.parts[0] not in _REBUILDABLE:
            raise InputError(f"{path}: is not part of the bundle that would be replaced. Move it away first.")


@contextmanager
def locked(output: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the right to write `output`; `waiting` is called once if another process holds it first."""
    with storage_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        with storage_errors(output):
            lock = LockFile.take(lock_of(output))
        if lock is not None:
            break
        if waiting is not None and not told:
            waiting()
            told = True
        time.sleep(_POLL_SECONDS)
    try:
        with storage_errors(output):
            settle(output)
        yield
    finally:
        lock.release(remove=True)


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `output` when the block ends well. The caller holds the lock.

    Raises:
        InputError: something that is not a bundle came to stand at `output` meanwhile.
        BundleError: the disk is full, read-only, or fails.
    """
    _remove_leftovers(output)
    stage = working_name(output)
    with _terminable():
        try:
            with storage_errors(output):
                stage.mkdir()
                yield stage
                _sync(stage)
                check_target(output)
                replace(stage, output)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _remove_leftovers(output: Path) -> None:
    """Remove what dead exports left beside `output`: whoever is alive holds the lock of its name."""
    leftovers = list(output.parent.glob(".*.tmp-????????"))
    owners = {leftover.name[1:].rpartition(".tmp-")[0] for leftover in leftovers}
    for owner in owners | unsettled(output.parent):
        theirs = [one for one in leftovers if one.name[1:].rpartition(".tmp-")[0] == owner]
        if owner == output.name:
            _clear(theirs)
            continue
        lock = LockFile.take(lock_of(output.with_name(owner)))
        if lock is not None:
            try:
                with suppress(OSError):  # not ours: whoever opens it hears of it
                    settle(output.with_name(owner))
                _clear(theirs)
            finally:
                lock.release(remove=True)


def _clear(leftovers: list[Path]) -> None:
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            # Windows syncs only what is open for writing.
            with path.open("r+b") as stream:
                os.fsync(stream.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


@contextmanager
def storage_errors(output: Path) -> Iterator[None]:
    """Turn the system's refusals into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BundleError(
                f"{output}: the disk is full. Free some space, or choose another disk. Nothing was kept."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise BundleError(
                f"{output}: cannot be written here ({_words(error)}). Get access, or choose another folder."
            ) from error
        raise BundleError(
            f"{output}: could not be written ({_words(error)}). Check the folder and its disk, or choose "
            "another one."
        ) from error


def _words(error: OSError) -> str:
    """What the system said, of which file, without its number."""
    where = "" if error.filename is None else f": {error.filename}"
    return f"{error.strerror or error}{where}"


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that `finally` runs. The application's own handler is left alone."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not ours:
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
