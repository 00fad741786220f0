"""The window itself: pywebview with Qt on every system, so that it behaves alike everywhere.

Knows an address and what a tray icon may ask for. Does not know libraries or servers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from qvl_local.runtime.errors import MissingExtraError, QvlError

_TITLE = "qvl-local"
_SIZE = (1280, 860)
_SMALLEST = (375, 480)
_PROBE_S = 60

# Qt ends the whole process where there is no display that it can use, so another process tries first.
_PROBE = "from qtpy.QtWidgets import QApplication; QApplication([])"


class NoDisplayError(QvlError):
    """There is no screen to show a window on."""


@dataclass(frozen=True, slots=True)
class TrayActions:
    """What the icon in the tray offers besides the window: both called in the window's thread."""

    is_paused: Callable[[], bool]
    set_paused: Callable[[bool], None]


def check_window() -> None:
    """Find out whether a window can be opened, before anything is started for it.

    Raises:
        MissingExtraError: the extra is not installed.
        NoDisplayError: there is no display, or Qt cannot use it.
    """
    from importlib.util import find_spec

    for package in ("webview", "qtpy"):
        if find_spec(package) is None:
            raise MissingExtraError("pywebview with Qt", "desktop")
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise NoDisplayError("There is no display here (DISPLAY and WAYLAND_DISPLAY are not set).")
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_S, check=False
    )
    if probe.returncode != 0:
        said = [line for line in probe.stderr.splitlines() if line.strip()]
        raise NoDisplayError(f"Qt cannot open a window here: {said[0] if said else 'it says nothing'}")


def show_window(
    url: str,
    *,
    storage: Path,
    tray: TrayActions,
    on_open: Callable[[Callable[[], None]], None],
    icon: Path | None = None,
) -> None:
    """Open the window on `url` and return when it is closed. Needs the main thread; see `check_window`.

    Args:
        url: of the page. The window shows no other address; links elsewhere open in the browser.
        storage: the folder where the page keeps what it remembers, such as the recent searches.
        tray: for the icon in the tray, on systems that have one.
        on_open: called once with a function that brings the window to the front, from any thread.
        icon: a picture file for window and tray.
    """
    import webview

    # Downloads are ours: pywebview's own handler knows Qt 5 only.
    webview.settings["ALLOW_DOWNLOADS"] = False
    window = webview.create_window(
        _TITLE, url, width=_SIZE[0], height=_SIZE[1], min_size=_SMALLEST, text_select=True
    )
    if window is None:
        raise NoDisplayError("pywebview could not make a window.")
    kept: list[object] = []  # Qt objects live as long as somebody refers to them

    def before_show() -> None:
        from . import qt

        view = qt.view_of(window)
        qt.keep_to(view, urlsplit(url).netloc)
        qt.save_downloads(view)
        show = qt.shower(view)
        kept.extend((show, qt.tray_icon(view, tray, icon)))
        on_open(show.emit)

    window.events.before_show += before_show
    signal.signal(signal.SIGTERM, lambda *_: window.destroy())
    webview.start(
        gui="qt",
        private_mode=False,
        storage_path=str(storage),
        icon=None if icon is None else str(icon),
    )
