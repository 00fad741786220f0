"""One folder put into the place of another, so that whatever ends the process, one of the two is to be had.

    .NAME.qvl-new   the new one, which gets this name when it is whole
    .NAME.qvl-old   the one that was there, until the new one is in its place

No system call swaps two folders everywhere, so for a moment there is none of the name. Whoever finds it so
settles it: the new folder comes to its place, or else the old one back. The lock on `.NAME.lock` says whether
somebody is at work.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from ..errors import BundleError
from ..file_lock import LockFile

_NEW, _OLD = ".qvl-new", ".qvl-old"
# Somebody who is at work has the name in place again in no time.
_PATIENCE_S = 5.0
_POLL_S = 0.01


def lock_of(folder: Path) -> Path:
    """The lock that whoever writes a folder of this name must hold."""
    return folder.with_name(f".{folder.name}.lock")


def working_name(folder: Path) -> Path:
    """A new name beside a folder for what may be thrown away if its process dies."""
    return folder.with_name(f".{folder.name}.tmp-{os.urandom(4).hex()}")


def replace(new: Path, folder: Path) -> None:
    """Give `new`, which is whole and lies beside it, the place of `folder`, which may exist.

    The caller holds the lock.

    Raises:
        OSError: it cannot be done; `folder` is then what it was.
    """
    coming, leaving = _coming(folder), _leaving(folder)
    try:
        new.rename(coming)
        if folder.exists():
            folder.rename(leaving)
            sync_folder(folder.parent)
        coming.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        with suppress(OSError):  # the next one settles it
            settle(folder)
        raise
    _throw_away(leaving)


def settle(folder: Path) -> None:
    """End what a `replace` of this folder that was cut short has begun. The caller holds the lock.

    Raises:
        OSError: neither can be put into place.
    """
    coming, leaving = _coming(folder), _leaving(folder)
    if not folder.exists() and (coming.exists() or leaving.exists()):
        try:
            coming.rename(folder)
        except OSError:
            leaving.rename(folder)
        sync_folder(folder.parent)
    for left in (coming, leaving):
        _throw_away(left)


def unsettled(parent: Path) -> set[str]:
    """Names in a folder whose replacement is going on, or was cut short."""
    return {
        entry.name[1:].removesuffix(end)
        for end in (_NEW, _OLD)
        for entry in parent.glob(f".*{end}")
        if len(entry.name) > 1 + len(end)
    }


def recover(folder: Path) -> None:
    """Bring a folder back whose replacement was cut short; quick where there is nothing to do.

    Raises:
        BundleError: it is there, under another name, and cannot be brought back.
    """
    folder = folder.absolute()
    try:
        if not folder.name or folder.exists():
            return
        left = [path for path in (_coming(folder), _leaving(folder)) if path.exists()]
    except OSError:  # a name that is none
        return
    if not left:
        return
    try:
        until = time.monotonic() + _PATIENCE_S
        while (lock := LockFile.take(lock_of(folder))) is None:
            if folder.exists() or time.monotonic() > until:
                return
            time.sleep(_POLL_S)
        try:
            settle(folder)
        finally:
            lock.release(remove=True)
    except OSError as error:
        raise BundleError(
            f"{folder}: was being replaced when the process that did it ended, and cannot be brought back "
            f"({error}). It is whole: rename {left[0]}"
        ) from error


def sync_folder(folder: Path) -> None:
    """Have the disk hold the names in a folder as they are now."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _coming(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_NEW}")


def _leaving(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_OLD}")


def _throw_away(folder: Path) -> None:
    """Remove a folder that is not needed any more; half of one must never be taken for the whole."""
    if folder.exists():
        import shutil

        doomed = folder.with_name(f"{folder.name.rpartition('.')[0]}.tmp-{os.urandom(4).hex()}")
        with suppress(OSError):  # it is in nobody's way
            folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
