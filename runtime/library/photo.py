"""Opening a photo as what its first bytes say it is, and naming what is wrong with it.

Pillow is told the one format that a file may be, so that none of its rarer plugins (PostScript, say) ever
runs, and what only some formats need is imported for those. Limits are the business of those who decode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from ..damage import BLANK, EMPTY, UNKNOWN, damage
from ..errors import MediaError
from .formats import SNIFF_BYTES, Format, recognise

if TYPE_CHECKING:
    from PIL import Image


def read_format(file: BinaryIO, path: str) -> Format:
    """What the file is by its content, and a raw file by its name; the file is at its beginning again.

    Raises:
        MediaError: empty, or nothing that we know.
    """
    head = file.read(SNIFF_BYTES)
    file.seek(0)
    if not head:
        raise MediaError(path, EMPTY)
    if not head.strip(b"\0"):
        raise MediaError(path, BLANK)
    form = recognise(head, path)
    if form is None:
        raise MediaError(path, UNKNOWN)
    return form


def open_photo(file: BinaryIO, form: Format) -> Image.Image:
    """Open the header; nothing is decoded yet. Raises whatever Pillow raises: see `damage_named`."""
    from PIL import Image

    if form.opener == "RAW":
        raise ValueError("raw files are read by decoding processes alone")
    if form.opener == "HEIF":
        from ..model.image import register_heif

        register_heif()
    # MPO: a JPEG with further pictures behind it, which phones write; the first one counts.
    return Image.open(file, formats=["JPEG", "MPO"] if form.opener == "JPEG" else [form.opener])


def shrink_early(image: Image.Image, longest: int) -> None:
    """Let the JPEG decoder halve a picture, for free, while twice of the `longest` side needed remains."""
    image.draft("RGB", (2 * longest, 2 * longest))


@contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Turn whatever a decoder raises, and for a hostile file that is anything, into a MediaError."""
    try:
        yield
    except (MediaError, MemoryError):
        raise
    except Exception as error:
        raise MediaError(path, damage(path, error)) from error
