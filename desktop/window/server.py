"""The server behind the window: one that runs already for this library, or one of our own in a thread."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qvl_local.runtime.server.service import Service
    from qvl_local.runtime.server.settings import ServerSettings

_ANSWER_S = 5.0
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Indexing:
    """The background indexing of a server, as the tray icon sees it. `token`: what that server asks for."""

    url: str
    token: str | None = None

    def is_paused(self) -> bool:
        """Whether it is paused; a server that does not answer pauses nothing."""
        status = self._call("api/status")
        return status is not None and status["indexing"]["state"] == "paused"

    def set_paused(self, paused: bool) -> None:
        """Pause it, or let it go on."""
        self._call("api/index", {"action": "pause" if paused else "resume"})

    def add(self, folders: Sequence[str]) -> None:
        """Let it index and watch further folders."""
        for folder in folders:
            self._call("api/folders", {"path": folder})

    def _call(self, route: str, body: dict[str, str] | None = None) -> dict[str, Any] | None:
        request = urllib.request.Request(
            self.url + route,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with _NO_PROXY.open(request, timeout=_ANSWER_S) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (OSError, ValueError):  # the page shows a server in trouble better than an icon can
            return None


@contextmanager
def own_server(
    settings: ServerSettings, roots: Sequence[str], *, check: Callable[[Service], None]
) -> Iterator[str]:
    """Serve a library in a thread for the time of a block; yields the page's address.

    Takes the port of `settings`, so that the page finds what it remembered last time, or any free one.
    `check` may refuse the service before anything runs.

    Raises:
        QvlError: as `Service.open` and `bind`, and what the server ended with.
    """
    from qvl_local.runtime.server.serve import PortError, bind, serving
    from qvl_local.runtime.server.service import Service

    try:
        listener = bind(settings)
    except PortError:
        listener = bind(replace(settings, port=0))
    with listener, Service.open(settings) as service:
        check(service)
        service.start(roots)
        with serving(settings, service, listener) as url:
            yield url
