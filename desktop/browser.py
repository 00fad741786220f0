"""Opening the page in the browser of who sits at this machine."""

from __future__ import annotations

import os
import sys
import threading


def can_open() -> bool:
    """Whether there is a screen for a browser; without one, a text browser would take the terminal over."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def open_page(url: str) -> None:
    """Open the page, without waiting for the browser; that it does not open is no error."""
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), name="opening the browser", daemon=True).start()
