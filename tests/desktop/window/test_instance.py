"""One window a library, whoever asks: over real processes and real sockets on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from qvl_local.desktop.window.instance import Instance
from qvl_local.runtime.errors import LibraryStorageError

HOLDING = """
import sys
from pathlib import Path
from qvl_local.desktop.window.instance import Instance
instance = Instance.claim(Path(sys.argv[1]), Path(sys.argv[2]))
instance.on_show(lambda: print("shown", flush=True))
print("holding", flush=True)
sys.stdin.read()
instance.close()
"""


def lock_of(folder: Path) -> Path:
    (path,) = folder.glob("window-*.lock")
    return path


def test_the_second_asks_the_first_to_come_to_the_front(tmp_path: Path) -> None:
    shown = threading.Event()
    with Instance.claim(tmp_path, tmp_path / "library") as first:  # type: ignore[union-attr]
        first.on_show(shown.set)
        assert Instance.claim(tmp_path, tmp_path / "library") is None
        assert shown.wait(10)
    again = Instance.claim(tmp_path, tmp_path / "library")
    assert again is not None
    again.close()


def test_two_libraries_have_two_windows(tmp_path: Path) -> None:
    one = Instance.claim(tmp_path, tmp_path / "a")
    other = Instance.claim(tmp_path, tmp_path / "b")
    assert one is not None
    assert other is not None
    one.close()
    other.close()


def test_another_process_is_asked_and_one_that_died_is_followed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path), "library"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        assert Instance.claim(tmp_path, Path("library")) is None
        assert process.stdout.readline() == "shown\n"
        process.kill()
    assert lock_of(tmp_path).stat().st_size > 0  # it left its address behind, and no lock
    heir = Instance.claim(tmp_path, Path("library"))
    assert heir is not None
    heir.close()


@pytest.mark.skipif("os.name != 'posix'", reason="permissions of POSIX systems")
def test_only_the_user_may_read_the_secret(tmp_path: Path) -> None:
    with Instance.claim(tmp_path, Path("library")):  # type: ignore[union-attr]
        assert lock_of(tmp_path).stat().st_mode & 0o777 == 0o600


def test_who_has_no_secret_changes_nothing(tmp_path: Path) -> None:
    shown = threading.Event()
    with Instance.claim(tmp_path, Path("library")) as first:  # type: ignore[union-attr]
        first.on_show(shown.set)
        port = json.loads(lock_of(tmp_path).read_bytes())["port"]
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"g" * 32 + b"show")
            assert stranger.recv(16) == b""
        assert not shown.is_set()
        assert Instance.claim(tmp_path, Path("library")) is None
        assert shown.wait(10)


def test_who_says_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    shown = threading.Event()
    with Instance.claim(tmp_path, Path("library")) as first, ExitStack() as silent:  # type: ignore[union-attr]
        first.on_show(shown.set)
        port = json.loads(lock_of(tmp_path).read_bytes())["port"]
        for i in range(20):
            visitor = silent.enter_context(socket.create_connection(("127.0.0.1", port)))
            visitor.sendall(b"x" * i)
        assert Instance.claim(tmp_path, Path("library")) is None
        assert shown.wait(10)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryStorageError, match="file"):
        Instance.claim(tmp_path / "file", Path("library"))
