"""Raw files of cameras: the picture that the camera put into them, or one made of the sensor's values.

Nearly every camera embeds a JPEG of what its screen showed, in the colours of its maker: that is taken. Only
where there is none, one that is damaged, or one as small as a stamp, LibRaw develops the sensor's values at
half size. LibRaw gets bytes and never a name: with a name it would open other files for some formats. It
comes with the extra `[raw]`, and is imported when the first raw file is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..damage import damage
from ..errors import MediaAccessError, MediaError, MediaLimitError
from .pixels import PixelBudget, fit_image_size

if TYPE_CHECKING:
    import rawpy
    from PIL import Image

RAW_EXTENSIONS = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw"}
    | {".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""What cameras write beside a JPEG, or instead of one."""

NOT_INSTALLED = (
    "it is a camera's raw file and was left alone, since what reads these is not installed: "
    "pip install 'qvl-local[raw]', then index again"
)
"""Why a raw file is not read, and what to do."""

_MOST_BYTES = 2**29
_ENOUGH = 1024  # pixels of the longer side of a preview that shows a photo well
_HEAD_BYTES = 2**22  # in which makers who changed TIFF's first bytes have put the metadata

# LibRaw's `flip`, by its value, as EXIF's orientation.
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)
_ORIENTATION, _SOFTWARE = 0x0112, 0x0131
_LIBRAW = "dcraw"  # what LibRaw calls itself there
_TURNED = frozenset({5, 6, 7, 8})  # orientations that swap width and height

_TIFF = {b"II*\0": b"II*\0", b"MM\0*": b"MM\0*"}
# TIFF by another name: Olympus, Panasonic and Leica.
_DISGUISED = {b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"IIU\0": b"II*\0", b"MMOR": b"MM\0*"}


@dataclass(frozen=True, slots=True)
class RawPhoto:
    """What is to be seen and known of a raw file.

    `pixels`: uint8 [h, w, 3], upright. `width`, `height`: of the whole photo as it is shown, in pixels, which
    is mostly more. `exif` is what the file says about itself where Pillow can read it, `preview_exif` what
    its preview says. `libraw_exif` is LibRaw's reading, where there is a preview to write it into: its make,
    model and date are good, though a date of 1970 is none, and its hemispheres are random.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    exif: Image.Exif | None
    preview_exif: Image.Exif | None
    libraw_exif: Image.Exif | None


def is_raw(name: str | Path) -> bool:
    """Whether a file is a camera's raw file, by its extension."""
    return os.path.splitext(name)[1].lower() in RAW_EXTENSIONS  # noqa: PTH122 - walks ask it of every file


def can_read_raw() -> bool:
    """Whether the extra `[raw]` is installed; nothing is imported to find out."""
    return find_spec("rawpy") is not None


