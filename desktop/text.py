"""Text that is safe to show: file names and queries come from anywhere, terminals obey control characters.

Knows nothing about tables or colours; see `console` for those.
"""

from __future__ import annotations

import os
import shlex
import unicodedata

# A zero-width joiner holds emoji together (family, flags); it moves no cursor and hides no text.
_HARMLESS_FORMAT = "\u200d"
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """`text` with everything that a terminal would obey or hide made visible.

    Control characters (C0, C1, escape), line and paragraph separators and bidirectional overrides become
    backslash escapes; bytes that are not UTF-8 (surrogate escapes of PEP 383) become `\\xNN`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def valid_unicode(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 can carry, replaced by U+FFFD."""
    return "".join("\ufffd" if _is_surrogate(character) else character for character in text)


def is_valid_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: false for a file name with undecodable bytes."""
    return not any(map(_is_surrogate, text))


def home_relative(path: str) -> str:
    """A path as people write it: the home folder shown as `~`."""
    home = os.path.expanduser("~")  # noqa: PTH111 - a str stays a str, undecodable bytes included
    if len(home) > 1 and path.startswith(home + os.sep):
        return "~" + path[len(home) :]
    return path


def shell_path(path: str) -> str:
    """A path as part of a command to copy: the home folder as `~`, the rest quoted where a shell needs it."""
    shown = home_relative(path)
    if shown == path or os.name == "nt":  # PowerShell and cmd do not know ~ in arguments
        return printable(shlex.quote(path))
    return "~/" + printable(shlex.quote(shown[2:]))


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 photo`, `1,204 photos`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def clock(seconds: float) -> str:
    """A position in a video: 0:12, 1:02:03."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def duration(seconds: float) -> str:
    """How long something took or will take: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size(number: float) -> str:
    """Bytes in decimal units, as disks are sold: 812 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _visible(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in _HARMLESS_FORMAT):
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"
