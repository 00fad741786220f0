"""What a client may ask for: places at a gate, bytes of a request, time to send it."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.connections import PatientProtocol
from qvl_local.runtime.server.limits import (
    BODIES_AT_ONCE,
    ClientGoneError,
    Gate,
    OverloadedError,
    RequestLimits,
    while_connected,
)
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.testclient import TestClient


class Holder:
    """Work that runs until it is let go."""

    def __init__(self) -> None:
        self.began, self.free, self.runs = threading.Semaphore(0), threading.Event(), 0

    def __call__(self) -> str:
        self.runs += 1
        self.began.release()
        assert self.free.wait(30)
        return "done"


def test_a_gate_lets_some_run_some_wait_and_refuses_the_rest() -> None:
    gate, work = Gate("searches", running=2, waiting=1), Holder()
    futures = [gate.submit(work) for _ in range(3)]
    assert all(work.began.acquire(timeout=30) for _ in range(2))
    with pytest.raises(OverloadedError, match="3 searches"):
        gate.submit(work)
    assert (work.runs, gate.taken) == (2, 3)
    work.free.set()
    assert [future.result(30) for future in futures] == ["done"] * 3
    gate.close()
    assert gate.taken == 0


def test_what_is_cancelled_before_its_turn_never_begins() -> None:
    gate, work = Gate("searches", running=1, waiting=1), Holder()

    async def scenario() -> None:
        first = asyncio.ensure_future(gate.run(work))
        await asyncio.to_thread(work.began.acquire)
        second = asyncio.ensure_future(gate.run(work))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        work.free.set()
        assert await first == "done"

    asyncio.run(scenario())
    gate.close()
    assert (work.runs, gate.taken) == (1, 0)


def test_a_failure_passes_and_gives_its_place_back() -> None:
    gate = Gate("searches", running=1, waiting=0)

    def fail() -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            gate.submit(fail).result(30)
    gate.close()
    with pytest.raises(RuntimeError):
        gate.submit(fail)
    assert gate.taken == 0


def test_work_ends_with_the_client() -> None:
    begun = threading.Event()

    async def scenario() -> None:
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            begun.set()
            gone.set()
            await asyncio.sleep(3600)

        with pytest.raises(ClientGoneError):
            await while_connected(Request({"type": "http"}, receive), work())

    asyncio.run(scenario())
    assert begun.is_set()


def test_a_busy_server_says_when_to_come_again(service: Service, client: TestClient) -> None:
    gate, work = Gate("searches", running=1, waiting=0), Holder()
    kept, service.searches = service.searches, gate
    try:
        gate.submit(work)
        answer = client.get("/api/search", params={"q": "dog"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["type"] == "OverloadedError"
        assert client.get("/api/events", params={"q": "dog"}).status_code == 503
        assert client.get("/health").status_code == 200
    finally:
        work.free.set()
        gate.close()
        service.searches = kept


def test_the_second_step_says_when_it_is_refused(service: Service, client: TestClient) -> None:
    gate, work = Gate("closer looks", running=1, waiting=0), Holder()
    kept, service.reranks = service.reranks, gate
    try:
        gate.submit(work)
        text = client.get("/api/events", params={"q": "dog"}).text
        assert [line for line in text.split("\n") if line.startswith("event")] == [
            "event: found",
            "event: failed",
            "event: done",
        ]
        assert '"OverloadedError"' in text
    finally:
        work.free.set()
        gate.close()
        service.reranks = kept


# Bytes


def test_large_bodies_are_refused_with_and_without_their_length(client: TestClient) -> None:
    body = b" " * ((1 << 20) + 1)

    def pieces() -> Any:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    for content in (body, pieces()):
        answer = client.post("/api/zip", content=content)
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "TooLargeError")


def test_pictures_may_be_larger_than_other_bodies_and_not_without_end(service: Service) -> None:
    settings = replace(service.settings, max_body_bytes=3 << 20)
    with TestClient(build_app(settings, service), base_url="http://localhost") as client:
        assert client.post("/api/picture", content=b"x" * (2 << 20)).status_code == 422, (
            "read, and no picture"
        )
        assert client.post("/api/picture", content=b"x" * (3 << 20) + b"x").status_code == 413
        form = {"file": ("a.jpg", b"x" * (4 << 20), "image/jpeg")}
        assert client.post("/api/picture", files=form).status_code == 413
        assert (
            client.post("/v1/embeddings", content=b"x" * (4 << 20)).json()["error"]["code"] == "TooLargeError"
        )


def test_long_addresses_and_headers_are_refused(client: TestClient) -> None:
    assert client.get("/api/search", params={"q": "x" * 20_000}).status_code == 414
    assert client.get("/" + "x" * 20_000).status_code == 414
    assert client.get("/health", headers={"x-long": "x" * 40_000}).status_code == 431


def _scope() -> dict[str, Any]:
    return {"type": "http", "path": "/api/picture", "raw_path": b"", "query_string": b"", "headers": []}


async def _read_all(_scope: Any, receive: Any, _send: Any) -> None:
    while (await receive()).get("more_body"):
        pass


async def _nothing(_message: Any) -> None:
    return None


def test_all_bodies_together_are_bounded() -> None:
    limits = RequestLimits(_read_all, max_body_bytes=100)

    async def scenario() -> None:
        def sender() -> Any:
            pieces = [{"type": "http.request", "body": b"x" * 99, "more_body": True}]

            async def receive() -> dict[str, Any]:
                if pieces:
                    return pieces.pop()
                await asyncio.sleep(3600)
                raise AssertionError

            return receive

        others = [asyncio.ensure_future(limits(_scope(), sender(), _nothing)) for _ in range(BODIES_AT_ONCE)]
        while limits._held < 99 * BODIES_AT_ONCE:
            await asyncio.sleep(0)

        async def one_more() -> dict[str, Any]:
            return {"type": "http.request", "body": b"x" * 50, "more_body": False}

        with pytest.raises(OverloadedError):
            await limits(_scope(), one_more, _nothing)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await limits(_scope(), one_more, _nothing)

    asyncio.run(scenario())


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    limits = RequestLimits(_read_all, max_body_bytes=100, pause_s=0.05)

    async def scenario() -> None:
        async def never() -> dict[str, Any]:
            await asyncio.sleep(3600)
            raise AssertionError

        with pytest.raises(HTTPException) as caught:
            await limits(_scope(), never, _nothing)
        assert caught.value.status_code == 408

    asyncio.run(scenario())


def test_a_body_that_trickles_is_not_waited_for_either() -> None:
    limits = RequestLimits(_read_all, max_body_bytes=10_000, pause_s=0.2)

    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(HTTPException) as caught:
        asyncio.run(asyncio.wait_for(limits(_scope(), trickle, _nothing), 30))
    assert caught.value.status_code == 408


def test_a_large_body_may_take_its_time() -> None:
    limits = RequestLimits(_read_all, max_body_bytes=10_000, pause_s=0.2, bytes_per_s=100.0)
    pieces = [b"x" * 100] * 20

    async def steadily() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    asyncio.run(limits(_scope(), steadily, _nothing))
    assert not pieces


# Slow clients, over real sockets


def test_slow_and_silent_clients_keep_nobody_waiting(server: Any) -> None:
    slow = [socket.create_connection((server.host, server.port)) for _ in range(40)]
    try:
        for i, connection in enumerate(slow):
            connection.sendall(
                b"POST /api/picture HTTP/1.1\r\nHost: localhost\r\n" if i % 2 else b"GET /file/1 HT"
            )
            if i % 4 == 1:
                connection.sendall(b"Content-Length: 1000\r\n\r\nabc")
        for _ in range(5):
            assert httpx.get(f"{server.url}api/status", trust_env=False).status_code == 200
    finally:
        for connection in slow:
            connection.close()


def test_a_request_whose_head_never_ends_is_cut_off(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientProtocol, "head_s", 0.2)
    with socket.create_connection((server.host, server.port)) as connection:
        connection.settimeout(30)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        while time.monotonic() < began + 30:
            try:
                connection.sendall(b"x-more: 1\r\n")
            except OSError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("it was never cut off")


def test_a_body_that_trickles_is_answered_408_and_its_connection_closed(service: Service) -> None:
    app = build_app(service.settings, service)
    app.user_middleware = [
        Middleware(RequestLimits, **one.kwargs, pause_s=0.3) if one.cls is RequestLimits else one
        for one in app.user_middleware
    ]
    config = uvicorn.Config(app, http=PatientProtocol, lifespan="off", log_config=None, ws="none")
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        with socket.create_connection(listener.getsockname()) as connection:
            connection.settimeout(0.05)
            connection.sendall(
                b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100000\r\n\r\n{"
            )
            answer, until = b"", time.monotonic() + 30
            while time.monotonic() < until:
                with suppress(TimeoutError):
                    if not (piece := connection.recv(65_536)):
                        break
                    answer += piece
                with suppress(OSError):
                    connection.sendall(b" ")
            else:
                pytest.fail("it was waited for")
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer
    assert b'"TimeoutError"' in answer


def test_a_connection_is_kept_for_the_next_request(server: Any) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    connection.connect()
    kept = connection.sock
    for _ in range(3):
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:1]) == (200, b"{")
        assert connection.sock is kept
    connection.close()


def test_limits_make_sense(service: Service) -> None:
    for wrong in (
        {"port": -1},
        {"port": 70_000},
        {"max_searches": 0},
        {"max_waiting": -1},
        {"model_ttl_s": -1.0},
        {"max_body_bytes": 0},
    ):
        with pytest.raises(InputError):
            ServerSettings(library=service.settings.library, **wrong)  # type: ignore[arg-type]
