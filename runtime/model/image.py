"""Images: any picture file or array becomes upright RGB pixels, and is fitted to the pixel budget.

What is recorded in a picture beside its pixels (dates, places, cameras) is none of this module's business.
Pillow is imported when the first image comes, so that text alone never pays for it.
"""

from __future__ import annotations

import struct
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..damage import damage
from ..errors import InputError, MediaError, MediaLimitError
from ..reasons import unread_file
from .pixels import PixelBudget, fit_image_size
from .raw_photo import is_raw, read_raw
from .resample import resample

if TYPE_CHECKING:
    from PIL import Image

# About 1.1 GB once decoded to RGBA; the largest phone sensors take 200 million pixels.
MAX_IMAGE_PIXELS = 280_000_000

ImageLike: TypeAlias = "str | Path | Image.Image | NDArray[np.uint8]"

_opening = threading.Lock()


def read_image(
    path: str | Path,
    *,
    budget: PixelBudget | None = None,
    draft: bool = False,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> NDArray[np.uint8]:
    """Decode a picture file: the first frame, turned upright, on white where it is transparent.

    Args:
        path: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or whatever else Pillow reads; with the extra
            `[raw]` a camera's raw file, by its name.
        budget: fit the picture to it; None keeps the full size.
        draft: let the JPEG decoder halve the size for free as long as twice the fitted size remains. Faster
            by several times on large photos; pixels then differ by a few grey levels from an exact resize.
        max_pixels: refuse larger pictures before decoding them.

    Returns:
        uint8 [h, w, 3].

    Raises:
        MediaLimitError: the picture has more than `max_pixels`.
        MediaError: there is no such file, it cannot be read, or it is no picture.
    """
    try:
        # Decoders warn of oddities in metadata, on stderr and without the file's name: of no use to anybody.
        if is_raw(path):
            return _read_raw(path, budget, max_pixels)
        with warnings.catch_warnings(action="ignore"), _open(path, max_pixels) as image:
            if draft and budget is not None and image.format in ("JPEG", "MPO"):
                height, width = fit_image_size(image.height, image.width, budget)
                # EXIF may turn the picture by a right angle, hence the longer side on both axes' behalf.
                longest = 2 * max(height, width)
                image.draft("RGB", (longest, longest))
            upright = _upright(image)
            return _to_array(upright) if budget is None else fit_image(upright, budget)
    except MediaError:
        raise
    except MemoryError:
        raise MediaLimitError(path, "takes more memory than there is") from None
    except FileNotFoundError:
        raise MediaError(path, "no such file") from None
    except Exception as error:
        # A hostile or broken file may raise anything from inside a decoder: one bad file is one error.
        raise MediaError(path, _reason(path, error)) from error


def _read_raw(path: str | Path, budget: PixelBudget | None, max_pixels: int) -> NDArray[np.uint8]:
    with warnings.catch_warnings(action="ignore"), Path(path).open("rb") as file:
        pixels = read_raw(file, path, max_pixels=max_pixels).pixels
    return pixels if budget is None else fit_image(pixels, budget)


def fit_image(image: Image.Image | NDArray[np.uint8], budget: PixelBudget) -> NDArray[np.uint8]:
    """Resize a picture to its smart-resize size (bicubic). Fitting a fitted picture changes nothing.

    Args:
        image: a Pillow image of any mode, or uint8 [h, w, 3], [h, w, 4], [h, w, 1] or [h, w].
        budget: bounds of the size.

    Returns:
        uint8 [h', w', 3], both sides multiples of 32 (patch times merge size).
    """
    pixels = to_rgb(image)
    return resample(pixels, fit_image_size(pixels.shape[0], pixels.shape[1], budget))


def to_rgb(image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB pixels, uint8 [h, w, 3], of a Pillow image of any mode or of an array.

    Raises:
        InputError: an array that is not uint8 or has another shape.
    """
    if isinstance(image, np.ndarray):
        return _array_to_rgb(image)
    return _to_array(_upright(image))


def _array_to_rgb(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8:
        raise InputError(f"An image array must be uint8, not {array.dtype}. Scale it to 0..255 first.")
    if array.ndim == 3 and array.shape[2] == 3 and min(array.shape) > 0:
        return np.ascontiguousarray(array)
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 4)):
        raise InputError(f"An image array must have the shape [h, w, 3], not {list(array.shape)}.")
    from PIL import Image

    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _to_array(Image.fromarray(squeezed))


def _open(path: str | Path, max_pixels: int) -> Image.Image:
    """Open the header of a picture, under our limit of pixels instead of Pillow's."""
    from PIL import Image

    with _opening:
        if _is_iso_media(path):
            register_heif()
        pillow_limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        image.close()
        raise MediaLimitError(path, f"{size} pixels are more than the limit of {max_pixels:,}")
    return image


def register_heif() -> None:
    """Teach Pillow HEIC. Without the decoder Pillow reads AVIF, and says of HEIC that it cannot."""
    with suppress(ImportError):
        from pi_heif import register_heif_opener

        register_heif_opener()  # idempotent


def _is_iso_media(path: str | Path) -> bool:
    """Whether a file is of the family of HEIC and AVIF; other pictures need not wait for their decoder."""
    with Path(path).open("rb") as stream:
        return stream.read(12)[4:8] == b"ftyp"


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture without one passes untouched."""
    from PIL import ImageOps

    try:
        turned = ImageOps.exif_transpose(image)
    except (ValueError, TypeError, KeyError, SyntaxError, OverflowError, struct.error):
        turned = image  # a broken EXIF block says nothing about the pixels, which may be fine
    turned.load()
    return turned


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    from PIL import Image

    mode = image.mode
    if mode == "RGB":
        return np.asarray(image)
    if mode.startswith("I") or mode == "F":
        image = Image.fromarray(_to_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, layered).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _to_eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring 16-bit, 32-bit or float samples to 0..255; Pillow's own conversion clips them instead."""
    samples = np.nan_to_num(values.astype(np.float64))
    top = float(samples.max(initial=0.0))
    if values.dtype.kind == "f":
        full = 1.0 if top <= 1.0 else max(top, 255.0)
    else:
        full = 255.0 if top <= 255 and values.dtype.itemsize > 2 else max(top, 65535.0)
    return np.clip(samples / full * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return unread_file(error)
    return damage(path, error)
