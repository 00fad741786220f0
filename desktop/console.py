"""What the terminal shows: consoles for results (stdout) and for progress and messages (stderr).

rich is imported by the functions that need it, so that `--help` and `--json` do not pay for it. Everything
that did not come from this program goes through `printable` before it is shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO, cast

from qvl_local.runtime.errors import OutputError

from .text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# Tables written to a file or a pipe are for reading and grepping later: never cut to a terminal's width.
_UNBOUNDED = 10_000


def stdout_console() -> Console:
    """The console for results. Colours and links only on a terminal, and never under NO_COLOR."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, color_system=_colours())
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def stderr_console() -> Console:
    """The console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False, color_system=_colours())


def print_table(table: Table, console: Console) -> None:
    """Print a table without the blanks that rich leaves at the ends of lines and around it."""
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().strip("\n").split("\n")]
    console.file.write("\n".join(filter(None, lines)) + "\n")


def write_bytes(content: bytes) -> None:
    """Bytes on stdout, at once.

    Raises:
        BrokenPipeError: whoever read them has gone.
        OutputError: stdout is closed, or leads to where nothing can be written.
    """
    if sys.stdout is None:  # the caller closed it
        raise OutputError(output_trouble("it is closed"))
    with _output_errors():
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


@contextmanager
def guarded_stdout() -> Iterator[None]:
    """For a command's run: what stdout does not take is an `OutputError`, whoever writes to it and however.

    A reader that has gone stays a BrokenPipeError. Without a name of its own, an error of the system could
    come from any file, so where it is met is the only place to tell.
    """
    if sys.stdout is None:  # the caller closed it
        yield
        return
    stream = sys.stdout
    sys.stdout = cast("TextIO", _Guarded(stream))
    try:
        yield
    finally:
        sys.stdout = stream


class _Guarded:
    """A text stream whose errors are `OutputError`; everything else of it is as it was."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _output_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with _output_errors():
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(output_trouble(error.strerror or str(error))) from error


def output_trouble(why: str) -> str:
    """What to say when stdout takes nothing, and why."""
    return f"The output cannot be written: {why}. Send it to a file or a program that can take it."


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


def _colours() -> Literal["auto"] | None:
    """No colours, no styles and no links under NO_COLOR (https://no-color.org)."""
    return None if os.environ.get("NO_COLOR") else "auto"


def _uri(path: str) -> str | None:
    """A `file:` address, percent-encoded byte for byte, so that no name can break out of the link."""
    try:
        return Path(path).absolute().as_uri()
    except ValueError:
        return None
