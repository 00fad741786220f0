"""Showing a file in the system's file manager. Programs are started with arguments, never through a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote

from ..errors import QvlError

_LIMIT_S = 10.0
_BUS = "org.freedesktop.FileManager1"


class NoDesktopError(QvlError):
    """There is no file manager here that a file could be shown in."""


@cache
def can_show() -> bool:
    """Whether this machine has a desktop to show files on, as far as can be told without trying."""
    if sys.platform in ("win32", "darwin"):
        return True
    has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return has_display and any(map(shutil.which, ("dbus-send", "xdg-open")))


def show(path: str) -> None:
    """Open the folder of a file with the file selected, where the file manager can select.

    Raises:
        NoDesktopError: there is no desktop, or none of its file managers answered.
    """
    if not can_show():
        raise NoDesktopError("There is no desktop to show the file on. Its path can be copied instead.")
    for command in _commands(path):
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_LIMIT_S,
                check=False,
            )
            # explorer.exe says 1 when all went well.
            if done.returncode == 0 or sys.platform == "win32":
                return
    raise NoDesktopError("No file manager could be opened. The file's path can be copied instead.")


def is_there(path: str) -> bool:
    """Whether there is a file that could be shown."""
    return os.path.lexists(path)


def _commands(path: str) -> list[list[str] | str]:
    """What to try, in order. `path` is absolute, so that it cannot be taken for an option."""
    if sys.platform == "win32":
        # explorer.exe reads its command line in a way of its own; a name cannot hold a quotation mark there.
        return [f'explorer.exe /select,"{path}"']
    if sys.platform == "darwin":
        return [["open", "-R", path]]
    # Every character that dbus-send would take for syntax, a comma for one, is percent-encoded.
    address = f"file://{quote(os.fsencode(path))}"
    shows = [
        *("dbus-send", "--session", "--print-reply", f"--dest={_BUS}", "--type=method_call"),
        *("/org/freedesktop/FileManager1", f"{_BUS}.ShowItems", f"array:string:{address}", "string:"),
    ]
    return [shows, ["xdg-open", str(Path(path).parent)]]
