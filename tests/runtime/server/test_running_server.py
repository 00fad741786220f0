"""Running the server: its port, its end, and what is left behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.server import watch as watch_module
from qvl_local.runtime.server.logs import configure, unconfigure
from qvl_local.runtime.server.presence import find_server
from qvl_local.runtime.server.serve import PortError, bind, url_of
from qvl_local.runtime.server.settings import ServerSettings

PATIENCE_S = 60.0

SCRIPT = """
import sys
from pathlib import Path
from qvl_local.runtime.server.serve import bind, serve
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings

settings = ServerSettings(library=Path(sys.argv[1]), port=0)
with Service.open(settings) as service, bind(settings) as listener:
    serve(settings, service, listener, ready=lambda url: print(url, flush=True))
print("closed", flush=True)
"""


def test_a_taken_port_is_named_with_a_way_out(tmp_path: Path) -> None:
    settings = ServerSettings(library=tmp_path, port=0)
    with bind(settings) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"port {port} .* taken .*--port {port + 1}"):
            bind(replace(settings, port=port))


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    for host in ("192.0.2.1", "no such name.invalid"):
        settings = ServerSettings(library=tmp_path, port=0, host=host, token="0123456789abcdef")
        with pytest.raises(InputError, match="no address of this machine"):
            bind(settings)


def test_the_socket_is_bound_to_loopback_alone(server: Any, settings: ServerSettings) -> None:
    assert server.host == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.port}/"
    with bind(replace(settings, host="::1")) as listener:
        assert listener.getsockname()[0] == "::1"
        assert url_of(replace(settings, host="::1"), listener).startswith("http://[::1]:")


def test_streams_end_when_the_server_stops(serving: Any, settings: ServerSettings) -> None:
    begun, lines = threading.Event(), []

    def listen(url: str) -> None:
        with httpx.stream("GET", f"{url}api/events", timeout=60, trust_env=False) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                begun.set()

    with serving(settings) as running:
        listener = threading.Thread(target=listen, args=(running.url,))
        listener.start()
        assert begun.wait(30)
    listener.join(30)
    assert not listener.is_alive()
    assert lines


def test_requests_that_run_are_answered_before_the_end(serving: Any, settings: ServerSettings) -> None:
    answers: list[int] = []
    began, free = threading.Event(), threading.Event()

    def ask(url: str) -> None:
        answers.append(httpx.get(f"{url}api/status", timeout=60, trust_env=False).status_code)

    with serving(settings) as running:
        status = running.service.board.status

        def slowly() -> Any:
            began.set()
            assert free.wait(30)
            return status()

        running.service.board.status = slowly
        asking = threading.Thread(target=ask, args=(running.url,))
        asking.start()
        assert began.wait(30)
        threading.Timer(0.5, free.set).start()
    asking.join(30)
    assert answers == [200]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_that_is_granted(shelf_copy: Any, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(shelf_copy.library)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}health", trust_env=False).json()["status"] == "ok"
        found = find_server(shelf_copy.library)
        assert found is not None
        assert (found.url, found.pid) == (url, process.pid)
        process.send_signal(number)
        assert process.stdout.read().strip() == "closed"
        assert process.wait(30) == 0
    assert find_server(shelf_copy.library) is None
    assert (
        not (shelf_copy.library / "library.db-wal").exists()
        or not (shelf_copy.library / "library.db-wal").stat().st_size
    )


def test_logs_are_json_lines_without_what_people_look_for(shelf_copy: Any, serving: Any, capsys: Any) -> None:
    written = StringIO()
    handler = configure(level=10, stream=written)
    try:
        with serving(ServerSettings(library=shelf_copy.library, port=0)) as running:
            secret = {"q": "my-secret-query", "camera": "my-secret-camera", "rerank": "false"}
            assert httpx.get(f"{running.url}api/search", params=secret, trust_env=False).status_code == 200
            httpx.get(f"{running.url}api/events", params=secret, trust_env=False)
            httpx.post(
                f"{running.url}api/search", json={"q": "my-secret-query", "limit": "x"}, trust_env=False
            )
            httpx.get(f"{running.url}my-secret-path", trust_env=False)
            httpx.get(f"{running.url}file/1?download=true", trust_env=False)
    finally:
        unconfigure(handler)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert "my-secret" not in written.getvalue()
    requests = [
        (line["method"], line["route"], line["status"]) for line in lines if line["message"] == "request"
    ]
    assert ("GET", "/api/search", 200) in requests
    assert ("POST", "/api/search", 400) in requests
    assert ("GET", "(none)", 404) in requests
    assert ("GET", "/file/{media_id}", 200) in requests
    assert all({"time", "level", "message"} <= set(line) for line in lines)


def test_a_bug_is_a_500_that_tells_its_story_to_the_log_alone(serving: Any, shelf_copy: Any) -> None:
    written = StringIO()
    handler = configure(stream=written)
    try:
        with serving(ServerSettings(library=shelf_copy.library, port=0)) as running:

            def broken() -> Any:
                raise KeyError("something private")

            running.service.metrics.render = broken
            answer = httpx.get(f"{running.url}metrics", trust_env=False)
            assert answer.status_code == 500
            assert "private" not in answer.text
            assert answer.headers["x-content-type-options"] == "nosniff"
    finally:
        unconfigure(handler)
    assert "KeyError" in written.getvalue()


def test_the_log_says_why_a_folder_cannot_be_watched(
    shelf_copy: Any, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_watches(*_: Any, **__: Any) -> Any:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(watch_module, "watch", no_more_watches)
    written = StringIO()
    handler = configure(stream=written)
    try:
        with serving(ServerSettings(library=shelf_copy.library, port=0)) as running:
            running.service.watch.follow([str(shelf_copy.pictures)])
            deadline = time.monotonic() + PATIENCE_S
            while running.service.watch.is_watching:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        unconfigure(handler)
    warnings = [json.loads(line) for line in written.getvalue().splitlines()]
    assert "OS file watch limit reached" in [line.get("reason") for line in warnings]


def test_sockets_are_closed_in_the_end(serving: Any, settings: ServerSettings) -> None:
    with serving(settings) as running:
        port = running.port
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
