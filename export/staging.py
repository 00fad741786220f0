"""A folder that appears whole or not at all.

Work happens in a hidden sibling, `.NAME.tmp-xxxxxxxx`, while a lock on `.NAME.lock` keeps other processes
away. At the end every file is synced and the sibling renamed. An exception, SIGINT or SIGTERM removes the
sibling; what a killed process left is removed by the next export into the same parent, which finds its lock
free.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from qvl_local.runtime.errors import BundleError, InputError
from qvl_local.runtime.file_lock import try_lock
from qvl_local.runtime.model.bundle import MANIFEST

_POLL_SECONDS = 0.1
_REBUILDABLE = {"engines"}


def check_target(output: Path) -> None:
    """Refuse to write over anything but an empty folder or a bundle with nothing added to it.

    Raises:
        InputError: something else is there.
    """
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
    path = _lock_path(output.parent, output.name)
    told = False
    while True:
        with storage_errors(output):
            descriptor = _try_acquire(path)
        if descriptor is not None:
            break
        if waiting is not None and not told:
            waiting()
            told = True
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        _release(path, descriptor)


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `output` when the block ends well. The caller holds the lock.

    Raises:
        InputError: something that is not a bundle came to stand at `output` meanwhile.
        BundleError: the disk is full, read-only, or fails.
    """
    _remove_leftovers(output)
    stage = output.with_name(f".{output.name}.tmp-{secrets.token_hex(4)}")
    with _terminable():
        try:
            with storage_errors(output):
                stage.mkdir()
                yield stage
                _sync(stage)
                check_target(output)
                _publish(stage, output)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _publish(stage: Path, output: Path) -> None:
    old = output.with_name(f".{output.name}.tmp-{secrets.token_hex(4)}")
    if output.exists():
        output.rename(old)
    stage.rename(output)
    _sync_folder(output.parent)
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(output: Path) -> None:
    """Remove what dead exports left beside `output`: whoever is alive holds the lock of its name."""
    for leftover in output.parent.glob(".*.tmp-????????"):
        owner = leftover.name[1:].rpartition(".tmp-")[0]
        if owner == output.name:
            shutil.rmtree(leftover, ignore_errors=True)
            continue
        path = _lock_path(output.parent, owner)
        descriptor = _try_acquire(path)
        if descriptor is not None:
            shutil.rmtree(leftover, ignore_errors=True)
            _release(path, descriptor)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            # Windows syncs only what is open for writing.
            with path.open("r+b") as stream:
                os.fsync(stream.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
                f"{output}: cannot be written here ({error}). Choose another folder."
            ) from error
        raise BundleError(f"{output}: could not be written ({error}).") from error


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


def _lock_path(parent: Path, name: str) -> Path:
    return parent / f".{name}.lock"


def _try_acquire(path: Path) -> int | None:
    """A descriptor that holds the lock, or None while another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if try_lock(descriptor) and _is_still(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the locked file is the one of that name: its last owner may have deleted it meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    with suppress(OSError):  # Windows keeps a file that another process has open
        path.unlink()
    os.close(descriptor)
