"""What a picture or video says about itself: displayed size, when and where it was taken, by which camera.

The date is the camera's own word: EXIF `DateTimeOriginal`, then `DateTimeDigitized`, then the GPS clock
(UTC), then `DateTime` (which editors overwrite); for videos Apple's `creationdate`, which keeps the local
hour, then `creation_time` (UTC, shown in this machine's time zone). A file's modification time is never
used: copying and downloading change it, and a wrong date is worse in a date filter than none.

Metadata is written by anyone: whatever is malformed counts as absent, and nothing here raises for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .records import MediaInfo

if TYPE_CHECKING:
    from PIL import Image

    from ..model.raw_photo import RawPhoto

# EXIF 2.32 tags; `_EXIF` and `_GPS` point to directories of their own.
_MAKE, _MODEL, _ORIENTATION, _DATE_TIME = 0x010F, 0x0110, 0x0112, 0x0132
_EXIF, _GPS = 0x8769, 0x8825
_ORIGINAL, _DIGITIZED = 0x9003, 0x9004
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
_GPS_TIME, _GPS_DATE = 7, 29
_TURNED = frozenset({5, 6, 7, 8})  # orientations that swap width and height

_CAMERA_LENGTH = 120
_DATE_LENGTH = 64  # longer ones are none; Python converts no number of thousands of digits
_TEXT_LENGTH = 10_000
_ISO_6709 = re.compile(r"^([+-]\d{2}(?:\.\d+)?)([+-]\d{3}(?:\.\d+)?)")


def describe_photo(image: Image.Image) -> MediaInfo:
    """Describe an opened, not yet oriented image. `width` and `height` are those after EXIF orientation."""
    width, height = image.size
    main, photo, gps = _directories(image)
    if main.get(_ORIENTATION) in _TURNED:
        width, height = height, width
    return _photo(width, height, main, photo, gps)


def describe_raw(raw: RawPhoto) -> MediaInfo:
    """Describe a raw file: by its own words, then by those of the preview in it, then by its decoder's."""
    read = {} if raw.libraw_exif is None else _directories_of(raw.libraw_exif)[0]
    main: dict[int, Any] = {tag: read.get(tag) for tag in (_MAKE, _MODEL)}
    photo: dict[int, Any] = {}
    gps: dict[int, Any] = {}
    for exif in (raw.preview_exif, raw.exif):
        if exif is not None:
            for known, told in zip((main, photo, gps), _directories_of(exif)):
                known.update(told)
    info = _photo(raw.width, raw.height, main, photo, gps)
    read_at = parse_exif_date(read.get(_DATE_TIME))
    is_known = info.taken_at is not None or read_at is None or read_at.year <= 1970
    return info if is_known else replace(info, taken_at=read_at)


def _photo(
    width: int, height: int, main: Mapping[int, Any], photo: Mapping[int, Any], gps: Mapping[int, Any]
) -> MediaInfo:
    latitude, longitude = _position(gps)
    return MediaInfo(
        kind="photo",
        width=width,
        height=height,
        taken_at=_taken_at(main, photo, gps),
        latitude=latitude,
        longitude=longitude,
        camera=camera_name(main.get(_MAKE), main.get(_MODEL)),
    )


def describe_video(
    metadata: Mapping[str, str], *, width: int, height: int, duration_s: float | None
) -> MediaInfo:
    """Describe a video from its container's metadata; `width` and `height` are those after rotation."""
    tags = {key.lower(): value for key, value in metadata.items()}
    latitude, longitude = parse_iso6709(
        tags.get("com.apple.quicktime.location.iso6709") or tags.get("location") or tags.get("location-eng")
    )
    return MediaInfo(
        kind="video",
        width=width,
        height=height,
        taken_at=parse_creation_time(tags.get("com.apple.quicktime.creationdate"), keep_hour=True)
        or parse_creation_time(tags.get("creation_time") or tags.get("date"), keep_hour=False),
        duration_s=duration_s,
        latitude=latitude,
        longitude=longitude,
        camera=camera_name(
            tags.get("com.apple.quicktime.make") or tags.get("com.android.manufacturer") or tags.get("make"),
            tags.get("com.apple.quicktime.model") or tags.get("com.android.model") or tags.get("model"),
        ),
    )


def parse_exif_date(value: object) -> datetime | None:
    """`2024:05:31 18:02:11` and its dialects (dashes, `T`, fractions, no seconds) as local wall-clock."""
    found = re.findall(r"\d+", _text(value)[:_DATE_LENGTH])[:6]
    numbers = [int(number) for number in found]
    if len(numbers) < 3:
        return None
    year, month, day, hour, minute, second = (*numbers, 0, 0, 0)[:6]
    return _moment(year, month, day, hour, minute, min(second, 59))


