"""Who may ask: the names of this server, the pages that may call it, the token, and what browsers may do.

`Guard` is the outer wall, in front of every route. In order:

1. the Host header must be one of our names: a page that points its own name at this machine (DNS
   rebinding) is turned away;
2. a browser must say that the request comes from our own page (Origin, Sec-Fetch-Site): other pages can
   neither change anything nor load a picture; programs send neither header and are let in;
3. with a token, everything but the empty page itself needs it: `Authorization: Bearer`, or the cookie that
   `POST /api/session` sets. It is never read from an address, which ends up in logs and histories;
4. every response tells browsers to run nothing but our scripts and to give nothing to other pages.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import socket
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import problem
from .settings import ServerSettings, is_loopback, is_wildcard

PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""For the page. `blob:` lets it show a picture that was dropped on it before it is sent."""

FILE_POLICY = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; sandbox"
)
"""For files of a library, opened by themselves: shown by the browser's own viewer, and never run."""

DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"

_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": (
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), hid=(), "
        "display-capture=(), browsing-topics=()"
    ),
}

SESSION_DAYS = 30
_SAFE = ("GET", "HEAD", "OPTIONS")
_FAILURES = 10
_FAILURE_WINDOW_S = 60.0
_ADDRESSES = 1024


class Sessions:
    """The token, and what proves that a browser has shown it. Keeps nothing: a cookie carries its own proof.

    A cookie is an expiry and its HMAC under the token, so that it ends with the token, not with the process.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    @property
    def is_needed(self) -> bool:
        """Whether clients must show a token."""
        return self._token is not None

    def is_token(self, shown: str) -> bool:
        """Whether it is the token, compared in a time that does not depend on where they differ."""
        token = self._token or ""
        return hmac.compare_digest(_digest(shown), _digest(token)) and bool(token)

    def cookie(self, now: float | None = None) -> str:
        """The value of a new session's cookie."""
        expires = math.ceil((time.time() if now is None else now) + SESSION_DAYS * 86_400)
        return f"{expires}.{self._proof(expires)}"

    def is_cookie(self, value: str, now: float | None = None) -> bool:
        """Whether a cookie is one of ours and not over."""
        expires, _, proof = value.partition(".")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16) or self._token is None:
            return False
        is_ours = hmac.compare_digest(_digest(proof), _digest(self._proof(int(expires))))
        return is_ours and int(expires) > (time.time() if now is None else now)

    # Guessing

    def may_try(self, address: str) -> int:
        """0, or the seconds after which this address may show another token or cookie."""
        since, count = self._failures.get(address, (0.0, 0))
        left = since + _FAILURE_WINDOW_S - time.monotonic()
        return math.ceil(left) if count >= _FAILURES and left > 0 else 0

    def failed(self, address: str) -> None:
        """Note a wrong token."""
        now = time.monotonic()
        since, count = self._failures.pop(address, (now, 0))
        if now - since > _FAILURE_WINDOW_S:
            since, count = now, 0
        self._failures[address] = (since, count + 1)
        while len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)

    def _proof(self, expires: int) -> str:
        key = (self._token or "").encode("utf-8", "surrogateescape")
        return hmac.new(key, f"qvl-local session {expires}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """Middleware: the four walls of the module's description."""

    def __init__(
        self, app: ASGIApp, *, settings: ServerSettings, sessions: Sessions, page: frozenset[str]
    ) -> None:
        """`page`: the addresses of the page's own files, which hold nothing of the library."""
        self._app = app
        self._open = page | {"/", "/health", "/api/session"}
        self._sessions = sessions
        self._names = own_names(settings)
        self._any_address = is_wildcard(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or turn it away."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = _with_headers(send)
        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return problem(
                path,
                421,
                "HostError",
                "This server does not go by the name in the Host header. Open it as http://localhost "
                "with its port, or start it with --allowed-host NAME.",
            )
        if not _is_from_own_page(scope, headers, hosts[0]):
            return problem(
                path,
                403,
                "OriginError",
                "Another site's page asked for this; only this server's own page may.",
            )
        if self._sessions.is_needed and scope["path"] not in self._open:
            return self._without_token(scope, headers)
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        path, address = scope["path"], client_address(scope)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = cookie_of(headers, cookie_name(scope))
        has_bearer = scheme.lower() == "bearer" and bool(bearer.strip())
        if has_bearer or cookie is not None:
            if wait := self._sessions.may_try(address):
                return too_many_failures(path, wait)
            if has_bearer and self._sessions.is_token(bearer.strip()):
                return None
            if cookie is not None and self._sessions.is_cookie(cookie):
                return None
            if has_bearer:
                self._sessions.failed(address)
        return problem(
            path,
            401,
            "TokenError",
            "This server needs its token: sign in on its page, or send Authorization: Bearer TOKEN.",
            {"www-authenticate": "Bearer"},
        )

    def _is_own(self, host: str) -> bool:
        name = host_name(host)
        if name is None:
            return False
        # An address cannot be pointed elsewhere, so that on all addresses any of them is ours.
        return name in self._names or (self._any_address and _is_address(name))


def own_names(settings: ServerSettings) -> frozenset[str]:
    """The names that the Host header may have, without a port, in lower case."""
    names = {"localhost", "127.0.0.1", "::1"}
    names |= {name.lower().strip("[]") for name in settings.allowed_hosts}
    if not is_wildcard(settings.host):
        names.add(settings.host.lower().strip("[]"))
    if not is_loopback(settings.host):
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"} if machine else set()
    return frozenset(names)


def host_name(host: str) -> str | None:
    """The name in a Host header, without port and brackets, in lower case; None where there is none."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        is_whole = bool(bracket) and (not rest or rest[0] == ":")
        port = rest[1:]
    else:
        name, _, port = host.partition(":")
        is_whole = True
    if not is_whole or not name or (port and not (port.isascii() and port.isdigit())):
        return None
    return name.lower()


def cookie_name(scope: Scope) -> str:
    """The session's cookie. Browsers keep cookies by host and not by port, so the name has the port."""
    server = scope.get("server")
    return f"qvl_session_{server[1] if server else 0}"


def cookie_of(headers: Headers, name: str) -> str | None:
    """The value of a cookie, or None."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def client_address(scope: Scope) -> str:
    """The address of the other end of the connection; no header is asked."""
    client = scope.get("client")
    return client[0] if client else ""


def too_many_failures(path: str, wait: int) -> Response:
    """The response to somebody who guesses tokens."""
    message = f"Too many wrong tokens came from this address. Try again in {wait} seconds."
    return problem(path, 429, "TokenError", message, {"retry-after": str(wait)})


def _is_from_own_page(scope: Scope, headers: Headers, host: str) -> bool:
    origins = headers.getlist("origin")
    if origins and (len(origins) > 1 or origins[0].lower() not in (f"http://{host}", f"https://{host}")):
        return False
    is_visit = scope["method"] in _SAFE and scope["path"] == "/"
    site = headers.get("sec-fetch-site")
    if site is None:
        # An old browser, or a program. Our page sends no Referer; a link to it gives the other site nothing.
        referer = headers.get("referer")
        return is_visit or referer is None or referer.startswith((f"http://{host}/", f"https://{host}/"))
    if site in ("same-origin", "none"):
        return True
    is_visit = is_visit and headers.get("sec-fetch-dest") == "document"
    return bool(is_visit and headers.get("sec-fetch-mode") == "navigate")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _digest(text: str) -> bytes:
    # Of equal length whatever was sent, and bytes: compare_digest refuses text beyond ASCII.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("content-security-policy", DATA_POLICY)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return guarded
