"""Which server serves a library: written into its folder, so that a window, or a second server, finds it.

The operating system's lock says whether the writer is alive; what a dead one left behind counts for nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..file_lock import try_lock, unlock
from ..library.home import SERVING

_TRIES = 20
_PAUSE_S = 0.05
_LONGEST = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Presence:
    """A running server: where its page is for a browser of this machine, and what it is."""

    url: str
    needs_token: bool
    version: str
    pid: int


@contextmanager
def announced(library: Path, presence: Presence) -> Iterator[bool]:
    """Let others find a server for the time of a block; yields whether they do.

    They do not where another server of the same library came first, or where nothing can be written: both
    are no reason not to serve.
    """
    descriptor = _lock(library / SERVING)
    if descriptor is None:
        yield False
        return
    try:
        with suppress(OSError):  # a full disk
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(asdict(presence)).encode())
        yield True
    finally:
        # The file stays, empty: deleting it could leave two servers with two locks of one name.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        unlock(descriptor)
        os.close(descriptor)


def find_server(library: Path) -> Presence | None:
    """The server that serves the library in the folder `library` now; None when there is none."""
    try:
        descriptor = os.open(library / SERVING, os.O_RDONLY)
    except OSError:
        return None
    try:
        if try_lock(descriptor):  # whoever wrote it has ended
            unlock(descriptor)
            return None
        return _parsed(os.read(descriptor, _LONGEST))
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _lock(file: Path) -> int | None:
    """An open descriptor of the locked file; None when somebody else has the lock, or nothing can be made."""
    try:
        # Nobody else needs to know what this user runs.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    for _ in range(_TRIES):  # `find_server` holds the lock for a moment
        if try_lock(descriptor):
            return descriptor
        time.sleep(_PAUSE_S)
    os.close(descriptor)
    return None


def _parsed(content: bytes) -> Presence | None:
    try:
        fields = json.loads(content)
        presence = Presence(
            url=fields["url"],
            needs_token=fields["needs_token"],
            version=fields["version"],
            pid=fields["pid"],
        )
    except (ValueError, KeyError, TypeError):
        return None
    is_ours = (
        isinstance(presence.url, str)
        and presence.url.startswith("http://")
        and isinstance(presence.needs_token, bool)
        and isinstance(presence.version, str)
        and isinstance(presence.pid, int)
    )
    return presence if is_ours else None
