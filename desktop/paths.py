"""Paths on the command line: what the user names, made absolute, and bare lists for other programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from qvl_local.runtime.library import roots

from .console import write_bytes
from .text import printable


def absolute(name: str) -> Path:
    """An absolute path without `.`, `..`, `~`. Symbolic links stay: people know files by them."""
    return Path(roots.absolute(name))


def print_bare(found: Iterable[str], *, null: bool) -> None:
    """Paths alone on stdout, byte for byte as the file system has them, each ended by a newline or a NUL.

    On a terminal, where a name could carry commands to it, control characters are escaped instead. Raises as
    `console.write_bytes`.
    """
    if sys.stdout is not None and sys.stdout.isatty() and not null:
        for path in found:
            print(printable(path))
        return
    end = b"\0" if null else b"\n"
    write_bytes(b"".join(os.fsencode(path) + end for path in found))
