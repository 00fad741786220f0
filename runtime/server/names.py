"""Names of files as they may leave the server: in JSON, in headers, inside an archive.

File names come from anywhere, and need not even be text.
"""

from __future__ import annotations

import os
import unicodedata
from urllib.parse import quote

_LONGEST = 150
_FORBIDDEN = frozenset('<>:"/\\|?*')  # on Windows, where an archive may be unpacked


def shown(name: str) -> str:
    """A name or path for JSON, which must be Unicode: bytes that are no text become U+FFFD."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "replace")


def base_name(path: str) -> str:
    """The last part of a path."""
    return os.path.basename(path)  # noqa: PTH119 - keeps surrogate escapes


def safe_name(path: str, *, fallback: str = "file") -> str:
    """The name of a file that every system takes, without folders, control characters and tricks.

    The extension stays; what is too long is cut before it.
    """
    name = "".join(map(_harmless, shown(base_name(path))))
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    extension = extension[:16].strip()
    stem = stem[: _LONGEST - len(extension)].strip(" .") or fallback
    return f"{stem}.{extension}" if extension else stem


def content_disposition(path: str, *, is_attachment: bool) -> str:
    """The header that names a file (RFC 6266): plain ASCII for old clients, UTF-8 for the others."""
    name = safe_name(path)
    plain = "".join(c if c.isascii() and c.isprintable() else "_" for c in name).replace("%", "_")
    kind = "attachment" if is_attachment else "inline"
    header = f'{kind}; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe='')}"


def _harmless(character: str) -> str:
    if character in _FORBIDDEN or unicodedata.category(character)[0] == "C":
        return "_"
    return character
