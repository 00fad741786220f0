"""The date options of the search commands: `--after` inclusive, `--before` exclusive."""

from __future__ import annotations

from datetime import datetime

from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.dates import parse_date


def date_range(after: str | None, before: str | None) -> tuple[datetime | None, datetime | None]:
    """Both ends of a date filter: `after` inclusive, `before` exclusive; None leaves an end open.

    Raises:
        InputError: a date is malformed, or the range is empty.
    """
    start = None if after is None else parse_date(after, option="--after")
    end = None if before is None else parse_date(before, option="--before")
    if start is not None and end is not None and start >= end:
        raise InputError(
            f"--after {after} --before {before}: nothing lies in between. --before is exclusive; "
            "for all of 2024 write: --after 2024 --before 2025"
        )
    return start, end
