"""`qvl-local desktop`: the page in a window of its own, over a server that runs already or one of its own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from qvl_local.runtime.errors import MissingExtraError

from .. import options
from ..console import note
from ..settings import Settings, user_data_folder
from ..text import home_relative
from .serve import PAGE, checked_roots, logging_to_stderr, serve, tell_of_renewal, write_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qvl_local.runtime.server.presence import Presence


def desktop(
    names: options.NewFolders = None,
    library: options.Library = None,
    model: options.Model = None,
    backend: options.Backend = None,
    device: options.Device = "cpu",
    precision: options.Precision = None,
    as_json: options.JsonWhenReady = False,
    debug: options.Debug = False,
) -> None:
    """Open the page in a window of its own.

    The window uses the server that serves this library already, or starts one and stops it when it is
    closed. Opened a second time, it comes to the front. Without the extra `desktop`, or without a display,
    the page opens in the browser.
    """
    checked = Settings.read(library=library, model=model)
    roots = checked_roots(names or [])

    # Before anything heavy is loaded, so that the first seconds are not silent.
    note(f"Library: {home_relative(str(checked.library))}")

    from qvl_local.runtime.server.presence import find_server

    from ..window.window import NoDisplayError, check_window

    try:
        check_window()
    except (MissingExtraError, NoDisplayError) as why:
        note(f"{why} The page opens in the browser instead.")
        running = find_server(checked.library)
        if running is not None:
            _add(running, roots)
            _open_in_browser(running, checked.library, as_json=as_json)
            return
        serve(
            names,
            library=library,
            model=model,
            backend=backend,
            device=device,
            precision=precision,
            as_json=as_json,
            debug=debug,
        )
        return

    from ..window.instance import Instance
    from ..window.server import Indexing, own_server
    from ..window.window import TrayActions, show_window

    instance = Instance.claim(user_data_folder(), checked.library)
    if instance is None:
        note("The window is open already. It has come to the front.")
        running = find_server(checked.library)
        if running is not None:
            _add(running, roots)
        return
    with instance, ExitStack() as stack:
        running = find_server(checked.library)
        if running is not None:
            note(f"A server is running already: {running.url}")
            url, token = running.url, _token_of(running)
            _add(running, roots)
        else:
            from qvl_local.runtime.server.settings import ServerSettings

            settings = ServerSettings(
                library=checked.library,
                model=checked.model,
                backend=backend,
                device=device,
                precision=precision,
                page=PAGE,
            )
            stack.enter_context(logging_to_stderr(None, debug=debug))
            serving = own_server(settings, roots, check=tell_of_renewal)
            url, token = stack.enter_context(serving), None
        indexing = Indexing(url, token)
        if as_json:
            write_line(url, checked.library, needs_token=running is not None and running.needs_token)
        show_window(
            url,
            storage=user_data_folder() / "window",
            tray=TrayActions(indexing.is_paused, indexing.set_paused),
            on_open=instance.on_show,
            icon=PAGE / "icon.svg",
        )
        note("The window is closed." if running is not None else "Stopping: what was read is being written.")


def _open_in_browser(running: Presence, library: Path, *, as_json: bool) -> None:
    from ..browser import can_open

    note(f"A server is running already: open {running.url} in a browser.")
    if as_json:
        write_line(running.url, library, needs_token=running.needs_token)
    elif can_open():
        import webbrowser

        webbrowser.open(running.url)


def _add(running: Presence, roots: Sequence[str]) -> None:
    """Hand folders to a server that runs already, and say which it refused, and why."""
    from ..window.server import Indexing

    for refusal in Indexing(running.url, _token_of(running)).add(roots):
        note(refusal)


def _token_of(running: Presence) -> str | None:
    """The token that this user's own server asks for."""
    if not running.needs_token:
        return None
    from ..server_token import server_token

    token, _ = server_token(user_data_folder())
    return token
