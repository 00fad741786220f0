"""Fetching a picture or film from an address, for servers that were told to: http and https, little of it.

Only public addresses are connected to, checked after the name was resolved and before each connection, so
that neither a name nor a redirect leads into a private network. No proxies, cookies or credentials; time and
bytes are bounded. What comes is not looked at.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

from ..errors import QvlError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 1 << 16
_LONGEST = 2048
# RFC 6052: IPv4 addresses behind a translator.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RemoteError(QvlError):
    """An address that is not fetched, or gives nothing; in words for whoever sent it."""


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet, also one that is wrapped in another."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not address.is_multicast


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Fetches. `may_connect` says which addresses are connected to."""

    max_bytes: int = 32 << 20
    limit_s: float = 30.0
    pause_s: float = 10.0
    max_redirects: int = 3
    may_connect: Callable[[Address], bool] = is_public

    def fetch(self, address: str, target: BinaryIO, *, go_on: Callable[[], None]) -> None:
        """Write what an address gives to `target`.

        Raises:
            RemoteError: it may not be fetched, does not answer, or gives too much.
            QvlError: whatever `go_on`, which is called between pieces, raises to end it.
        """
        deadline = time.monotonic() + self.limit_s
        try:
            for _ in range(self.max_redirects + 1):
                next_address = self._get(address, target, deadline, go_on)
                if next_address is None:
                    return
                address = _redirected(address, next_address)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RemoteError(f"the address cannot be fetched ({_reason(error)}).") from error
        raise RemoteError(f"the address redirects more than {self.max_redirects} times.")

    def _get(self, address: str, target: BinaryIO, deadline: float, go_on: Callable[[], None]) -> str | None:
        """Fetch from one server; where it redirects to, or None when `target` has everything."""
        split = _checked(address)
        host, port = str(split.hostname), split.port or _PORTS[split.scheme]
        connection = self._connection(split.scheme, host, port, deadline)
        # Timeouts are for each piece; this is for a server that sends a byte now and then.
        guard = threading.Timer(max(deadline - time.monotonic(), 0), _hang_up, (connection.sock,))
        guard.daemon = True
        guard.start()
        try:
            path = (split.path or "/") + (f"?{split.query}" if split.query else "")
            connection.request(
                "GET", path, headers={"Accept": "image/*, video/*", "Accept-Encoding": "identity"}
            )
            with connection.getresponse() as response:
                location = response.getheader("location")
                if response.status in _REDIRECTS and location:
                    return location
                if response.status != 200:
                    raise RemoteError(f"the address answers {response.status}, not a file.")
                self._copy(response, target, go_on)
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() < deadline:
                raise
            raise self._too_late() from error
        finally:
            guard.cancel()
            connection.close()
        if time.monotonic() > deadline:  # what came may end where we hung up
            raise self._too_late()
        return None

    def _too_late(self) -> RemoteError:
        return RemoteError(f"the address took longer than {self.limit_s:g} s.")

    def _copy(self, response: http.client.HTTPResponse, target: BinaryIO, go_on: Callable[[], None]) -> None:
        too_large = RemoteError(f"what the address gives is larger than {self.max_bytes:,} bytes.")
        if (response.length or 0) > self.max_bytes:
            raise too_large
        received = 0
        while piece := response.read1(_PIECE):
            go_on()
            received += len(piece)
            if received > self.max_bytes:
                raise too_large
            target.write(piece)
        if response.length:
            raise RemoteError("the address closed the connection before everything was there.")

    def _connection(self, scheme: str, host: str, port: int, deadline: float) -> http.client.HTTPConnection:
        """A connection to an address that was checked; the name is not resolved a second time."""
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = [str(info[4][0]) for info in infos]
        refused = [one for one in found if not self.may_connect(ipaddress.ip_address(one.partition("%")[0]))]
        if refused or not found:
            raise RemoteError("the address leads into a private network; only public ones are fetched.")
        timeout = max(0.1, min(self.pause_s, deadline - time.monotonic()))
        plain = socket.create_connection((found[0], port), timeout=timeout)
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        if scheme == "https":
            try:
                connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
            except BaseException:
                plain.close()
                raise
        else:
            connection.sock = plain
        return connection


def _hang_up(connection: socket.socket) -> None:
    """End a connection from another thread; whoever reads from it finds its end."""
    with contextlib.suppress(OSError):
        # Not the method of a TLS socket, which would go on in plain text.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _checked(address: str) -> SplitResult:
    """The parts of an address of a form that we take."""
    if len(address) > _LONGEST or not address.isascii() or any(c <= " " or c == "\x7f" for c in address):
        raise RemoteError(f"the address must be plain ASCII of at most {_LONGEST:,} characters.")
    split = urlsplit(address)
    if split.scheme not in _PORTS or not split.hostname:
        raise RemoteError("the address must begin with http:// or https:// and name a server.")
    if split.username is not None or split.password is not None:
        raise RemoteError("the address must not hold a name or password.")
    return split


def _redirected(before: str, location: str) -> str:
    after = urljoin(before, location)
    if urlsplit(before).scheme == "https" and urlsplit(after).scheme != "https":
        raise RemoteError("the address redirects from https to something else.")
    return after


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no server of that name"
    if isinstance(error, ssl.SSLError):
        return "its certificate is not trusted"
    return type(error).__name__
