"""The server behind the window: one that runs already for this library, or one of our own in a thread."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
        # The page shows a server in trouble better than an icon can.
        with suppress(OSError, ValueError):
            return bool(self._call("api/status")["indexing"]["state"] == "paused")
        return False

    def set_paused(self, paused: bool) -> None:
        """Pause it, or let it go on."""
        with suppress(OSError, ValueError):
            self._call("api/index", {"action": "pause" if paused else "resume"})

    def add(self, folders: Sequence[str]) -> tuple[str, ...]:
        """Let it index and watch further folders. Returns why it does not, a sentence for each it refused."""
        refusals = []
        for folder in folders:
            try:
                self._call("api/folders", {"path": folder})
            except urllib.error.HTTPError as error:
                refusals.append(f"{folder} was not added: {_reason(error)}")
            except (OSError, ValueError):
                refusals.append(
                    f"{folder} was not added: the server at {self.url} does not answer. "
                    "Add it on the page once it does."
                )
        return tuple(refusals)

    def _call(self, route: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + route,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        with _NO_PROXY.open(request, timeout=_ANSWER_S) as response:
            answer: dict[str, Any] = json.load(response)
            return answer


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server said, or at least its status."""
    with suppress(OSError, ValueError, KeyError, TypeError), error:
        return str(json.load(error)["error"]["message"])
    return f"the server answered {error.code}."


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