def parse_creation_time(value: object, *, keep_hour: bool) -> datetime | None:
    """An ISO 8601 time: the hour it names, or that of this machine's time zone when not `keep_hour`."""
    try:
        moment = datetime.fromisoformat(_text(value))
        if moment.tzinfo is not None:
            moment = (moment if keep_hour else moment.astimezone()).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None
    # 1904 and 1970 are where the clocks of MP4 and Unix begin: nobody set them.
    return moment if moment.year > 1970 else None


def parse_iso6709(value: object) -> tuple[float, float] | tuple[None, None]:
    """`+48.8577+002.2950+035.0/` in degrees, as phones write it."""
    match = _ISO_6709.match(_text(value))
    if match is None:
        return None, None
    return _checked_position(float(match[1]), float(match[2]))


def camera_name(make: object, model: object) -> str | None:
    """`Make Model`; the make is left out where the model begins with it: "Canon", "Canon EOS R6"."""
    maker, name = _text(make), _text(model)
    if not name:
        return maker[:_CAMERA_LENGTH] or None
    brand = maker.split(" ")[0].lower()
    if not maker or name.lower().startswith(brand):
        return name[:_CAMERA_LENGTH]
    return f"{maker} {name}"[:_CAMERA_LENGTH]


def _directories(
    image: Image.Image,
) -> tuple[Mapping[int, Any], Mapping[int, Any], Mapping[int, Any]]:
    # Pillow raises a dozen kinds of errors for EXIF that lies about offsets and types.
    try:
        return _directories_of(image.getexif())
    except Exception:
        return {}, {}, {}


def _directories_of(exif: Image.Exif) -> tuple[Mapping[int, Any], Mapping[int, Any], Mapping[int, Any]]:
    try:
        main = dict(exif)
    except Exception:  # as above
        return {}, {}, {}
    return main, _directory(exif, _EXIF), _directory(exif, _GPS)


def _directory(exif: Image.Exif, tag: int) -> Mapping[int, Any]:
    try:
        return dict(exif.get_ifd(tag))
    except Exception:
        return {}


def _taken_at(main: Mapping[int, Any], photo: Mapping[int, Any], gps: Mapping[int, Any]) -> datetime | None:
    return (
        parse_exif_date(photo.get(_ORIGINAL))
        # Some writers put the tag into the main directory.
        or parse_exif_date(main.get(_ORIGINAL))
        or parse_exif_date(photo.get(_DIGITIZED))
        or _gps_moment(gps)
        or parse_exif_date(main.get(_DATE_TIME))
    )


def _gps_moment(gps: Mapping[int, Any]) -> datetime | None:
    day = parse_exif_date(gps.get(_GPS_DATE))
    if day is None:
        return None
    try:
        hour, minute, second = (int(_number(part)) for part in gps[_GPS_TIME])
    except (KeyError, TypeError, ValueError, OverflowError):
        return day
    return _moment(day.year, day.month, day.day, hour, minute, min(second, 59)) or day


def _position(gps: Mapping[int, Any]) -> tuple[float, float] | tuple[None, None]:
    latitude = _degrees(gps.get(_LATITUDE), gps.get(_LATITUDE_REF), negative="S")
    longitude = _degrees(gps.get(_LONGITUDE), gps.get(_LONGITUDE_REF), negative="W")
    if latitude is None or longitude is None:
        return None, None
    return _checked_position(latitude, longitude)


def _degrees(value: object, reference: object, *, negative: str) -> float | None:
    """Degrees, minutes, seconds (one to three rationals) as signed degrees."""
    parts = list(value) if isinstance(value, (tuple, list)) else [value]
    try:
        numbers = [_number(part) for part in parts[:3]]
    except (TypeError, ValueError, OverflowError):
        return None
    if not numbers or any(number < 0 for number in numbers[1:]):
        return None
    degrees = abs(numbers[0])
    for power, part in enumerate(numbers[1:], start=1):
        degrees += part / 60.0**power
    # A negative number is south or west even where the reference says nothing.
    is_negative = numbers[0] < 0 or _text(reference).upper().startswith(negative)
    return -degrees if is_negative else degrees


def _checked_position(latitude: float, longitude: float) -> tuple[float, float] | tuple[None, None]:
    # Exactly 0, 0 is what cameras write before they know where they are.
    if abs(latitude) > 90 or abs(longitude) > 180 or latitude == longitude == 0:
        return None, None
    return latitude, longitude


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # a TypeError is caught by those who call
    except ZeroDivisionError:
        raise ValueError("a rational with denominator 0") from None
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _moment(year: int, month: int, day: int, hour: int, minute: int, second: int) -> datetime | None:
    try:
        return datetime(year, month, day, hour, minute, second) if year > 1825 else None
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str:
    """A tag as one clean line: bytes decoded, cut at the first NUL, no control characters, single spaces."""
    if isinstance(value, bytes):
        value = value[:_TEXT_LENGTH].decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    value = value[:_TEXT_LENGTH].split("\0")[0]
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())
