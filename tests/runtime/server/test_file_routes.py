"""Files over HTTP: ranges, media types, names, links that lead out, archives."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from qvl_local.runtime import Library
from qvl_local.runtime.library.records import FoundFile
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.ranges import http_date
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from starlette.testclient import TestClient


@dataclass(frozen=True, slots=True)
class Album:
    """A small library of odd files, and the ids of its items by name."""

    root: Path
    ids: dict[str, int]
    client: TestClient
    service: Service

    def path(self, name: str) -> Path:
        return self.root / name


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str, media: Any) -> Iterator[Album]:
    folder = tmp_path_factory.mktemp("album")
    root = folder / "pictures"
    colours = iter(
        [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (200, 30, 200), (30, 200, 200)]
    )
    for name in ("a.jpg", "b.heic", "c.tiff", "d.png", "sub/a.JPG", 'q"uo\u00e9te.jpg'):
        media.photo(root / name, next(colours))
    media.video(root / "film.mp4")
    media.video(root / "film.webm", (((20, 90, 200), 1.5),))
    with Library.open(folder / "library", model=tiny_bundle) as library:
        report = library.index([root])
        assert (report.items, report.failed) == (8, ())
    settings = ServerSettings(library=folder / "library")
    with Service.open(settings) as service:
        found = [item for number in range(1, 9) if (item := service.library.media(number)) is not None]
        ids = {Path(item.path).relative_to(root).as_posix(): item.id for item in found}
        with TestClient(build_app(settings, service), base_url="http://localhost") as client:
            yield Album(root, ids, client, service)


@pytest.fixture
def own(album: Album) -> Iterator[Path]:
    """The file a.jpg, which a test may do anything to; it is put back afterwards."""
    path, kept = album.path("a.jpg"), album.path("a.jpg").read_bytes()
    yield path
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.write_bytes(kept)


def get(album: Album, name: str, headers: dict[str, str] | None = None, **asked: Any) -> Any:
    return album.client.get(f"/file/{album.ids[name]}", headers=headers, params=asked)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.jpg", "image/jpeg"),
        ("b.heic", "image/heic"),
        ("c.tiff", "image/tiff"),
        ("d.png", "image/png"),
        ("film.mp4", "video/mp4"),
        ("film.webm", "video/webm"),
    ],
)
def test_a_file_comes_as_it_is_and_as_what_it_is(album: Album, name: str, media_type: str) -> None:
    answer = get(album, name)
    assert answer.status_code == 200
    assert answer.content == album.path(name).read_bytes()
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=-99999999", 0, None),
        ("bytes=5-99999999", 5, None),
        ("BYTES=3-4", 3, 5),
    ],
)
def test_a_range_is_exactly_what_was_asked_for(album: Album, asked: str, start: int, end: int | None) -> None:
    whole = album.path("film.mp4").read_bytes()
    answer = get(album, "film.mp4", {"range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[start:end]
    first = start if start >= 0 else len(whole) + start
    last = first + len(answer.content) - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0", "bytes=99999999-99999999"])
def test_a_range_behind_the_end_is_refused(album: Album, asked: str) -> None:
    answer = get(album, "film.mp4", {"range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{album.path('film.mp4').stat().st_size}"


@pytest.mark.parametrize(
    "asked", ["bytes=5-3", "bytes=", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes=--1", "bytes=1"]
)
def test_what_is_no_single_range_gets_the_whole(album: Album, asked: str) -> None:
    answer = get(album, "a.jpg", {"range": asked})
    assert (answer.status_code, answer.content) == (200, album.path("a.jpg").read_bytes())


def test_a_part_is_only_added_to_the_file_that_it_is_of(album: Album) -> None:
    first = get(album, "film.mp4", {"range": "bytes=0-9"})
    for validator in (first.headers["etag"], first.headers["last-modified"]):
        assert get(album, "film.mp4", {"range": "bytes=10-", "if-range": validator}).status_code == 206
    for validator in ('"another"', "Mon, 01 Jan 2001 00:00:00 GMT"):
        assert get(album, "film.mp4", {"range": "bytes=10-", "if-range": validator}).status_code == 200


def test_head_tells_all_and_sends_nothing(album: Album) -> None:
    answer = album.client.head(f"/file/{album.ids['film.mp4']}", headers={"range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(album.path("film.mp4").stat().st_size)


def test_what_a_client_has_is_not_sent_again(album: Album, own: Path) -> None:
    for address in (
        f"/file/{album.ids['a.jpg']}",
        f"/thumb/{album.ids['a.jpg']}",
        f"/file/{album.ids['a.jpg']}?as=jpeg",
    ):
        first = album.client.get(address)
        again = album.client.get(address, headers={"if-none-match": f'"x", W/{first.headers["etag"]}'})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    tag = get(album, "a.jpg").headers["etag"]
    os.utime(own, (1, 1))
    assert get(album, "a.jpg", {"if-none-match": tag}).status_code == 200


@pytest.mark.parametrize("name", ["b.heic", "c.tiff", "a.jpg"])
def test_a_photo_is_rendered_for_browsers(album: Album, name: str) -> None:
    answer = get(album, name, **{"as": "jpeg"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg"), answer.text
    with Image.open(BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("JPEG", (160, 120))
    assert get(album, "film.mp4", **{"as": "jpeg"}).status_code == 400
    assert get(album, name, **{"as": "svg"}).status_code == 400


def test_names_in_headers_are_harmless(album: Album) -> None:
    header = get(album, 'q"uo\u00e9te.jpg').headers["content-disposition"]
    assert header == "inline; filename=\"q_uo_te.jpg\"; filename*=UTF-8''q_uo%C3%A9te.jpg"
    assert get(album, "a.jpg", download=True).headers["content-disposition"] == 'attachment; filename="a.jpg"'


def test_active_content_is_never_given_out(album: Album, own: Path) -> None:
    for content in (
        b"<!doctype html><script>alert(1)</script>",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"%PDF-1.7",
        b"\x00" * 600,
        b"",
    ):
        own.write_bytes(content)
        answer = get(album, "a.jpg")
        assert answer.status_code == 415, content
        assert content[:20] not in answer.content or not content


def test_a_picture_that_is_a_page_as_well_stays_a_picture(album: Album, own: Path) -> None:
    own.write_bytes(own.read_bytes() + b"<html><script>alert(1)</script></html>")
    answer = get(album, "a.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_link_that_leads_out_is_not_followed(album: Album, own: Path, tmp_path: Path) -> None:
    secret = shutil.copy(album.path("d.png"), tmp_path / "secret.png")
    own.unlink()
    own.symlink_to(secret)
    answer = get(album, "a.jpg")
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "ForbiddenError")
    assert get(album, "a.jpg", **{"as": "jpeg"}).status_code == 403


def test_a_linked_folder_on_the_way_is_not_followed(album: Album, tmp_path: Path) -> None:
    inner, kept = album.path("sub"), album.path("kept")
    shutil.copytree(inner, tmp_path / "elsewhere")
    inner.rename(kept)
    try:
        inner.symlink_to(tmp_path / "elsewhere")
        assert get(album, "sub/a.JPG").status_code == 403
        inner.unlink()
        inner.symlink_to(kept)
        assert get(album, "sub/a.JPG").status_code == 200, "it stays inside"
    finally:
        inner.unlink()
        kept.rename(inner)


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe", "unreadable"])
def test_what_is_no_file_any_more_is_not_given_out(album: Album, own: Path, kind: str) -> None:
    own.unlink()
    if kind == "folder":
        own.mkdir()
    elif kind == "pipe":
        os.mkfifo(own)
    elif kind == "unreadable":
        own.symlink_to(own)
    answer = get(album, "a.jpg")
    assert answer.status_code == (404 if kind == "gone" else 403), answer.text
    assert str(album.root) not in answer.text


@pytest.mark.parametrize(
    "address",
    [
        "/file/99999",
        "/file/..%2f..%2fetc%2fpasswd",
        "/file/%2e%2e/%2e%2e/etc/passwd",
        "/file/-1",
        "/thumb/99999",
        "/thumb/a.jpg",
    ],
)
def test_nothing_but_an_id_opens_a_file(album: Album, address: str) -> None:
    answer = album.client.get(address)
    assert answer.status_code in (400, 404)
    assert b"root:" not in answer.content


def test_several_files_come_in_one_archive(album: Album) -> None:
    names = ["a.jpg", "sub/a.JPG", "film.mp4"]
    answer = album.client.post(
        "/api/zip", json={"ids": [*(album.ids[name] for name in names), album.ids["a.jpg"]]}
    )
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.jpg", "a (2).JPG", "film.mp4"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        for name, inside in zip(names, archive.namelist(), strict=True):
            assert archive.read(inside) == album.path(name).read_bytes()


def test_an_archive_says_what_it_lacks(album: Album, own: Path) -> None:
    own.unlink()
    answer = album.client.post("/api/zip", json={"ids": [album.ids["a.jpg"], album.ids["d.png"]]})
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["d.png", "Not in this archive.txt"]
        assert b"a.jpg" in archive.read("Not in this archive.txt")


def test_archives_are_bounded(album: Album) -> None:
    assert album.client.post("/api/zip", json={"ids": []}).status_code == 400
    assert album.client.post("/api/zip", json={"ids": list(range(2_001))}).status_code == 400
    assert album.client.post("/api/zip", json={"ids": [99_999]}).status_code == 404


def test_times_are_those_that_http_can_write() -> None:
    assert http_date(0.9) == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert http_date(-1e12) == http_date(0)
    assert http_date(1e12) == "Fri, 31 Dec 9999 23:59:59 GMT"


def test_hostile_names_are_text_everywhere(album: Album, own: Path) -> None:
    name = "<img src=x onerror=alert(1)>\r\nSet-Cookie: a=b\u202egpj.jpg"
    hostile = own.with_name(name)
    own.rename(hostile)
    item = album.service.library.media(album.ids["a.jpg"])
    assert item is not None
    with Store.open(album.service.library.path, mode="write") as store:
        status = hostile.stat()
        store.rename(item.id, FoundFile(item.folder_id, name, status.st_size, status.st_mtime_ns))
    try:
        answer = get(album, "a.jpg", download=True)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-disposition"].isascii()
        assert "\u202e" not in unquote(answer.headers["content-disposition"])
        listed = album.client.get("/api/search", params={"like": album.ids["d.png"], "limit": 50})
        assert listed.headers["content-type"] == "application/json"
        assert name in [hit["name"] for hit in listed.json()["results"]]
        zipped = album.client.post("/api/zip", json={"ids": [item.id]})
        with zipfile.ZipFile(BytesIO(zipped.content)) as archive:
            (inside,) = archive.namelist()
        assert not set(inside) & set('<>:"/\\|?*\r\n\u202e')
    finally:
        with Store.open(album.service.library.path, mode="write") as store:
            store.rename(item.id, FoundFile(item.folder_id, "a.jpg", status.st_size, status.st_mtime_ns))
        hostile.rename(own)
