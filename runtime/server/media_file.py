"""Opening a file of the library for somebody else to read: only what the library holds, only where it lies.

An item's path was written down when it was indexed; meanwhile somebody may have put a link in its place. So
the real path must lie inside the real indexed folder, and it is walked from that folder down, name by name,
without following anything: a link that appears between looking and opening is an error, not a way out.
The first bytes decide what the file is given out as, whatever its name says.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, BinaryIO

from ..errors import QvlError
from ..library.formats import SNIFF_BYTES, recognise
from ..library.roots import is_inside
from ..reasons import refusal
from .names import base_name, shown
from .problems import ForbiddenError, NotFoundError, UnknownMediaError

if TYPE_CHECKING:
    from ..library.records import MediaItem

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "WebP": "image/webp",
    "TIFF": "image/tiff",
    "HEIF": "image/heic",
    "AVIF": "image/avif",
    "raw": "image/x-dcraw",
    "MP4": "video/mp4",
    "Matroska": "video/x-matroska",
    "AVI": "video/x-msvideo",
    "MPEG-TS": "video/mp2t",
}
"""What files are given out as, by the names of `formats.recognise`: nothing else ever leaves."""

_WEBM = b"webm"
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
# A pipe that somebody put there must not hold the thread that opens it.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class OpenMedia:
    """A file that may be given out; whoever has it closes `file`. `etag` changes with its content."""

    file: BinaryIO
    size: int
    modified_s: float
    media_type: str
    etag: str


def open_media(item: MediaItem, root: str) -> OpenMedia:
    """Open an item's file. `root`: the indexed folder that it belongs to.

    Raises:
        NotFoundError: it is gone.
        ForbiddenError: it leads out of the folder, is no plain file, or the system refuses it.
        UnknownMediaError: it is no photo or video any more.
    """
    file = _open(item, root)
    try:
        status = os.fstat(file.fileno())
        head = file.read(SNIFF_BYTES)
        form = recognise(head, item.path)
        if form is None:
            raise UnknownMediaError(f"{_name(item)} is no photo or video of a known format any more.")
        file.seek(0)
    except OSError as error:
        file.close()
        raise _refused(item, error) from error
    except BaseException:
        file.close()
        raise
    media_type = "video/webm" if form.name == "Matroska" and _WEBM in head else MEDIA_TYPES[form.name]
    stamp = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    etag = f'"{blake2b(stamp.encode(), digest_size=16).hexdigest()}"'
    return OpenMedia(file, status.st_size, status.st_mtime, media_type, etag)


def open_inside(root: str, name: str) -> BinaryIO | None:
    """The file `root`/`name`, which has no links in it: none is followed on the way. None for no plain file.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = _walk(root, name)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def _open(item: MediaItem, root: str) -> BinaryIO:
    try:
        real, real_root = os.path.realpath(item.path, strict=True), os.path.realpath(root, strict=True)
        if not is_inside(real, real_root) or real == real_root:
            raise ForbiddenError(
                f"{_name(item)} is a link that leads out of its folder. It is not given out."
            )
        file = open_inside(real_root, os.path.relpath(real, real_root))
    except OSError as error:
        raise _refused(item, error) from error
    if file is None:
        raise ForbiddenError(f"{_name(item)} is no plain file any more. It is not given out.")
    return file


def _walk(root: str, name: str) -> int:
    if os.open not in os.supports_dir_fd:  # Windows, where making links needs rights of its own
        return os.open(os.path.join(root, name), _READ | _NO_FOLLOW)  # noqa: PTH118
    *folders, last = name.split(os.sep)  # noqa: PTH206 - keeps surrogate escapes
    here = os.open(root, os.O_RDONLY | _DIRECTORY)
    try:
        for folder in folders:
            inner = os.open(folder, os.O_RDONLY | _DIRECTORY | _NO_FOLLOW, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(last, _READ | _NO_FOLLOW, dir_fd=here)
    finally:
        os.close(here)


def _refused(item: MediaItem, error: OSError) -> QvlError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotFoundError(f"{_name(item)} is not where it was indexed. Its disk may not be connected.")
    return ForbiddenError(f"{_name(item)} cannot be read: {refusal(error)}.")


def _name(item: MediaItem) -> str:
    return shown(base_name(item.path))
