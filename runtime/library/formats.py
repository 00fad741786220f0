"""Which files are photos and videos: by extension while walking, by their first bytes when read.

Extensions keep a walk cheap and leave other people's files alone; the first bytes decide how a file is
opened, so a PNG called `.jpg` is read as the PNG it is. Most raw files are TIFF by their first bytes, and
told from it by their names. Nothing here opens an image or a container.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from ..model.raw_photo import is_raw
from .records import Kind

SNIFF_BYTES = 512
"""How many first bytes `sniff` wants to see."""

PHOTO_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff", ".heic", ".heif", ".hif", ".avif"}
)
VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".3gp", ".3g2", ".mts", ".m2ts"}
)

_OTHERS_RAW = frozenset({".raw"})


@dataclass(frozen=True, slots=True)
class Format:
    """What a file is by its content. `opener` is the name Pillow or FFmpeg knows the format by."""

    name: str
    kind: Kind
    opener: str


_JPEG = Format("JPEG", "photo", "JPEG")
_PNG = Format("PNG", "photo", "PNG")
_GIF = Format("GIF", "photo", "GIF")
_BMP = Format("BMP", "photo", "BMP")
_WEBP = Format("WebP", "photo", "WEBP")
_TIFF = Format("TIFF", "photo", "TIFF")
_HEIF = Format("HEIF", "photo", "HEIF")
_AVIF = Format("AVIF", "photo", "AVIF")
_RAW = Format("raw", "photo", "RAW")
_MP4 = Format("MP4", "video", "mov")
_MATROSKA = Format("Matroska", "video", "matroska")
_AVI = Format("AVI", "video", "avi")
_MPEGTS = Format("MPEG-TS", "video", "mpegts")

# ISO base media brands (ISO/IEC 14496-12, 23008-12 and the AVIF specification); all other brands are MP4 or
# MOV.
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_CR3_BRAND, _CRW_MARK, _CR2_MARKS = b"crx ", b"HEAPCCDR", (b"II*\x00", b"CR")
# Raw files that are no TIFF, or one by another name: Fujifilm, Olympus, Panasonic and Leica, Sigma, Minolta.
_RAW_MARKS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FOVb", b"\x00MRM")
# Atoms a QuickTime file may begin with when it has no `ftyp`.
_QUICKTIME_ATOMS = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})


def kind_by_extension(name: str) -> Kind | None:
    """Photo, video, or None for a file that is neither, as raw files are."""
    extension = PurePath(name).suffix.lower()
    if extension in PHOTO_EXTENSIONS:
        return "photo"
    if extension in VIDEO_EXTENSIONS:
        return "video"
    return None


def is_media(name: str) -> bool:
    """Whether a file is a photo, a video or a camera's raw file by its extension."""
    return kind_by_extension(name) is not None or is_raw(name)


def is_raw_photo(name: str) -> bool:
    """Whether a file is a photo of its own by its name, as a raw file without a photo beside it."""
    # Cameras stopped calling their files `.raw` long ago; disks, sound and memory are called so.
    return is_raw(name) and PurePath(name).suffix.lower() not in _OTHERS_RAW


def recognise(head: bytes, name: str) -> Format | None:
    """The format of a file of this name with these first `SNIFF_BYTES` bytes, None when it is not ours."""
    form = sniff(head)
    return _RAW if is_raw(name) and form in (_TIFF, None) else form


def sniff(head: bytes) -> Format | None:
    """The format that the first `SNIFF_BYTES` bytes of a file show, None when they show none of ours."""
    if head.startswith(_RAW_MARKS) or head[6:14] == _CRW_MARK or (head[:4], head[8:10]) == _CR2_MARKS:
        return _RAW
    if head.startswith(b"\xff\xd8\xff"):
        return _JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _GIF
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return _TIFF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _WEBP
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return _AVI
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _MATROSKA
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head[4:8] in _QUICKTIME_ATOMS:
        return _MP4
    if _is_transport_stream(head):
        return _MPEGTS
    if head.startswith(b"BM") and len(head) >= 26:
        return _BMP
    return None


def _iso_media(head: bytes) -> Format:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}
    if head[8:12] == _CR3_BRAND:
        return _RAW
    if brands & _AVIF_BRANDS:
        return _AVIF
    # A Canon or Sony still names `mif1` among its brands; a video never does.
    return _HEIF if brands & _HEIF_BRANDS else _MP4


def _is_transport_stream(head: bytes) -> bool:
    # Packets of 188 bytes that begin with 0x47; Blu-ray and AVCHD put 4 bytes of time code before each.
    return any(
        len(head) > start + stride and head[start] == 0x47 and head[start + stride] == 0x47
        for start, stride in ((0, 188), (4, 192))
    )
