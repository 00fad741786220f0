"""What went wrong as a response: a status and one JSON object.

The server's own routes answer `{"error": {"type", "message"}}`, as `--json` does on the command line; those
that speak other services' language (`/v1`, `/rerank`) answer as OpenAI does, with `param` and `code`, too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import (
    InputError,
    LibraryBusyError,
    LibraryError,
    LibraryStorageError,
    MediaError,
    MissingExtraError,
    ModelError,
    ModelLoadingError,
    ModelMemoryError,
    ModelNotFoundError,
    PartError,
    QvlError,
    StoppedError,
)
from .file_manager import NoDesktopError
from .limits import ClientGoneError, OverloadedError

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)


class NotFoundError(QvlError):
    """There is no such item, folder or page here."""


class ForbiddenError(QvlError):
    """It is there, and is not given out."""


class UnknownMediaError(QvlError):
    """The file is no photo or video of a known format any more."""


class ProblemDetail(BaseModel):
    """What happened, in words and as the name of its kind."""

    type: str
    message: str


class Problem(BaseModel):
    """The body of every response that tells of a failure."""

    error: ProblemDetail


# The first that fits counts, so that special errors come before general ones.
_STATUS: tuple[tuple[type[QvlError], int], ...] = (
    (InputError, 400),
    (MediaError, 422),
    (NotFoundError, 404),
    (ForbiddenError, 403),
    (UnknownMediaError, 415),
    (OverloadedError, 503),
    (ClientGoneError, 499),
    (StoppedError, 503),
    (LibraryBusyError, 409),
    (LibraryStorageError, 507),
    (LibraryError, 409),
    (ModelNotFoundError, 404),
    (ModelMemoryError, 503),
    (ModelError, 503),  # no such device here, or no way to fetch it: nothing that the client could change
    (MissingExtraError, 501),
    (NoDesktopError, 501),
)
_TYPES = {
    400: "InputError",
    401: "TokenError",
    403: "ForbiddenError",
    404: "NotFoundError",
    405: "MethodError",
    408: "TimeoutError",
    413: "TooLargeError",
    414: "TooLargeError",
    415: "MediaTypeError",
    416: "RangeError",
    421: "HostError",
    429: "OverloadedError",
    431: "TooLargeError",
    503: "OverloadedError",
}
SEND_JSON = "Send JSON, with the header Content-Type: application/json."
NOT_JSON = "The request's body is not JSON."

_COMPATIBLE = ("/v1/", "/rerank", "/v2/rerank")


def install(app: FastAPI, routes: Iterable[BaseRoute]) -> None:
    """Let an application answer every error that it knows in this form. `routes`: all that it has."""
    known = [route for route in routes if isinstance(route, Route)]

    async def on_method(request: Request, error: Exception) -> Response:
        response = await _on_error(request, error)
        # The route that refused knows its own methods alone, and several may share an address.
        at = [route for route in known if route.path_regex.match(request.url.path)]
        response.headers["allow"] = ", ".join(sorted({method for one in at for method in one.methods or ()}))
        return response

    for kind in (QvlError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(405, on_method)


def problem(
    path: str,
    status: int,
    kind: str,
    message: str,
    headers: Mapping[str, str] | None = None,
    *,
    param: str | None = None,
) -> Response:
    """The response to a failed request for `path`; `param` names the part of the request that is wrong."""
    # Half a surrogate pair, as in undecodable file names, cannot be sent.
    message = message.encode("utf-8", "replace").decode("utf-8")
    if path.startswith(_COMPATIBLE):
        body: dict[str, object] = {"message": message, "type": _openai_type(status)}
        body |= {"param": param, "code": kind}
    else:
        body = {"type": kind, "message": message}
    return JSONResponse({"error": body}, status, headers)


def response_to(error: Exception, path: str) -> Response:
    """The response to an error, whatever it is."""
    if isinstance(error, QvlError):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        headers = {} if (wait := _retry_after(error)) is None else {"retry-after": str(wait)}
        param = error.part if isinstance(error, PartError) else None
        return problem(path, status, type(error).__name__, str(error), headers, param=param)
    if isinstance(error, RequestValidationError):
        return problem(path, 400, "InputError", _invalid(error))
    if isinstance(error, HTTPException):
        kind = _TYPES.get(error.status_code, "HTTPError")
        return problem(path, error.status_code, kind, str(error.detail), error.headers)
    return problem(path, 500, "InternalError", "A bug in qvl-local. Its log says where.")


def _retry_after(error: QvlError) -> int | None:
    """In how many seconds the same request may succeed; None where waiting alone changes nothing."""
    if isinstance(error, OverloadedError):
        return error.retry_after_s
    if isinstance(error, (ModelLoadingError, LibraryBusyError)):
        return 5
    return 1 if isinstance(error, (StoppedError, ModelMemoryError)) else None


class Problems:
    """Middleware: answers what nobody else did, so that no error leaves the application as a bare 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; an error that comes back is answered here unless the answer had begun."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if not isinstance(error, (QvlError, HTTPException)):
                log.exception("a request failed", extra={"route": route_of(scope)})
            if has_begun:
                raise
            await response_to(error, scope["path"])(scope, receive, send)


def route_of(scope: Scope) -> str:
    """The route of a request as it is declared; never what the client wrote."""
    return getattr(scope.get("route"), "path", None) or "(none)"


async def _on_error(request: Request, error: Exception) -> Response:
    path = request.url.path
    if isinstance(error, RequestValidationError) and _is_another_type(request, error):
        error = HTTPException(415, SEND_JSON)
    return response_to(error, path)


def _is_another_type(request: Request, error: RequestValidationError) -> bool:
    """Whether a body was not even looked at, because its type says that it is no JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    return not is_json and any(
        fault["loc"] == ("body",) and fault["type"] != "missing" for fault in error.errors()
    )


def _invalid(error: RequestValidationError) -> str:
    """What does not fit in a request, without what it was: that may be somebody's query."""
    if any(fault["type"] == "json_invalid" for fault in error.errors()):
        return NOT_JSON
    faults = [
        f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'body'}: {fault['msg']}"
        for fault in error.errors()
    ]
    return "; ".join(faults[:5])


def _openai_type(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"
