"""A server is found by its library for as long as it lives, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from qvl_local.runtime.library.home import SERVING
from qvl_local.runtime.server.presence import Presence, announced, find_server

HERE = Presence("http://127.0.0.1:8377/", needs_token=False, version="1", pid=os.getpid())

SERVING_UNTIL_KILLED = """
import sys
from pathlib import Path
from qvl_local.runtime.server.presence import Presence, announced
with announced(Path(sys.argv[1]), Presence("http://127.0.0.1:1/", False, "1", 1)) as is_announced:
    print(is_announced, flush=True)
    sys.stdin.read()
"""


def test_a_server_is_found_while_it_serves(tmp_path: Path) -> None:
    assert find_server(tmp_path) is None
    with announced(tmp_path, HERE) as is_announced:
        assert is_announced
        assert find_server(tmp_path) == HERE
    assert find_server(tmp_path) is None


def test_the_first_of_two_servers_is_the_one_that_is_found(tmp_path: Path) -> None:
    with announced(tmp_path, HERE), announced(tmp_path, Presence("http://x/", True, "2", 2)) as is_announced:
        assert not is_announced
        assert find_server(tmp_path) == HERE


def test_a_server_that_was_killed_is_not_found(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVING_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        found = find_server(tmp_path)
        assert found is not None
        assert found.url == "http://127.0.0.1:1/"
        process.kill()
    assert (tmp_path / SERVING).stat().st_size > 0  # it could not clean up
    assert find_server(tmp_path) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"url": "file:///etc"}', b'{"url": 1, "needs_token": 1}']
)
def test_what_is_no_address_is_no_server(tmp_path: Path, content: bytes) -> None:
    with announced(tmp_path, HERE):
        (tmp_path / SERVING).write_bytes(content)
        assert find_server(tmp_path) is None


@pytest.mark.skipif("os.name != 'posix'", reason="permissions of POSIX systems")
def test_only_its_user_may_read_the_address(tmp_path: Path) -> None:
    with announced(tmp_path, HERE):
        assert (tmp_path / SERVING).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_does_not_stop_a_server(tmp_path: Path) -> None:
    with announced(tmp_path / "no" / "folder", HERE) as is_announced:
        assert not is_announced
