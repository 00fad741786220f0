"""`qvl-local serve` as a process of its own: it starts, answers, indexes, and stops without any loss."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

import pytest
from qvl_local.desktop.cli import run
from qvl_local.desktop.server_token import server_token
from qvl_local.runtime import Library
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.world.demo import make_sample_library

PATIENCE_S = 120.0


class Server:
    """A running `qvl-local serve`, and its API."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.noted: list[str] = []
        stderr = process.stderr
        assert stderr is not None
        self._reader = threading.Thread(target=self._read, args=(stderr,), daemon=True)
        self._reader.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "".join(self.noted)
        self.line: dict[str, Any] = json.loads(line)
        self.address = urlsplit(self.line["url"]).netloc

    def _read(self, stderr: IO[str]) -> None:
        self.noted.extend(stderr)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE_S)
        sent = None if body is None else json.dumps(body)
        with contextlib.closing(connection):
            connection.request(method, path, sent, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            content = answer.read()
        is_json = "json" in answer.headers.get("content-type", "")
        return answer.status, json.loads(content) if is_json else content

    def status(self) -> dict[str, Any]:
        code, status = self.ask("GET", "/api/status")
        assert code == 200, status
        return dict(status)

    def until(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so(status := self.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.1)
        return status

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers on the library of this test; none outlives it."""
    servers: list[Server] = []

    def begin(*arguments: str, **environment: str) -> Server:
        main = "from qvl_local.desktop.cli import main; main()"
        command = [sys.executable, "-c", main, "serve", *arguments, "--no-open", "--json"]
        process = subprocess.Popen(
            [*command, "--port", "0", "--library", str(tmp_path / "library"), "--log-level", "warning"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        servers.append(Server(process))
        return servers[-1]

    yield begin
    for server in servers:
        server.process.kill()
        server.process.wait()
        for pipe in (server.process.stdout, server.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "pictures"
    make_sample_library(folder, photos=40, clips=2, seed=11)
    return folder


def is_idle(items: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status["indexing"]["state"] == "idle" and status["items"] >= items


def has_embedded(files: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status["indexing"]["stage"] == "embed" and status["indexing"]["done"] >= files


def test_a_first_run_without_folders_invites_to_add_one(start: Start, tmp_path: Path, pictures: Path) -> None:
    server = start()
    assert server.line["library"] == str(tmp_path / "library")
    assert not server.line["needs_token"]
    status = server.status()
    assert (status["items"], status["model"]["state"]) == (0, "unloaded")
    assert server.ask("GET", "/api/folders") == (200, {"folders": []})
    code, page = server.ask("GET", "/")
    assert (code, b"<html" in page) == (200, True)
    code, _ = server.ask("POST", "/api/folders", {"path": str(pictures)})
    assert code == 202
    server.until(is_idle(42))
    code, found = server.ask("GET", f"/api/search?q={quote('a dog')}&limit=5")
    assert (code, len(found["results"])) == (200, 5)
    assert server.end(signal.SIGINT) == 0
    assert any("Nothing is lost" in line for line in server.noted)


@pytest.mark.skipif("sys.platform == 'win32'", reason="Windows has no such signals")
def test_sigterm_while_indexing_loses_nothing(start: Start, tmp_path: Path, pictures: Path) -> None:
    server = start(str(pictures))
    server.until(has_embedded(5))
    assert server.end(signal.SIGTERM) == 0
    assert_whole(tmp_path / "library", pictures)


@pytest.mark.skipif("sys.platform == 'win32'", reason="Windows has no such signals")
def test_a_killed_server_leaves_a_whole_library(start: Start, tmp_path: Path, pictures: Path) -> None:
    server = start(str(pictures))
    server.until(has_embedded(5))
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    again = start()  # the folder was remembered at once, so nobody need name it again
    again.until(is_idle(42))
    assert again.end(signal.SIGTERM) == 0
    assert_whole(tmp_path / "library", pictures)


def assert_whole(library: Path, pictures: Path) -> None:
    """Another run finds the library in order, and ends with everything in it."""
    settings = IndexSettings(WorkerSettings(2))
    with Library.open(library, create=False, settings=settings) as opened:
        report = opened.index([pictures])
        assert (report.items, report.failed) == (42, ())
        assert report.added + report.unchanged + report.updated == 42
        assert opened.search("a dog", limit=3).hits


def test_a_served_library_is_not_served_twice(start: Start, tmp_path: Path) -> None:
    server = start()
    second = start()
    assert second.line["url"] == server.line["url"]
    assert second.process.wait(PATIENCE_S) == 0
    assert server.process.poll() is None


def test_a_server_for_other_machines_needs_its_token(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = start("--host", "0.0.0.0", XDG_DATA_HOME=str(data))
    assert server.line["needs_token"]
    code, _ = server.ask("GET", "/api/status")
    assert code == 401
    (told,) = [line for line in server.noted if "Token" in line]
    token = told.rsplit(" ", 1)[-1].strip()
    code, _ = server.ask("GET", "/api/status", Authorization=f"Bearer {token}")
    assert code == 200
    server.end(signal.SIGTERM)
    if sys.platform == "linux":
        (file,) = data.rglob("server-token")
        assert file.stat().st_mode & 0o777 == 0o600
        again = start("--host", "0.0.0.0", XDG_DATA_HOME=str(data))
        assert not any("Token" in line for line in again.noted)


@pytest.mark.parametrize(
    ("arguments", "says", "status"),
    [
        (["/nowhere/at/all"], "no such file or folder", 2),
        (["--port", "70000"], "--port", 2),
        (["--host", "no.such.host.invalid", "--no-open"], "no address of this machine", 2),
    ],
)
def test_what_cannot_be_served_is_said(
    arguments: list[str],
    says: str,
    status: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QVL_TOKEN", "a token of more than sixteen characters")
    assert run(["serve", *arguments, "--library", str(tmp_path / "library")]) == status
    assert says in capsys.readouterr().err


def test_a_token_is_made_once_and_kept_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QVL_TOKEN", raising=False)
    token, file = server_token(tmp_path / "data")
    assert file is not None
    assert len(token) >= 32
    assert server_token(tmp_path / "data") == (token, None)
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
        file.chmod(0o644)
        server_token(tmp_path / "data")
        assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("QVL_TOKEN", "from the environment")
    assert server_token(tmp_path / "data") == ("from the environment", None)
    monkeypatch.delenv("QVL_TOKEN")
    file.write_text("\n")
    with pytest.raises(InputError, match="holds no token"):
        server_token(tmp_path / "data")
