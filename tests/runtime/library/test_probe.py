"""What photos and videos say about themselves, and what is made of it when they lie."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from qvl_local.runtime.library.probe import (
    camera_name,
    describe_photo,
    describe_video,
    parse_creation_time,
    parse_exif_date,
    parse_iso6709,
)
from qvl_local.runtime.library.records import MediaInfo

ORIENTATION, MAKE, MODEL, DATE_TIME, EXIF, GPS = 0x0112, 0x010F, 0x0110, 0x0132, 0x8769, 0x8825


def exif(
    main: dict[int, Any] | None = None, photo: dict[int, Any] | None = None, gps: dict[int, Any] | None = None
) -> Image.Exif:
    made = Image.Exif()
    for tag, value in (main or {}).items():
        made[tag] = value
    made.get_ifd(EXIF).update(photo or {})
    made.get_ifd(GPS).update(gps or {})
    return made


def probe(tmp_path: Path, media: Any, made: Image.Exif, name: str = "a.jpg") -> MediaInfo:
    with Image.open(media.photo(tmp_path / name, size=(64, 48), exif=made)) as image:
        return describe_photo(image)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not hasattr(time, "tzset"):  # Windows keeps its own zone; the tests that need one are of POSIX systems
        yield
        return
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.heic"])
def test_a_full_set_of_tags(tmp_path: Path, media: Any, name: str) -> None:
    made = exif(
        {MAKE: "Canon", MODEL: "Canon EOS R6\0\0", DATE_TIME: "2024:06:01 00:00:00"},
        {0x9003: "2024:05:31 18:02:11", 0x9004: "2024:05:31 19:00:00"},
        {1: "S", 2: (33.0, 51.0, 21.6), 3: "W", 4: (70.0, 40.0, 12.0)},
    )
    info = probe(tmp_path, media, made, name)
    assert info.kind == "photo"
    assert (info.width, info.height) == (64, 48)
    assert info.taken_at == datetime(2024, 5, 31, 18, 2, 11)
    assert info.camera == "Canon EOS R6"
    assert (info.latitude, info.longitude) == pytest.approx((-33.856, -70.67))
    assert info.duration_s is None


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (64, 48)), (3, (64, 48)), (6, (48, 64)), (8, (48, 64))]
)
def test_the_size_is_that_of_the_upright_picture(
    tmp_path: Path, media: Any, orientation: int, size: tuple[int, int]
) -> None:
    info = probe(tmp_path, media, exif({ORIENTATION: orientation}))
    assert (info.width, info.height) == size


def test_a_picture_without_tags_knows_only_its_size(tmp_path: Path, media: Any) -> None:
    assert probe(tmp_path, media, exif()) == MediaInfo("photo", 64, 48)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"photo": {0x9004: "2020:01:02 03:04:05"}}, datetime(2020, 1, 2, 3, 4, 5)),
        ({"gps": {29: "2019:07:08", 7: (9.0, 10.0, 11.0)}}, datetime(2019, 7, 8, 9, 10, 11)),
        ({"gps": {29: "2019:07:08"}}, datetime(2019, 7, 8)),
        ({"main": {DATE_TIME: "2018:01:01 00:00:00"}}, datetime(2018, 1, 1)),
        (
            {"main": {DATE_TIME: "2018:01:01 00:00:00"}, "photo": {0x9003: "0000:00:00 00:00:00"}},
            datetime(2018, 1, 1),
        ),
    ],
)
def test_dates_come_in_order_of_trust(tmp_path: Path, media: Any, tags: Any, expected: datetime) -> None:
    assert probe(tmp_path, media, exif(**tags)).taken_at == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024:05:31 18:02:11", datetime(2024, 5, 31, 18, 2, 11)),
        ("2024-05-31T18:02:11.25+02:00", datetime(2024, 5, 31, 18, 2, 11)),
        (b"2024:05:31 18:02:11\0", datetime(2024, 5, 31, 18, 2, 11)),
        ("2024:05:31", datetime(2024, 5, 31)),
        ("2024:05:31 23:59:60", datetime(2024, 5, 31, 23, 59, 59)),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2024:13:45 99:99:99", None),
        ("yesterday", None),
        (None, None),
        (20240531, None),
        ("99999999999999999999:01:01", None),
        ("1" * 5000, None),
        ("2024:05:" + "3" * 5000, None),
        (b"2024:05:31 18:02:11" + b" " * 10**8, datetime(2024, 5, 31, 18, 2, 11)),
    ],
)
def test_exif_dates(text: object, expected: datetime | None) -> None:
    assert parse_exif_date(text) == expected


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (IFDRational(1, 0), 0.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0)},
        {1: "N", 2: "fifty", 3: "E", 4: "two"},
        {1: "N", 2: (), 3: "E", 4: ()},
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0)},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (48.0, 30.0, 0.0)},
        {1: "N", 2: (float("nan"), 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: 5, 2: {"a": 1}, 3: None, 4: object()},
    ],
)
def test_places_that_make_no_sense_are_absent(gps: dict[int, Any]) -> None:
    class Liar:
        size = (10, 20)

        def getexif(self) -> Any:
            return LyingExif(gps)

    info = describe_photo(Liar())  # type: ignore[arg-type]
    assert (info.latitude, info.longitude, info.width, info.height) == (None, None, 10, 20)


class LyingExif(dict[int, Any]):
    """EXIF with values that no writer of ours could be made to store."""

    def __init__(self, gps: dict[int, Any]) -> None:
        super().__init__()
        self._gps = gps

    def get_ifd(self, tag: int) -> dict[int, Any]:
        return self._gps if tag == GPS else {}


def test_a_negative_degree_is_south_whatever_the_reference_says(tmp_path: Path, media: Any) -> None:
    info = describe_video({"location": "-33.8560-070.6700/"}, width=1, height=1, duration_s=None)
    assert (info.latitude, info.longitude) == pytest.approx((-33.856, -70.67))


# Pillow warns; workers keep quiet.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_costs_the_tags_only(tmp_path: Path, media: Any) -> None:
    path = media.photo(tmp_path / "a.jpg", size=(64, 48), exif=exif({MAKE: "Canon", MODEL: "EOS"}))
    content = bytearray(path.read_bytes())
    at = content.index(b"Exif\0\0") + 10
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    with Image.open(path) as image:
        assert describe_photo(image).width == 64


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        ("Canon", "Canon EOS R6", "Canon EOS R6"),
        ("NIKON CORPORATION", "NIKON Z 6", "NIKON Z 6"),
        ("Apple", "iPhone 15 Pro", "Apple iPhone 15 Pro"),
        ("", "X100", "X100"),
        ("Leica", "", "Leica"),
        (b"SONY\0junk", " ILCE-7M3 ", "SONY ILCE-7M3"),
        (None, None, None),
        ("\x07", "\n", None),
        ("", "x" * 500, "x" * 120),
    ],
)
def test_camera_names(make: object, model: object, expected: str | None) -> None:
    assert camera_name(make, model) == expected


def test_videos_prefer_the_hour_that_apple_wrote_down(berlin: None) -> None:
    info = describe_video(
        {
            "com.apple.quicktime.creationdate": "2024-05-31T20:02:11-0500",
            "creation_time": "2024-06-01T01:02:11.000000Z",
            "com.apple.quicktime.location.ISO6709": "+48.8577+002.2950+035.000/",
            "com.apple.quicktime.make": "Apple",
            "com.apple.quicktime.model": "iPhone 15",
        },
        width=1920,
        height=1080,
        duration_s=2.5,
    )
    assert info.taken_at == datetime(2024, 5, 31, 20, 2, 11)
    assert (info.latitude, info.longitude) == pytest.approx((48.8577, 2.295))
    assert info.camera == "Apple iPhone 15"
    assert info.duration_s == 2.5


def test_other_videos_are_shown_in_this_machines_zone(berlin: None) -> None:
    moment = parse_creation_time("2024-06-01T01:02:11.000000Z", keep_hour=False)
    expected = datetime(2024, 6, 1, 3, 2, 11) if hasattr(time, "tzset") else moment
    assert moment == expected


@pytest.mark.parametrize("text", ["1904-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "not a date", "", None, 5])
def test_clocks_that_nobody_set_give_no_date(text: object) -> None:
    assert parse_creation_time(text, keep_hour=False) is None


@pytest.mark.parametrize("text", ["", "48,2", "+99.0000+002.0000/", "+48", None])
def test_bad_coordinates_are_absent(text: object) -> None:
    assert parse_iso6709(text) == (None, None)
