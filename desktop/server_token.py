"""The token of a server that other machines may reach: made once, kept where only its owner can read it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from qvl_local.runtime.errors import InputError

VARIABLE = "QVL_TOKEN"
_NAME = "server-token"


def server_token(folder: Path) -> tuple[str, Path | None]:
    """The token, and the file in `folder` that it was written to just now; None when it is not new.

    `QVL_TOKEN` goes before the file.

    Raises:
        InputError: the file cannot be written or read, or holds nothing.
    """
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        return given, None
    file = folder / _NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # Its mode comes with its making: at no time can anybody else read it.
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _read(file), None
        token = secrets.token_urlsafe(32)
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(token + "\n")
    except OSError as error:
        raise InputError(
            f"{file}: the server's token cannot be kept here ({error.strerror}). Give one as {VARIABLE}."
        ) from error
    return token, file


def _read(file: Path) -> str:
    with suppress(OSError):  # another owner's file: what it says still counts
        file.chmod(0o600)
    token = file.read_text(encoding="utf-8", errors="replace").strip()
    if not token:
        raise InputError(f"{file}: holds no token. Delete it, and a new one is made.")
    return token
