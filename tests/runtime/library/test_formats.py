"""Telling photos and videos by their first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.library.formats import SNIFF_BYTES, is_raw_photo, kind_by_extension, recognise, sniff


@pytest.mark.parametrize(
    ("extension", "name"),
    [
        ("jpg", "JPEG"),
        ("png", "PNG"),
        ("webp", "WebP"),
        ("gif", "GIF"),
        ("bmp", "BMP"),
        ("tiff", "TIFF"),
        ("heic", "HEIF"),
        ("avif", "AVIF"),
    ],
)
def test_photos_are_known_by_content(tmp_path: Path, media: Any, extension: str, name: str) -> None:
    content = media.photo(tmp_path / f"a.{extension}").read_bytes()
    form = sniff(content[:SNIFF_BYTES])
    assert form is not None
    assert (form.name, form.kind) == (name, "photo")
    assert kind_by_extension(f"x.{extension.upper()}") == "photo"


@pytest.mark.parametrize(
    ("extension", "name"),
    [
        ("mp4", "MP4"),
        ("mov", "MP4"),
        ("mkv", "Matroska"),
        ("webm", "Matroska"),
        ("avi", "AVI"),
        ("3gp", "MP4"),
        ("m4v", "MP4"),
        ("mts", "MPEG-TS"),
    ],
)
def test_videos_are_known_by_content(tmp_path: Path, media: Any, extension: str, name: str) -> None:
    size = (176, 144)  # the only one of 3GP's old codec
    codec = "h263" if extension == "3gp" else "mpeg4" if extension in {"avi", "m4v"} else None
    target = tmp_path / ("a.ts" if extension == "mts" else f"a.{extension}")
    content = media.video(target, [((9, 9, 9), 0.3)], size=size, codec=codec).read_bytes()
    form = sniff(content[:SNIFF_BYTES])
    assert form is not None
    assert (form.name, form.kind) == (name, "video")
    assert kind_by_extension(f"x.{extension}") == "video"


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",  # Canon since 2018
        b"II*\0\x10\0\0\0CR\2\0",  # and before
        b"II\x1a\0\0\0HEAPCCDR\2\0\1\0",  # and before that
        b"FUJIFILMCCD-RAW 0201FF389501",
        b"IIRO\x08\0\0\0",  # Olympus
        b"IIU\0\x18\0\0\0",  # Panasonic
        b"FOVb\3\0\2\0",  # Sigma
        b"\0MRM\0\1\x9d\xec",  # Minolta
    ],
)
def test_raw_files_that_are_no_tiff_are_known_by_content(head: bytes) -> None:
    form = sniff(head + bytes(100))
    assert form is not None
    assert (form.name, form.kind) == ("raw", "photo")


def test_raw_files_that_are_tiff_are_known_by_their_names(tmp_path: Path, media: Any) -> None:
    head = media.raw(tmp_path / "a.nef", preview=None).read_bytes()[:SNIFF_BYTES]
    found = [recognise(head, name) for name in ("a.nef", "a.DNG", "a.tif", "a")]
    assert [form.name for form in found if form is not None] == ["raw", "raw", "TIFF", "TIFF"]
    jpeg = media.photo(tmp_path / "a.jpg").read_bytes()[:SNIFF_BYTES]
    form = recognise(jpeg, "a.nef")
    assert form is not None
    assert form.name == "JPEG"
    assert [is_raw_photo(name) for name in ("a.NEF", "disk.raw", "a.jpg")] == [True, False, False]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"hello there",
        b"#EXTM3U\nhttp://example.org/a.ts\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"BM short",
        b"PK\x03\x04",
        b"\x00" * 512,
        b"RIFF\x00\x00\x00\x00WAVE",
    ],
)
def test_nothing_else_is_taken_for_media(head: bytes) -> None:
    assert sniff(head) is None


def test_other_extensions_are_left_alone() -> None:
    assert [kind_by_extension(name) for name in ("a.txt", "a.svg", "a.pdf", "jpg", ".jpg", "a.m3u8")] == [
        None
    ] * 6
