"""What is wrong with a picture or film that a decoder could not read, in words for everybody, and what to do.

One wording for one kind of damage, whatever the decoder called it: the words of decoders differ by format,
version and byte, and help nobody to get the picture back. Nothing here decodes anything.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

_REMEDY = "copy it again from where it came from"
EMPTY = f"the file is empty: nothing was copied into it; {_REMEDY}"
BLANK = f"the file holds only zeros, as when copying broke off; {_REMEDY}"
UNKNOWN = "its content is no photo or video of a known format, whatever its name says"

# What a format begins with, and what it ends with. Some programs and phones write more behind that.
_ENDS = {b"\x89PNG\r\n\x1a\n": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
_BEHIND = 1 << 16
_MOST_BOXES = 1000


def damage(path: str | Path, error: BaseException | None = None, *, what: str = "picture") -> str:
    """The reason of a file of which a decoder made nothing. `what`: it is a picture, a video, a raw file."""
    if "truncat" in str(error).lower() or is_cut_short(path):
        return f"the {what} is cut short: its end is missing; {_REMEDY}"
    return f"the {what} is damaged; {_REMEDY}, or save it anew with another program"


def is_cut_short(path: str | Path) -> bool:
    """Whether a file says of itself that it is longer than it is. False where it does not say."""
    try:
        with Path(path).open("rb") as file:
            return _is_cut_short(file, file.seek(0, os.SEEK_END))
    except (OSError, struct.error):
        return False


def _is_cut_short(file: BinaryIO, size: int) -> bool:
    file.seek(0)
    head = file.read(16)
    if head.startswith(b"RIFF"):  # WebP and AVI
        return size < 8 + _number(head[4:8], "<I")
    for beginning, end in _ENDS.items():
        if head.startswith(beginning):
            file.seek(max(0, size - _BEHIND))
            return end not in file.read()
    if head.startswith(b"GIF8"):
        file.seek(max(0, size - _BEHIND))
        return not file.read().rstrip(b"\0").endswith(b";")
    if head[:4] in (b"II*\0", b"MM\0*"):  # TIFF: where its first directory lies
        return size <= _number(head[4:8], "<I" if head.startswith(b"II") else ">I")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return _ends_within_a_box(file, size)
    return False


def _ends_within_a_box(file: BinaryIO, size: int) -> bool:
    """MP4, MOV, HEIC and AVIF are boxes, each with its length (ISO/IEC 14496-12, 4.2)."""
    at, kinds = 0, set()
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if not head:
            break
        if len(head) < 8:
            return True
        length = _number(head[:4], ">I")
        kinds.add(head[4:8])
        if length == 1:
            length = _number(head[8:16], ">Q")
        if length == 0:  # to the end of the file
            break
        at += max(8, length)
        if at > size:
            return True
    # A camera writes the index last: without one, it or the copy stopped before.
    return not kinds & {b"moov", b"meta"}


def _number(content: bytes, form: str) -> int:
    number: int = struct.unpack(form, content)[0]
    return number
