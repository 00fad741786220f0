"""Byte ranges of HTTP (RFC 9110, section 14), as players ask for parts of a video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate

_RANGES = re.compile(r"bytes=(.*)", re.IGNORECASE | re.ASCII)
_LATEST_S = 253_402_300_799
_ONE = re.compile(r"\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


class UnsatisfiableError(ValueError):
    """A range that begins behind the end."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` up to and without `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start

    def content_range(self, size: int) -> str:
        """The header of a partial answer."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


def asked_range(header: str | None, size: int) -> ByteRange | None:
    """The part of `size` bytes that a Range header asks for; None for the whole.

    A header that makes no sense is ignored, as the RFC wants it; several ranges are answered with the whole,
    as it allows.

    Raises:
        UnsatisfiableError: there is nothing in the range.
    """
    match = None if header is None else _RANGES.fullmatch(header.strip())
    one = None if match is None else _ONE.fullmatch(match[1])
    if one is None or (not one[1] and not one[2]):
        return None
    if not one[1]:  # the last so many
        start, end = max(0, size - int(one[2])), size
    else:
        start, end = int(one[1]), size if not one[2] else min(size, int(one[2]) + 1)
        if one[2] and int(one[2]) < start:
            return None
    if start >= end:
        raise UnsatisfiableError
    return ByteRange(start, end)


def is_current(if_range: str | None, *, etag: str, modified_s: float) -> bool:
    """Whether a part is still wanted: the file is what the client has a part of already."""
    return if_range is None or if_range.strip() in (etag, http_date(modified_s))


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this content already."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


def http_date(seconds: float) -> str:
    """A moment as HTTP writes it, which has room for the years from 1970 to 9999."""
    return formatdate(min(max(int(seconds), 0), _LATEST_S), usegmt=True)
