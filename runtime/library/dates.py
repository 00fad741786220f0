"""Dates as people type them: 2024, 2024-05, 2024-05-03, 2024-05-03T18:30.

A date stands for the moment at which it begins, in the local time of the camera. So `after 2024` includes the
first second of 2024, `before 2025` ends just ahead of the first second of 2025, and both together are
exactly the year 2024.
"""

from __future__ import annotations

import re
from datetime import datetime

from ..errors import InputError

_FORM = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2}))?)?)?)?", re.ASCII)


def parse_date(text: str, *, option: str) -> datetime:
    """The moment at which a year, month, day or minute begins.

    Raises:
        InputError: the text is no such date; the message names the option.
    """
    match = _FORM.fullmatch(text.strip())
    if match is not None:
        parts = [int(part) for part in match.groups() if part is not None]
        year, month, day, hour, minute, second = parts + [1, 1, 1, 0, 0, 0][len(parts) :]
        try:
            return datetime(year, month, day, hour, minute, second)
        except ValueError:
            pass  # the 31st of February
    raise InputError(f"{option} {text!r}: not a date. Write 2024, 2024-05, 2024-05-03 or 2024-05-03T18:30.")
