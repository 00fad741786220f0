"""One window a library: the first process holds it, every later one asks it to come to the front.

The first listens on a port of the loopback interface and writes port and secret beside its lock, in a file
that only its user may read. Who knows the secret can ask for nothing but "show yourself"; who says nothing,
or something else, holds up nobody. A process that dies leaves a file behind, but no lock, and the next one
takes over.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from qvl_local.runtime.errors import LibraryStorageError
from qvl_local.runtime.file_lock import try_lock, unlock

_KEY_BYTES = 32
_SHOW = b"show"
_ANSWER = b"shown"
_PATIENCE_S = 5.0  # between taking the lock and listening lie milliseconds
_VISITORS = 64


class Instance:
    """The right to be the window of a library, held until `close` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        """Use `Instance.claim`."""
        self._descriptor = descriptor
        self._key = secrets.token_bytes(_KEY_BYTES)
        # Loopback, not a socket file: those have short names, and Windows has none of them here.
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._visitors = threading.BoundedSemaphore(_VISITORS)
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()

    @classmethod
    def claim(cls, folder: Path, library: Path) -> Self | None:
        """Become the window of `library`; None when there is one, which has come to the front then.

        Args:
            folder: the user's data folder, where locks are kept; made when missing.
            library: told apart by its path.

        Raises:
            LibraryStorageError: `folder` cannot be written.
        """
        path = folder / f"window-{hashlib.sha256(os.fsencode(library)).hexdigest()[:16]}.lock"
        deadline = time.monotonic() + _PATIENCE_S
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            while not try_lock(descriptor):
                if _ask_to_show(path):
                    os.close(descriptor)
                    return None
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise LibraryStorageError(
                        f"{path}: another window of {library} is open and does not answer. "
                        "End that process and try again."
                    )
                time.sleep(0.1)
            instance = cls(descriptor)
            instance._write_address()
        except OSError as error:
            raise LibraryStorageError(
                f"{path}: cannot be written ({error.strerror or error}). "
                f"Make {folder} writable for this user."
            ) from error
        return instance

    def on_show(self, show: Callable[[], None]) -> None:
        """Call `show`, from a thread, whenever another process asks for the window."""
        self._thread = threading.Thread(target=self._answer, args=(show,), name="window", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let another process have the window. The file stays: without it there could be two locks."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        if self._thread is not None:
            # A listener that is closed under a waiting `accept` waits on; a last visitor ends it.
            with suppress(OSError):
                socket.create_connection(self._listener.getsockname(), _PATIENCE_S).close()
            self._thread.join(_PATIENCE_S)
        self._listener.close()
        os.ftruncate(self._descriptor, 0)
        unlock(self._descriptor)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_address(self) -> None:
        _, port = self._listener.getsockname()
        address = json.dumps({"port": port, "key": self._key.hex()}).encode()
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, address)

    def _answer(self, show: Callable[[], None]) -> None:
        while not self._is_closed.is_set():
            with suppress(OSError):  # one that hung up before its turn is no reason to stop listening
                visitor, _ = self._listener.accept()
                if not self._visitors.acquire(blocking=False):
                    visitor.close()
                    continue
                # Each in a thread of its own: one that says nothing must not keep the others waiting.
                threading.Thread(target=self._hear, args=(visitor, show), daemon=True).start()

    def _hear(self, visitor: socket.socket, show: Callable[[], None]) -> None:
        try:
            with suppress(OSError), visitor:
                said = _received(visitor, _KEY_BYTES + len(_SHOW))
                if hmac.compare_digest(said, self._key + _SHOW) and not self._is_closed.is_set():
                    show()
                    visitor.sendall(_ANSWER)
        finally:
            self._visitors.release()


def _ask_to_show(path: Path) -> bool:
    """Whether the window whose lock is `path` has come to the front."""
    try:
        address = json.loads(path.read_bytes())
        where, key = ("127.0.0.1", int(address["port"])), bytes.fromhex(address["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # it has not got so far yet
    with suppress(OSError), socket.create_connection(where, _PATIENCE_S) as window:
        window.sendall(key + _SHOW)
        return _received(window, len(_ANSWER)) == _ANSWER
    return False


def _received(other: socket.socket, length: int) -> bytes:
    """Up to `length` bytes, fewer when the other end has no more.

    Raises:
        TimeoutError: they did not come in time.
    """
    deadline, said = time.monotonic() + _PATIENCE_S, b""
    while len(said) < length:
        other.settimeout(max(0.001, deadline - time.monotonic()))
        piece = other.recv(length - len(said))
        if not piece:
            break
        said += piece
    return said
