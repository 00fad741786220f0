"""The server's log: one JSON object a line on stderr, for people with `grep` and for programs.

What people look for is theirs: no line holds a query, the query string of an address, or anything that a
client wrote. Routes are logged as they are declared (`/file/{id}`).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import route_of

if TYPE_CHECKING:
    from .metrics import Metrics

log = logging.getLogger(__name__)

LOGGER = "qvl_local.runtime.server"
_FIELDS = (
    "route",
    "method",
    "status",
    "ms",
    "bytes",
    "event",
    "count",
    "seconds",
    "path",
    "reason",
    "idle_s",
)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, message, and the fields that our own calls add."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback becomes one field of it."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": at, "level": record.levelname.lower()}
        line["message"] = record.getMessage()
        line |= {name: record.__dict__[name] for name in _FIELDS if name in record.__dict__}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def configure(*, level: int = logging.INFO, stream: TextIO | None = None) -> logging.Handler:
    """Send the server's log, and what uvicorn has to complain about, to `stream` (stderr); returns how."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, wanted in ((LOGGER, level), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(wanted)
        logger.addHandler(handler)
        logger.propagate = False
    return handler


def unconfigure(handler: logging.Handler) -> None:
    """Take back what `configure` did."""
    for name in (LOGGER, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


class Observed:
    """Middleware, the outermost: counts and times every request, and logs it in one line."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, sent = time.perf_counter(), 500, 0

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            spent, route = time.perf_counter() - began, route_of(scope)
            self._metrics.count(
                "qvl_requests_total", "Requests by route and status.", route=route, status=str(status)
            )
            self._metrics.observe(
                "qvl_request_seconds", "Time from request to the end of its response.", spent, route=route
            )
            log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "ms": round(spent * 1000, 1),
                    "bytes": sent,
                },
            )
