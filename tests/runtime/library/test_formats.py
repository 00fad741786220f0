"""Telling photos and videos by their first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.library.formats import SNIFF_BYTES, kind_by_extension, sniff


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