def read_raw(
    file: BinaryIO, path: str | Path, *, max_pixels: int, draft: PixelBudget | None = None
) -> RawPhoto:
    """Read a raw file that is open.

    Args:
        file: at its beginning.
        path: what errors call it; nothing is opened by it.
        max_pixels: more than so many, of the photo or its preview, are refused before they are decoded.
        draft: let the JPEG decoder halve a large preview while twice what fits this budget remains, and what
            thumbnails are made of; None keeps it.

    Raises:
        MediaAccessError: the extra is not installed.
        MediaLimitError: it has more pixels or bytes than are read.
        MediaError: it is damaged, or of a camera that LibRaw does not know.
    """
    if not can_read_raw():
        raise MediaAccessError(path, NOT_INSTALLED)
    import rawpy

    content = _content(file, path)
    with _named(path), rawpy.RawPy() as raw:
        raw.open_buffer(BytesIO(content))
        sizes = raw.sizes
        _check_size(max(sizes.raw_width, sizes.width), max(sizes.raw_height, sizes.height), path, max_pixels)
        orientation = _ORIENTATIONS[sizes.flip] if 0 <= sizes.flip < len(_ORIENTATIONS) else 1
        width, height = sizes.width, sizes.height
        if orientation in _TURNED:
            width, height = height, width
        preview = _preview(raw, max_pixels)
        pixels = None if preview is None else _upright(preview, orientation, width, height, draft)
        if pixels is None or max(pixels.shape) < min(_ENOUGH, max(width, height) // 2):
            pixels = _developed(raw, instead=pixels)
        return RawPhoto(pixels, width, height, own_exif(content), *_told_by(preview))


def libraw_version() -> str | None:
    """The version of LibRaw that reads raw files, None without the extra."""
    if not can_read_raw():
        return None
    import rawpy

    return ".".join(map(str, rawpy.libraw_version))


def _content(file: BinaryIO, path: str | Path) -> bytes:
    content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise MediaLimitError(path, f"a raw file of more than {_MOST_BYTES >> 20} MiB is not read")
    return content


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn LibRaw's errors into those of the file."""
    import rawpy

    try:
        yield
    except (rawpy.LibRawUnsufficientMemoryError, rawpy.LibRawTooBigError) as error:
        raise MediaLimitError(path, "developing it needs more memory than there is for one file") from error
    except rawpy.LibRawFileUnsupportedError as error:
        raise MediaError(
            path,
            f"LibRaw {libraw_version()} knows no raw file like it: it is damaged, or of a newer camera; "
            "export it as JPEG or DNG with the program of the camera",
        ) from error
    except rawpy.LibRawError as error:
        raise MediaError(path, damage(path, error, what="raw file")) from error


def _check_size(width: int, height: int, path: str | Path, limit: int) -> None:
    if width * height > limit:
        raise MediaLimitError(
            path, f"{width}x{height} pixels are more than the limit of {limit // 10**6} million"
        )


def _preview(raw: rawpy.RawPy, max_pixels: int) -> Image.Image | None:
    """The largest picture inside, not yet decoded where it is a JPEG; None where there is none to be had."""
    import rawpy
    from PIL import Image

    try:
        held = raw.extract_thumb()
        if held.format != rawpy.ThumbFormat.JPEG:
            return Image.fromarray(np.ascontiguousarray(held.data))
        # MPO: a JPEG with further pictures behind it.
        preview = Image.open(BytesIO(bytes(held.data)), formats=["JPEG", "MPO"])
    except (rawpy.LibRawError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, TypeError):
        return None
    return preview if preview.width * preview.height <= max_pixels else None


def _upright(
    preview: Image.Image, orientation: int, width: int, height: int, draft: PixelBudget | None
) -> NDArray[np.uint8] | None:
    """A preview's pixels as the photo is shown, uint8 [h, w, 3]; None where it is damaged.

    `orientation`: the photo's own, with which it has this width and height.
    """
    from PIL import Image

    from .image import to_rgb

    said = _orientation_of(preview)
    wanted = orientation if said is None or (said == 1 and orientation in _TURNED) else said
    # Some cameras turn their preview and still say that it is to be turned.
    is_upright = (preview.width > preview.height) == (width > height) and preview.width != preview.height
    if wanted in _TURNED and is_upright:
        wanted = 1
    turns = Image.Transpose
    turn = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }.get(wanted)
    try:
        if draft is not None:
            longest = max(2 * max(fit_image_size(preview.height, preview.width, draft)), _ENOUGH)
            preview.draft("RGB", (longest, longest))
        picture = preview.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return None
    return to_rgb(np.asarray(picture if turn is None else picture.transpose(turn)))


def _orientation_of(preview: Image.Image) -> int | None:
    exif, _ = _told_by(preview)
    said = None if exif is None else exif.get(_ORIENTATION)
    return said if isinstance(said, int) and 1 <= said <= 8 else None


def _developed(raw: rawpy.RawPy, *, instead: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """The photo made of the sensor's values at half size, upright, or else `instead`: uint8 [h, w, 3]."""
    import rawpy

    try:
        return np.ascontiguousarray(raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8))
    except rawpy.LibRawError:
        if instead is None:
            raise
        return instead


def own_exif(content: bytes) -> Image.Exif | None:
    """The metadata of a raw file that is a TIFF, or one in disguise."""
    from PIL import Image

    mark = content[:4]
    if mark in _TIFF:
        stream = BytesIO(content)
    elif mark in _DISGUISED:
        stream = BytesIO(_DISGUISED[mark] + content[4:_HEAD_BYTES])
    else:
        return None
    exif = Image.Exif()
    try:
        exif.load_from_fp(stream)
    except Exception:  # Pillow raises a dozen kinds of errors for metadata that lies about offsets and types
        return None
    return exif


def _told_by(preview: Image.Image | None) -> tuple[Image.Exif | None, Image.Exif | None]:
    """What a preview says about itself, and what LibRaw wrote into one that said nothing: one of both."""
    try:
        exif = None if preview is None else preview.getexif()
        is_from_libraw = exif is not None and str(exif.get(_SOFTWARE)).startswith(_LIBRAW)
    except Exception:  # as above
        return None, None
    return (None, exif) if is_from_libraw else (exif, None)
