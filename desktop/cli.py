"""The command line: `qvl-local`. Commands live one a file in `commands/`; this file gathers and runs them.

`run` is the whole path of a call: arguments in, a command, one exit status out.

    0    fine
    1    an operation failed (any `QvlError` but `InputError`)
    2    wrong usage (`InputError`, or arguments that make no sense)
    130  stopped by Ctrl-C
    143  `index` stopped by SIGTERM (`serve` stops in peace, with 0)

Importing this module loads typer and nothing heavier: each command imports what it needs when it runs.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer
from qvl_local.runtime.errors import InputError, OutputError, QvlError

from . import jsonout
from .commands import COMMANDS
from .console import guarded_stdout, note
from .settings import qvl_version

# Every error that typer raises about arguments is a UsageError. Recent versions of typer carry their own
# click, older ones import it; this is the one spelling that both understand.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

# Commands whose time goes into models, and whose own products are small.
_SEARCHES = ("search", "similar", "demo", "serve", "desktop")

# Commands that end with one answer. Importing makes objects by the ten thousand, and no cycles that are worth
# the time to look for them again and again.
_BRIEF = ("search", "similar")
_COLLECT_AFTER = 100_000

app = typer.Typer(
    name="qvl-local",
    help="Search your own photos and videos by meaning, on your own machine.",
    epilog="Start with: qvl-local demo. Then: qvl-local index ~/Pictures --model 2b (downloads 8.5 GB, "
    "once), qvl-local search 'two dogs'.",
    add_completion=False,
    rich_markup_mode=None,  # rich would double the time that --help takes
    pretty_exceptions_enable=False,
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qvl-local {qvl_version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def main() -> None:
    """Entry point of the `qvl-local` command."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    searching = command in _SEARCHES
    if searching:
        _spare_cores()
    if command in _BRIEF:
        gc.set_threshold(_COLLECT_AFTER)
    status = run(sys.argv[1:])
    if searching or threading.active_count() > 1:
        # The output is written and the library closed; taking interpreter and models apart is a tenth of a
        # search's time. And a model that still loads for a command that has failed might take minutes.
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _spare_cores() -> None:
    """Keep numpy to one thread where models run beside it; it reads this when it is first imported.

    Its threads spin for a while after every product, on the cores that the models need then. Only in a
    process of our own: the environment of a caller is the caller's.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; no exception leaves it."""
    as_json = _has_flag(arguments, "--json")
    debug = _has_flag(arguments, "--debug") or os.environ.get("QVL_DEBUG", "") not in ("", "0")
    _tolerate_any_character()
    try:
        with guarded_stdout():
            status = _dispatch(arguments)
    except KeyboardInterrupt:
        status = 130
    except Exception as error:  # a QvlError, a wrong argument, or a bug: told apart below
        if debug:
            traceback.print_exception(error)
        return _flush(_report(error, as_json=as_json))
    if status == 130:
        _report_interrupt(as_json=as_json)
    return _flush(status)


def _dispatch(arguments: Sequence[str]) -> int:
    try:
        status = app(args=list(arguments), prog_name="qvl-local", standalone_mode=False)
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.Abort:
        return 130
    return status if isinstance(status, int) else 0


def _report(error: Exception, *, as_json: bool) -> int:
    """Tell what went wrong, on stderr for people and on stdout for programs; return the exit status."""
    if isinstance(error, BrokenPipeError):
        return 1  # whoever read our output has gone; there is no one left to tell
    if isinstance(error, _UsageError):
        kind, message, status = "UsageError", _usage_message(error), 2
    elif isinstance(error, QvlError):
        kind, message, status = type(error).__name__, str(error), 2 if isinstance(error, InputError) else 1
    elif isinstance(error, OSError):
        kind, status = type(error).__name__, 1
        message = str(error)
        if error.filename is None:
            message = f"The system refused: {error.strerror or error}. With --debug it is shown where."
    else:
        kind, status = type(error).__name__, 1
        message = (
            f"{kind}: {error}. This is a bug in qvl-local: run it with --debug and report what it shows."
        )
    note(f"Error: {message}")
    if as_json and not isinstance(error, OutputError):
        _write_error(kind, message)
    return status


def _report_interrupt(*, as_json: bool) -> None:
    message = "Stopped by Ctrl-C. What was finished is kept; the same command goes on from there."
    note(message)
    if as_json:
        _write_error("Interrupted", message)


def _write_error(kind: str, message: str) -> None:
    # What went wrong was said on stderr already; an output that takes nothing is no further news.
    with suppress(OutputError, BrokenPipeError):
        jsonout.write({"error": {"type": kind, "message": message}})


def _usage_message(error: Exception) -> str:
    """What typer has to say about an argument, with the command whose --help explains it."""
    format_message = getattr(error, "format_message", None)
    message = format_message() if callable(format_message) else str(error)
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "qvl-local")
    said = message.rstrip(".")
    return f"{said}{'' if said.endswith('?') else '.'} See: {command} --help"


def _has_flag(arguments: Sequence[str], flag: str) -> bool:
    """Whether a flag is given, looked up by hand since typer may fail before it gets that far."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return flag in options


def _tolerate_any_character() -> None:
    """A terminal that cannot show a character gets a question mark, not a crash."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _flush(status: int) -> int:
    """Write out what is buffered now, while a closed pipe can still be met quietly."""
    if sys.stdout is None:  # the caller closed it
        return status
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError) and status == 0:
            sys.stderr.write(f"Error: the output cannot be written: {error.strerror}.\n")
        return status or 1
    return status
