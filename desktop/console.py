"""What the terminal shows: consoles for results (stdout) and for progress and messages (stderr).

rich is imported by the functions that need it, so that `--help` and `--json` do not pay for it. Everything
that did not come from this program goes through `printable` before it is shown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Tables written to a file or a pipe are for reading and grepping later: never cut to a terminal's width.
_UNBOUNDED = 10_000


def stdout_console() -> Console:
    """The console for results. Colours and links only on a terminal, and never under NO_COLOR."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def stderr_console() -> Console:
    """The console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def note(message: str) -> None:
    """One line on stderr: what is going on. Plain on purpose, rich is not loaded for it."""
    print(printable(message), file=sys.stderr, flush=True)


def path_text(path: str, *, dim_folder: bool = True) -> Text:
    """A path for a table: the folder dimmed, the name plain, both a link that opens the file (OSC 8)."""
    from rich.style import Style
    from rich.text import Text

    from .text import home_relative

    shown = home_relative(path)
    cut = max(shown.rfind("/"), shown.rfind("\\") if sys.platform == "win32" else -1) + 1
    link = Style(link=_uri(path))
    text = Text(overflow="fold")
    text.append(printable(shown[:cut]), Style(dim=dim_folder) + link)
    text.append(printable(shown[cut:]), link)
    return text


def _uri(path: str) -> str | None:
    """A `file:` address, percent-encoded byte for byte, so that no name can break out of the link."""
    try:
        return Path(path).absolute().as_uri()
    except ValueError:
        return None
