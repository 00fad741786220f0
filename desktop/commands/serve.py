"""`qvl-local serve`: the page and the API, indexing in the background."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from qvl_local.runtime.errors import InputError

from .. import options, paths
from ..console import note, write_bytes
from ..settings import Settings, qvl_version, user_data_folder
from ..text import home_relative, valid_unicode

if TYPE_CHECKING:
    from qvl_local.runtime.server.service import Service

PAGE = Path(__file__).resolve().parents[1] / "page"

LogLevel = Literal["debug", "info", "warning", "error"]


def serve(
    names: options.NewFolders = None,
    library: options.Library = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="H",
            envvar="QVL_HOST",
            help="Address to listen on. Any but this machine's own needs a token; one is made.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="N", envvar="QVL_PORT", min=0, max=65_535, help="0 takes any free one."
        ),
    ] = 8377,
    no_open: Annotated[
        bool, typer.Option("--no-open", envvar="QVL_NO_OPEN", help="Do not open the page in the browser.")
    ] = False,
    model: options.Model = None,
    backend: options.Backend = None,
    device: options.Device = "cpu",
    precision: options.Precision = None,
    model_ttl: Annotated[
        float,
        typer.Option(
            "--model-ttl",
            metavar="S",
            envvar="QVL_MODEL_TTL",
            min=0,
            help="Unload the models after so many seconds without a use; 0 keeps them.",
        ),
    ] = 600.0,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            envvar="QVL_ALLOWED_HOSTS",
            help="A further name that this server is known by; may repeat.",
        ),
    ] = None,
    allow_local_paths: Annotated[
        bool,
        typer.Option(
            "--allow-local-paths",
            envvar="QVL_ALLOW_LOCAL_PATHS",
            help="Let programs name files below indexed folders in requests to /v1.",
        ),
    ] = False,
    allow_remote_urls: Annotated[
        bool,
        typer.Option(
            "--allow-remote-urls",
            envvar="QVL_ALLOW_REMOTE_URLS",
            help="Let programs name pictures elsewhere, which the server then fetches.",
        ),
    ] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            "--log-level",
            envvar="QVL_LOG_LEVEL",
            help="What is logged on stderr. [default: warning on a terminal, info elsewhere]",
        ),
    ] = None,
    as_json: options.JsonWhenReady = False,
    debug: options.Debug = False,
) -> None:
    """Serve the page: index in the background, search meanwhile.

    Opens the page in the browser. Folders can be added there as well. Stop it with Ctrl-C; nothing is lost,
    the next start goes on from there.
    """
    checked = Settings.read(library=library, model=model)
    roots = checked_roots(names or [])

    # Before anything heavy is loaded, so that the first seconds are not silent.
    note(f"Library: {home_relative(str(checked.library))}")

    from qvl_local.runtime.server.presence import find_server
    from qvl_local.runtime.server.serve import bind
    from qvl_local.runtime.server.serve import serve as run
    from qvl_local.runtime.server.service import Service
    from qvl_local.runtime.server.settings import ServerSettings, is_loopback

    from ..browser import can_open, open_page

    opens = not no_open and not as_json and can_open()
    running = find_server(checked.library)
    if running is not None:
        note(f"This library is served already: {running.url}")
        if roots:
            note("Add the folders there.")
        if as_json:
            write_line(running.url, checked.library, needs_token=running.needs_token)
        if opens:
            open_page(running.url)
        return
    settings = ServerSettings(
        library=checked.library,
        model=checked.model,
        backend=backend,
        device=device,
        precision=precision,
        host=host,
        port=port,
        token=None if is_loopback(host) else _token(),
        model_ttl_s=model_ttl,
        allow_remote_urls=allow_remote_urls,
        allow_local_paths=allow_local_paths,
        page=PAGE,
        allowed_hosts=tuple(allowed_hosts or ()),
    )

    needs_token = settings.token is not None

    def ready(url: str) -> None:
        note(f"Open {url} in a browser. Stop with Ctrl-C.")
        if as_json:
            write_line(url, settings.library, needs_token=needs_token)
        if opens:
            open_page(url)

    with (
        logging_to_stderr(log_level, debug=debug),
        bind(settings) as listener,
        Service.open(settings) as service,
    ):
        tell_of_renewal(service)
        service.start(roots)
        run(settings, service, listener, ready=ready)
        note("Stopping: what was read is being written.")
    note("Stopped. Nothing is lost; the next start goes on from here.")


def checked_roots(names: Sequence[str]) -> list[str]:
    """The absolute paths of what was named.

    Raises:
        InputError: one of them does not exist.
    """
    from qvl_local.runtime.library.survey import check_paths

    try:
        return list(check_paths([paths.absolute(name) for name in names]))
    except InputError as error:
        raise InputError(f"PATH {error}") from error


def _token() -> str:
    from ..server_token import server_token

    token, file = server_token(user_data_folder())
    if file is not None:
        note(f"Token for other machines, shown this once and kept in {home_relative(str(file))}: {token}")
    return token


def tell_of_renewal(service: Service) -> None:
    """A library that has another model than was asked for gets new vectors, which takes its time."""
    if service.renewal is not None:
        held, asked = service.library.model, service.renewal.model
        note(
            f"The library was indexed with the model {held}. Everything is embedded anew with {asked} in the "
            f"background; until that is done, {held} serves."
        )


@contextmanager
def logging_to_stderr(level: LogLevel | None, *, debug: bool) -> Iterator[None]:
    """The server's log on stderr for the time of a block."""
    import logging

    from qvl_local.runtime.server.logs import configure, unconfigure

    chosen = level or ("debug" if debug else "warning" if sys.stderr.isatty() else "info")
    handler = configure(level=getattr(logging, chosen.upper()))
    try:
        yield
    finally:
        unconfigure(handler)


def write_line(url: str, library: Path, *, needs_token: bool) -> None:
    """One object on one line, for whoever started the server and waits for it."""
    from ..jsonout import path_fields

    fields = path_fields(str(library))
    named = {"library": fields["path"]}
    if "path_base64" in fields:
        named["library_base64"] = fields["path_base64"]
    line = {"url": url, **named, "needs_token": needs_token, "version": qvl_version()}
    write_bytes(valid_unicode(json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8"))
