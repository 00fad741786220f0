"""Running the server: take the port, serve, and stop so that nothing is lost.

with Service.open(settings) as service, bind(settings) as listener:
    serve(settings, service, listener, ready=lambda url: print(url))
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from ..errors import InputError, QvlError
from ..machine import installed_version
from .app import build_app
from .connections import PatientProtocol
from .presence import Presence, announced
from .service import Service
from .settings import ServerSettings, is_wildcard

_BACKLOG = 128
_CONNECTIONS = 512
_STOP_S = 10


class PortError(QvlError):
    """The address or port cannot be listened on."""


def bind(settings: ServerSettings) -> socket.socket:
    """Take the address and port before anything else is done.

    Raises:
        PortError: somebody else has it, or this user may not.
        InputError: the address is none of this machine's.
    """
    host, port = settings.host.strip("[]"), settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(
            f"host {settings.host}: is no address of this machine ({error.strerror})."
        ) from error
    try:
        if hasattr(signal, "SIGHUP"):  # on Windows it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(error, settings) from error
    return listener


def url_of(settings: ServerSettings, listener: socket.socket) -> str:
    """Where this machine's browser finds the server."""
    host = "127.0.0.1" if is_wildcard(settings.host) else settings.host.strip("[]")
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"


def serve(
    settings: ServerSettings,
    service: Service,
    listener: socket.socket,
    *,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`; requests that run are finished, streams ended.

    In the main thread both signals are answered here; a second SIGINT does not wait any more. Meanwhile
    `find_server` finds it by its library.

    Args:
        ready: told the address once requests are answered.
        stop: ends the server from elsewhere; waited for in steps of a tenth of a second.
    """
    config = uvicorn.Config(
        build_app(settings, service),
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody's word but the connection's counts for where a client is
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_STOP_S,
    )
    url = url_of(settings, listener)
    presence = Presence(url, settings.token is not None, installed_version() or "unknown", os.getpid())
    with announced(settings.library, presence):
        _Server(config, service, url, ready, stop).run([listener])


@contextmanager
def serving(settings: ServerSettings, service: Service, listener: socket.socket) -> Iterator[str]:
    """Serve in a thread for the time of a block; yields the page's address once requests are answered.

    Raises:
        QvlError: the server ended before that.
    """
    stop, is_settled = threading.Event(), threading.Event()
    urls: list[str] = []
    errors: list[BaseException] = []

    def ready(url: str) -> None:
        urls.append(url)
        is_settled.set()

    def run() -> None:
        try:
            serve(settings, service, listener, ready=ready, stop=stop)
        except BaseException as error:  # told in the thread that waits
            errors.append(error)
        finally:
            is_settled.set()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        is_settled.wait()
        if errors or not urls:
            raise QvlError(f"The server could not start: {errors[0] if errors else 'it ended at once'}.")
        yield urls[0]
    finally:
        stop.set()
        thread.join()


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        url: str,
        ready: Callable[[str], None] | None,
        stop: threading.Event | None,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._url = url
        self._ready = ready
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None:
            self._ready(self._url)

    async def on_tick(self, counter: int) -> bool:
        if self._stop is not None and self._stop.is_set():
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams of events never end by themselves.
        self._service.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signals anew once all is done; to us they were wishes, and are granted.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True


def _refusal(error: OSError, settings: ServerSettings) -> QvlError:
    at, other = f"port {settings.port}", settings.port + 1 if settings.port < 65_535 else 0
    if error.errno == errno.EADDRINUSE:
        return PortError(
            f"{at} of {settings.host} is taken by another program, perhaps another `qvl-local serve`. "
            f"Stop that one, or choose another port: --port {other}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortError(f"{at}: this user may not listen there. Choose a port above 1023: --port 8377")
    if error.errno in (errno.EADDRNOTAVAIL, getattr(errno, "WSAEADDRNOTAVAIL", -1)):
        return InputError(f"host {settings.host}: is no address of this machine. Use 127.0.0.1, or 0.0.0.0.")
    return PortError(f"{at} of {settings.host} cannot be listened on: {error.strerror}.")
