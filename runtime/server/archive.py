"""A zip of files while it is made: stored, not packed, since photos and videos are packed already."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from io import RawIOBase
from typing import TYPE_CHECKING

from ..errors import QvlError
from .names import base_name, safe_name, shown

if TYPE_CHECKING:
    from ..library.records import MediaItem
    from .media_file import OpenMedia

_PIECE = 1 << 20
_LARGE = 1 << 31
_MISSING = "Not in this archive.txt"
_EARLIEST, _LATEST = 1980, 2107  # of the zip format's clock


class _Outlet(RawIOBase):
    """A file that can only be written to; what was written is taken out in pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def zip_pieces(items: Iterable[MediaItem], open_item: Callable[[MediaItem], OpenMedia]) -> Iterator[bytes]:
    """The bytes of an archive of these items, each with a name of its own.

    One that cannot be read when its turn comes is named in a text file at the end of the archive.
    """
    outlet, names, missing = _Outlet(), set[str](), list[str]()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for item in items:
            try:
                opened = open_item(item)
            except QvlError as error:
                missing.append(f"{shown(base_name(item.path))}: {error}")
                continue
            with closing(opened.file) as source:
                entry = zipfile.ZipInfo(_own_name(item.path, names), _clock(opened.modified_s))
                entry.external_attr = 0o644 << 16
                entry.file_size = opened.size
                with archive.open(entry, "w", force_zip64=opened.size >= _LARGE) as target:
                    # No more than it had: a file that grows meanwhile must not break the archive.
                    left = opened.size
                    while left > 0 and (piece := source.read(min(_PIECE, left))):
                        left -= len(piece)
                        target.write(piece)
                        yield outlet.take()
            yield outlet.take()
        if missing:
            archive.writestr(_MISSING, "\r\n".join(missing) + "\r\n")
    yield outlet.take()


def _own_name(path: str, taken: set[str]) -> str:
    """The file's name, with a number where another one has it: case does not tell files apart everywhere."""
    name = safe_name(path)
    stem, dot, extension = name.rpartition(".")
    number = 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem} ({number}).{extension}" if dot else f"{extension} ({number})"
    taken.add(name.casefold())
    return name


def _clock(seconds: float) -> tuple[int, int, int, int, int, int]:
    year, month, day, hour, minute, second = time.localtime(seconds)[:6]
    return min(max(year, _EARLIEST), _LATEST), month, day, hour, minute, second
