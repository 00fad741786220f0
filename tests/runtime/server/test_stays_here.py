"""Nothing leaves the machine: a whole run opens no socket beyond loopback, in whichever of its processes.

An audit hook (PEP 578) in every Python process of the run writes down what it does with sockets and names:
indexing with its decoding processes, searching from the command line, and a server with page, searches,
pictures, files and background indexing.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from qvl_local.runtime.world.demo import make_sample_library

HOOK = """
import json, os, sys

_file = os.open(os.environ["SOCKET_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def _note(event, arguments):
    if event.startswith("socket.") or event in ("urllib.Request", "http.client.connect", "ftplib.connect"):
        if event == "socket.__new__":
            arguments = arguments[1:3]
        said = [repr(one) if hasattr(one, "fileno") else one for one in arguments]
        os.write(_file, json.dumps([os.getpid(), event, said], default=repr).encode() + b"\\n")

sys.addaudithook(_note)
os.write(_file, json.dumps([os.getpid(), "hooked", sys.orig_argv]).encode() + b"\\n")
"""

CLI = (sys.executable, "-c", "from qvl_local.desktop.cli import main; main()")
NAMES = {None, "", "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"}


@pytest.fixture
def environment(tmp_path: Path, tiny_bundle: str) -> dict[str, str]:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    log = tmp_path / "sockets.log"
    # As on a fresh machine: nothing is set that would keep libraries from asking the network.
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    return {**ours, "PYTHONPATH": str(tmp_path / "hook"), "SOCKET_LOG": str(log), "HOME": str(tmp_path)}


def said(environment: dict[str, str]) -> list[tuple[int, str, list[Any]]]:
    with open(environment["SOCKET_LOG"], encoding="utf-8") as file:  # noqa: PTH123
        return [tuple(json.loads(line)) for line in file]  # type: ignore[misc]


def leaves(event: str, arguments: list[Any]) -> bool:
    """Whether something asks for, or opens itself to, anything but this machine."""
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        address = arguments[-1]
        if isinstance(address, (list, tuple)):
            return not ipaddress.ip_address(str(address[0]) or "0.0.0.0").is_loopback
        return False  # a socket of this machine's own kind, by its path
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "http.client.connect"):
        asked = [argument for argument in arguments if isinstance(argument, (str, bytes)) or argument is None]
        return bool(asked) and asked[0] not in NAMES
    return event in ("urllib.Request", "ftplib.connect")


def command(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [*CLI, *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@contextmanager
def served(environment: dict[str, str], *arguments: str) -> Iterator[str]:
    with subprocess.Popen(
        [*CLI, "serve", "--json", "--port", "0", "--no-open", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()
            process.communicate(timeout=120)
        assert process.returncode == 0


def test_a_whole_run_opens_no_socket_beyond_loopback(environment: dict[str, str], tmp_path: Path) -> None:
    pictures, library = tmp_path / "pictures", str(tmp_path / "library")
    items = make_sample_library(pictures, photos=8, clips=2, seed=5)
    later = make_sample_library(tmp_path / "later", photos=3, clips=1, seed=6)

    indexed = command(environment, "index", str(pictures), "--library", library, "--json")
    assert indexed["items"] == len(items)
    assert command(environment, "search", "a dog", "--library", library, "--json")["results"]

    with (
        served(environment, "--library", library, str(tmp_path / "later")) as url,
        httpx.Client(base_url=url, timeout=120, trust_env=False) as client,
    ):
        assert client.get("/").status_code == 200
        found = client.get("/api/search", params={"q": "a cat at night"}).json()["results"]
        assert client.get("/api/events", params={"q": "two dogs"}).status_code == 200
        assert client.get(f"/thumb/{found[0]['id']}").status_code == 200
        assert client.get(f"/file/{found[0]['id']}").status_code == 200
        assert client.post("/api/picture", content=items[0].path.read_bytes()).status_code in (200, 422)
        assert client.post("/v1/embeddings", json={"model": "tiny", "input": "a dog"}).status_code == 200
        assert client.get("/metrics").status_code == 200
        for _ in range(600):
            status = client.get("/api/status").json()
            if status["items"] == len(items) + len(later) and status["indexing"]["state"] == "idle":
                break
        else:
            pytest.fail(f"the folder was not indexed: {status}")

    log = said(environment)
    assert len({process for process, event, _ in log if event == "hooked"}) >= 3
    workers = [
        arguments
        for _, event, arguments in log
        if event == "hooked" and any("worker" in a for a in arguments)
    ]
    assert workers, "the decoding processes are watched, too"
    assert any(event == "socket.bind" for _, event, _ in log), "the server's own port is seen"
    assert [entry for entry in log if leaves(entry[1], entry[2])] == []


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("socket.create_connection(('192.0.2.1', 9), timeout=0.01)", "socket.connect"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))", "socket.sendto"),
        ("socket.getaddrinfo('example.invalid', 80)", "socket.getaddrinfo"),
        ("socket.socket().bind(('0.0.0.0', 0))", "socket.bind"),
    ],
)
def test_what_leaves_would_be_noticed(environment: dict[str, str], code: str, event: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import socket\ntry:\n    {code}\nexcept OSError:\n    pass"],
        env=environment, check=True, timeout=60,
    )  # fmt: skip
    assert event in [entry[1] for entry in said(environment) if leaves(entry[1], entry[2])]
