"""How much a client may ask for: bytes of a request, time to send it, and work at one time.

`Gate` is where every blocking call of a route goes: a few run, a few wait, and the others are told to come
again. `RequestLimits` bounds what a client sends before any route sees it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import QvlError

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_TARGET = 16_384
"""Bytes of a path with its query. Words that are longer, as 10,000 characters may be, come in a body."""
LONGEST_HEADERS = 32_768
SMALL_BODY = 1 << 20
LONGEST_PAUSE_S = 30.0
"""Between two pieces of a request's body, and what all its pauses may add up to beyond its bytes' share."""
SLOWEST_PACE = 16_384
"""Bytes of a body a second. A phone with little reception sends more; one byte every 29 s would else be
enough to hold a connection for ever."""

BODIES_AT_ONCE = 4
"""All bodies that are coming in may have so many times the bytes of the largest one."""

_LARGE_BODIES = ("/v1/", "/rerank", "/v2/rerank", "/api/search", "/api/events", "/api/picture")


class OverloadedError(QvlError):
    """Too much is asked for at one time; `retry_after_s` says when to come again."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClientGoneError(QvlError):
    """The client closed the connection; what it asked for and had not begun was dropped."""


class Gate:
    """Threads for blocking work: at most `running` at once, `waiting` more in a queue, else refused.

    Belongs to no event loop, so that tests and servers may share one.
    """

    def __init__(self, name: str, *, running: int, waiting: int) -> None:
        self.name = name
        self._most = running + waiting
        self._taken = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(running, thread_name_prefix=name)

    @property
    def taken(self) -> int:
        """How much runs or waits now."""
        return self._taken

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(*args)` returns, called in a thread.

        Cancelled before its turn it never begins; what runs already runs to its end and keeps its place.

        Raises:
            OverloadedError: the queue is full.
        """
        return await asyncio.wrap_future(self.submit(work, *args, **kwargs))

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `run`, for callers that are no coroutine."""
        with self._lock:
            if self._taken >= self._most:
                raise OverloadedError(
                    f"The server is busy: {self._most} {self.name} are running or waiting. "
                    "Try again in a moment."
                )
            self._taken += 1
        try:
            future = self._threads.submit(work, *args, **kwargs)
        except BaseException:
            self._release(None)
            raise
        future.add_done_callback(self._release)
        return future

    def close(self) -> None:
        """Drop what waits, and wait for what runs."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _release(self, _future: object) -> None:
        with self._lock:
            self._taken -= 1


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes first. The body must have been read.

    Raises:
        ClientGoneError: the client went.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnection(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError("The client closed the connection.")
    finally:
        for each in (task, gone):
            each.cancel()


async def _disconnection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class RequestLimits:
    """Middleware: refuses what is too long before it is read, or while it comes in, and what never comes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        pause_s: float = LONGEST_PAUSE_S,
        bytes_per_s: float = SLOWEST_PACE,
    ) -> None:
        """`pause_s` and what came, at `bytes_per_s`, are the time that a body is waited for in all."""
        self._app = app
        self._max_body = max_body_bytes
        self._pause_s = pause_s
        self._pace = bytes_per_s
        self._held = 0  # bytes of bodies of all requests that are going on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and each piece of its body as it comes.

        Raises:
            HTTPException: too long (413, 414, 431), or too slow (408).
            OverloadedError: too much is being sent at one time.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._check_head(scope)
        received, is_complete = 0, False
        # Only what the server waited for the client; not what the client waited for the server.
        waited_s = 0.0

        async def bounded() -> Message:
            nonlocal received, is_complete, waited_s
            if is_complete:
                return await receive()
            began = time.monotonic()
            left_s = self._pause_s + received / self._pace - waited_s
            try:
                message = await asyncio.wait_for(receive(), min(self._pause_s, left_s))
            except TimeoutError:
                raise _too_slow() from None
            waited_s += time.monotonic() - began
            if message["type"] == "http.request":
                length = len(message.get("body", b""))
                received += length
                self._held += length
                is_complete = not message.get("more_body", False)
                if received > limit:
                    raise _too_large(limit)
                if self._held > BODIES_AT_ONCE * self._max_body:
                    raise OverloadedError("Too much is being sent to the server. Try again in a moment.")
            return message

        try:
            await self._app(scope, bounded, send)
        finally:
            self._held -= received

    def _check_head(self, scope: Scope) -> int:
        """The most bytes that a request's body may have."""
        if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST_TARGET:
            raise HTTPException(414, f"The address is longer than {LONGEST_TARGET:,} bytes.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > LONGEST_HEADERS:
            raise HTTPException(431, f"The headers are longer than {LONGEST_HEADERS:,} bytes.")
        is_large = scope["path"].startswith(_LARGE_BODIES)
        limit = self._max_body if is_large else min(SMALL_BODY, self._max_body)
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise _too_large(limit)
        return limit


def _too_slow() -> HTTPException:
    # Closed, since what follows on this connection would be the rest of that body, if it ever came.
    return HTTPException(408, "The request's body did not arrive in time.", {"connection": "close"})


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The request's body is larger than {limit:,} bytes.")
