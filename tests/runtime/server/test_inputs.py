"""What programs send as pictures and films: where bytes may come from, what a file may cost, what is told."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import ipaddress
import os
import shutil
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qvl_local.runtime import Embedder
from qvl_local.runtime.errors import MediaError, PartError, StoppedError
from qvl_local.runtime.library.decode import nothing
from qvl_local.runtime.library.roots import is_inside
from qvl_local.runtime.server import sources as sources_module
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.decoders import Decoders, DecoderSettings
from qvl_local.runtime.server.inputs import Draft, Inputs, parse_inputs, parse_messages
from qvl_local.runtime.server.remote import Remote, RemoteError, is_public
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from qvl_local.runtime.server.sources import Sources
from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def embedder(tiny_bundle: str) -> Embedder:
    return Embedder.open(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    decoders = Decoders(DecoderSettings(count=1))
    yield decoders
    decoders.close()


@pytest.fixture
def uri() -> Callable[..., str]:
    def uri(content: bytes | Path) -> str:
        raw = content if isinstance(content, bytes) else content.read_bytes()
        return "data:application/octet-stream;base64," + base64.b64encode(raw).decode()

    return uri


@pytest.fixture
def read(embedder: Embedder, decoders: Decoders) -> Callable[..., dict[str, Any]]:
    """The input of a model that a request's one part becomes."""

    def read(raw: Any, sources: Sources | None = None) -> dict[str, Any]:
        inputs = Inputs(sources or Sources(), decoders=decoders)
        (draft,) = parse_inputs(raw)
        inputs.check([draft])
        return inputs.read(draft, embedder.budget, go_on=nothing)

    return read


def png_of_nothing(width: int, height: int) -> bytes:
    """A small PNG that decodes to width x height black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = bytes(100 * (1 + width))
    body = b"".join(packer.compress(rows) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


# Files that are not what they should be, or too much


def test_pixels_are_those_that_the_embedder_would_read(
    read: Any, uri: Any, media: Any, embedder: Embedder, tmp_path: Path
) -> None:
    photo = media.photo(tmp_path / "a.jpg", size=(1200, 900), seed=4)
    film = media.video(tmp_path / "a.mp4", (((10, 60, 200), 3.0),))
    made = read({"image": uri(photo), "video": uri(film), "fps": 2})
    assert np.array_equal(embedder.embed([made]), embedder.embed([{"image": photo, "video": film, "fps": 2}]))


@pytest.mark.parametrize(
    ("key", "content", "words"),
    [
        ("image", b"\0" * 100, "zeros"),
        ("image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no photo or video"),
        ("image", b"%!PS-Adobe-3.0 EPSF-3.0", "no photo or video"),
        ("image", b"\xff\xd8\xff\xe0" + b"x" * 200, "cut short|damaged"),
        ("video", b"\x1a\x45\xdf\xa3" + b"x" * 200, "not a video that can be read"),
        ("video", b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", "no photo or video"),
        ("video", b"concat:/etc/passwd|/etc/hosts", "no photo or video"),
    ],
)
def test_what_is_no_picture_is_said(read: Any, uri: Any, key: str, content: bytes, words: str) -> None:
    with pytest.raises(PartError, match=words) as caught:
        read({key: uri(content)})
    assert caught.value.part == f"input.{key}"
    assert "qvl-input" not in str(caught.value)  # where it lay for a moment is nobody's business


def test_one_kind_is_not_taken_for_the_other(read: Any, uri: Any, media: Any, tmp_path: Path) -> None:
    film, photo = media.video(tmp_path / "a.mp4"), media.photo(tmp_path / "a.png")
    with pytest.raises(PartError, match="MP4 video, no picture"):
        read({"image": uri(film)})
    for still in (photo, media.photo(tmp_path / "a.gif"), media.photo(tmp_path / "a.jpg")):
        with pytest.raises(PartError, match="picture, no video"):
            read({"video": uri(still)})


def test_an_animation_is_a_film(read: Any, uri: Any) -> None:
    from PIL import Image

    frames = [Image.new("RGB", (64, 48), (40 * i, 0, 0)) for i in range(6)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=500)
    assert len(read({"video": uri(file.getvalue())})["video"][0].frames) > 1


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(
    read: Any, uri: Any, embedder: Embedder, tmp_path: Path
) -> None:
    bomb = png_of_nothing(20_000, 10_100)
    assert len(bomb) < 1_000_000
    with pytest.raises(PartError, match=r"20000x10100 pixels are more than the limit of 200 million"):
        read({"image": uri(bomb)})


def test_limits_of_pixels_and_of_duration(media: Any, embedder: Embedder, tmp_path: Path) -> None:
    photo = media.photo(tmp_path / "a.png", size=(101, 100))
    film = media.video(tmp_path / "a.mp4", (((9, 9, 9), 3.0),))
    decoders = Decoders(DecoderSettings(count=1, max_pixels=10_000, max_film_s=2.0))
    with contextlib.closing(decoders):
        with pytest.raises(MediaError, match="101x100 pixels"):
            decoders.picture(photo, embedder.budget)
        with pytest.raises(MediaError, match=r"lasts 3 s, which is over the limit of 2 s"):
            decoders.film(film, embedder.budget)


def test_decoding_that_does_not_end_is_ended(embedder: Embedder, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging"
    os.mkfifo(hanging)  # nobody ever writes to it
    with contextlib.closing(Decoders(DecoderSettings(count=1, time_limit_s=0.5))) as decoders:
        with pytest.raises(MediaError, match=r"longer than the limit of 0.5 s"):
            decoders.picture(hanging, embedder.budget)
        with pytest.raises(MediaError, match="empty"):  # and the next one gets a fresh process
            decoders.picture(_empty(tmp_path), embedder.budget)


def test_a_request_that_is_given_up_ends_its_decoding(embedder: Embedder, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging"
    os.mkfifo(hanging)
    calls = []

    def go_on() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise StoppedError("given up")

    with contextlib.closing(Decoders(DecoderSettings(count=1))) as decoders:
        with pytest.raises(StoppedError):
            decoders.picture(hanging, embedder.budget, go_on=go_on)
        with pytest.raises(MediaError, match="empty"):
            decoders.picture(_empty(tmp_path), embedder.budget)


def test_idle_processes_end(media: Any, embedder: Embedder, tmp_path: Path) -> None:
    photo = media.photo(tmp_path / "a.png")
    with contextlib.closing(Decoders(DecoderSettings(count=1, idle_s=0.1))) as decoders:
        decoders.picture(photo, embedder.budget)
        deadline = time.monotonic() + 60
        while decoders.idle and time.monotonic() < deadline:
            time.sleep(0.02)
        assert decoders.idle == 0
        decoders.picture(photo, embedder.budget)
        assert decoders.idle == 1


def _empty(folder: Path) -> Path:
    file = folder / "empty"
    file.touch()
    return file


# Files of the library


@pytest.fixture
def places(tmp_path: Path, media: Any) -> Path:
    """`photos` is indexed, `secret` is not; links lead from the one to the other and back."""
    media.photo(tmp_path / "photos" / "a b.png")
    media.photo(tmp_path / "secret" / "s.png")
    (tmp_path / "photos" / "out.png").symlink_to(tmp_path / "secret" / "s.png")
    (tmp_path / "photos" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "photos2").mkdir()
    (tmp_path / "photos2" / "n.png").symlink_to(tmp_path / "secret" / "s.png")
    (tmp_path / "alias").symlink_to(tmp_path / "photos")
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "/photos/a%20b.png",
        "/photos/../photos/a%20b.png",
        "/alias/a%20b.png",
    ],
)
def test_files_below_indexed_folders(read: Any, places: Path, name: str) -> None:
    sources = Sources(roots=lambda: [str(places / "photos")])
    assert read({"image": f"file://{places}{name}"}, sources)["image"]
    assert read({"image": f"file://localhost{places}{name}"}, sources)["image"]


@pytest.mark.parametrize(
    "name",
    [
        "/secret/s.png",
        "/photos/../secret/s.png",
        "/photos/%2e%2e/secret/s.png",
        "/photos/out.png",
        "/photos/out/s.png",
        "/photos2/n.png",
        "/photos/pipe.png",
        "/photos",
        "/photos/missing.png",
        "/photos/a%20b.png%00.txt",
        "/",
        "/../../../../../../etc/passwd",
    ],
)
def test_no_file_elsewhere_whether_there_is_one_or_not(read: Any, places: Path, name: str) -> None:
    sources = Sources(roots=lambda: [str(places / "photos")])
    with pytest.raises(PartError, match=r"^input\.image: there is no such file below the indexed folders"):
        read({"image": f"file://{places}{name}"}, sources)


def test_a_link_that_appears_after_the_look_is_not_followed(
    read: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "photos" / "sub").mkdir()
    shutil.copy(places / "photos" / "a b.png", places / "photos" / "sub" / "s.png")
    sources = Sources(roots=lambda: [str(places / "photos")])
    address = f"file://{places}/photos/sub/s.png"
    assert read({"image": address}, sources)["image"]

    def looked(path: str, folder: str) -> bool:
        found = is_inside(path, folder)
        shutil.rmtree(places / "photos" / "sub")
        (places / "photos" / "sub").symlink_to(places / "secret")
        return found

    monkeypatch.setattr(sources_module, "is_inside", looked)
    with pytest.raises(PartError, match="there is no such file"):
        read({"image": address}, sources)


@pytest.mark.parametrize("is_named", [True, False])
def test_what_is_decoded_is_what_was_opened(
    places: Path, monkeypatch: pytest.MonkeyPatch, is_named: bool
) -> None:
    if not is_named:  # as on a system without /proc
        monkeypatch.setattr(sources_module, "_OPEN_FILES", str(places / "missing"))
    photo = places / "photos" / "a b.png"
    content = photo.read_bytes()
    (places / "secret" / "s.png").write_bytes(b"something else")
    sources = Sources(roots=lambda: [str(places / "photos")])
    with sources.file(f"file://{places}/photos/a%20b.png", part="input", go_on=nothing) as path:
        photo.unlink()
        photo.symlink_to(places / "secret" / "s.png")
        assert (path.read_bytes(), path.suffix) == (content, ".png")
        assert path.is_symlink() == is_named
    assert not path.parent.exists()


def test_a_name_may_be_as_long_as_a_system_allows(read: Any, places: Path) -> None:
    name = "a." + 253 * "x"
    shutil.copy(places / "photos" / "a b.png", places / "photos" / name)
    sources = Sources(roots=lambda: [str(places / "photos")])
    assert read({"image": f"file://{places}/photos/{name}"}, sources)["image"]


@pytest.mark.parametrize("address", ["file://elsewhere/a.png", "file:///a.png?x", "file:///a.png#x"])
def test_addresses_of_files_that_are_none(read: Any, address: str) -> None:
    with pytest.raises(PartError, match="file:///folder/file"):
        read({"image": address}, Sources(roots=lambda: ["/"]))


def test_a_server_takes_local_paths_only_when_started_so(settings: ServerSettings, shelf: Any) -> None:
    photo = next(path for path in sorted(shelf.pictures.rglob("*.jpg")) if path != shelf.broken)
    body = {"input": [{"image": photo.as_uri()}], "dimensions": 32}
    allowed = replace(settings, allow_local_paths=True)
    with (
        Service.open(allowed) as service,
        TestClient(build_app(allowed, service), base_url="http://localhost:8377") as client,
    ):
        answer = client.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        expected = service.embedder().embed([{"image": photo}], dims=32)[0]
        assert np.abs(answer.json()["data"][0]["embedding"] - expected).max() <= 1e-6
        elsewhere = {"input": [{"image": (shelf.library / "library.db").as_uri()}]}
        assert client.post("/v1/embeddings", json=elsewhere).status_code == 400


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
    ],
)
def test_private_addresses_are_known(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture
def site() -> Iterator[tuple[str, dict[str, Reply], list[str]]]:
    """A server on loopback: its address, what it answers by path, and the paths that were asked."""
    replies: dict[str, Reply] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, body = replies[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", replies, asked
        server.shutdown()
        thread.join()


# Loopback is never connected to otherwise, and tests have no other network.
HERE = Remote(may_connect=lambda address: address.is_loopback)


def fetched(address: str, remote: Remote = HERE, go_on: Callable[[], None] = nothing) -> bytes:
    file = io.BytesIO()
    remote.fetch(address, file, go_on=go_on)
    return file.getvalue()


def test_what_is_fetched_is_an_input(
    site: Any, read: Any, media: Any, embedder: Embedder, tmp_path: Path
) -> None:
    url, replies, _ = site
    photo = media.photo(tmp_path / "a.png", seed=9)
    replies["/a.png?size=1"] = (200, {"Content-Type": "text/html"}, photo.read_bytes())
    made = read({"image": f"{url}/a.png?size=1"}, Sources(remote=HERE))
    assert np.array_equal(embedder.embed([made]), embedder.embed([{"image": photo}]))


def test_redirects_are_followed_a_few_times(site: Any) -> None:
    url, replies, asked = site
    replies |= {f"/{i}": (302, {"Location": f"/{i + 1}"}, b"") for i in range(5)}
    replies["/there"] = (200, {"Content-Length": "4"}, b"here")
    replies["/3"] = (307, {"Location": f"{url}/there"}, b"")
    assert fetched(f"{url}/1") == b"here"
    asked.clear()
    with pytest.raises(RemoteError, match="more than 3 times"):
        fetched(f"{url}/0")
    assert asked == ["/0", "/1", "/2", "/3"]


def test_loopback_is_not_asked(site: Any) -> None:
    url, replies, asked = site
    replies["/a.png"] = (200, {}, b"a")
    for address in (
        url,
        url.replace("127.0.0.1", "localhost"),
        url.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
    ):
        with pytest.raises(RemoteError, match=r"private network|cannot be fetched"):
            fetched(f"{address}/a.png", Remote())
    assert asked == []


def test_a_redirect_into_a_private_network_is_not_followed(site: Any) -> None:
    url, replies, asked = site
    replies["/a.png"] = (302, {"Location": url.replace("127.0.0.1", "127.0.0.2") + "/inner"}, b"")
    only_here = Remote(may_connect=lambda address: str(address) == "127.0.0.1")
    with pytest.raises(RemoteError, match="private network"):
        fetched(f"{url}/a.png", only_here)
    assert asked == ["/a.png"]


def test_a_name_that_changes_its_mind_is_asked_once(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, replies, asked = site
    replies["/a"] = (200, {}, b"a")
    port = url.rpartition(":")[2]
    answers = ["127.0.0.1", "127.0.0.2"]

    def rebinding(host: str, port: int, *_: Any, **__: Any) -> Any:
        address = answers.pop(0) if host == "rebinding.test" else host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("qvl_local.runtime.server.remote.socket.getaddrinfo", rebinding)
    assert fetched(f"http://rebinding.test:{port}/a") == b"a"
    assert answers == ["127.0.0.2"]
    assert asked == ["/a"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((404, {}, b"not here"), "answers 404"),
        ((206, {}, b"a part"), "answers 206"),
        ((200, {"Content-Length": "5000"}, b"x" * 5000), "larger than 1,000"),
        ((200, {}, b"x" * 5000), "larger than 1,000"),
        ((200, {"Content-Length": "900"}, b"x" * 500), "before everything was there|IncompleteRead"),
        ((302, {"Location": "ftp://127.0.0.1/"}, b""), "begin with http"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "begin with http"),
        ((302, {"Location": "http://a:b@127.0.0.1/"}, b""), "name or password"),
    ],
)
def test_what_does_not_give_a_file_in_bounds_is_refused(site: Any, reply: Reply, words: str) -> None:
    url, replies, _ = site
    replies["/a"] = reply
    with pytest.raises(RemoteError, match=words):
        fetched(f"{url}/a", replace(HERE, max_bytes=1000))


@pytest.mark.parametrize(
    "address",
    [
        "http://",
        "http:///a",
        "http://a b/",
        "http://exämple.org/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://user@127.0.0.1/",
        "http://[::1/",
        "http://127.0.0.1/\r\nHost: x",
        "http://127.0.0.1/" + "a" * 3000,
        "gopher://127.0.0.1/",
    ],
)
def test_addresses_of_no_known_form(address: str) -> None:
    with pytest.raises(RemoteError):
        fetched(address)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_dribbles_is_left(start: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        is_over = threading.Event()

        def dribble() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(start)
                while not is_over.wait(0.01):
                    connection.sendall(b"x")

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            with pytest.raises(RemoteError, match=r"longer than 0.3 s"):
                fetched(f"http://127.0.0.1:{listener.getsockname()[1]}/", replace(HERE, limit_s=0.3))
        finally:
            is_over.set()
            thread.join()


def test_a_server_takes_addresses_only_when_started_so(site: Any, settings: ServerSettings) -> None:
    url, replies, asked = site
    replies["/a.png"] = (200, {}, b"")
    allowed = replace(settings, allow_remote_urls=True)
    with (
        Service.open(allowed) as service,
        TestClient(build_app(allowed, service), base_url="http://localhost:8377") as client,
    ):
        answer = client.post("/v1/embeddings", json={"input": {"image": f"{url}/a.png"}})
    assert answer.status_code == 400
    assert "private network" in answer.json()["error"]["message"]
    assert asked == []


# Parsing never fails otherwise

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "image", "video", "image_url", "url", "content", "type", "role", "fps"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(JSON)
def test_whatever_comes_is_an_input_or_an_error_with_a_place(raw: Any) -> None:
    for parse in (parse_inputs, parse_messages):
        drafts, fault = parsed(parse, raw)
        assert all(draft.texts or draft.media for draft in drafts)
        assert bool(drafts) != (fault is not None)
        if fault is not None:
            assert fault.part.startswith(("input", "messages"))
            assert str(fault).isprintable()


def parsed(parse: Callable[..., Any], raw: Any) -> tuple[list[Draft], PartError | None]:
    try:
        made = parse(raw)
    except PartError as error:
        return [], error
    return made if isinstance(made, list) else [made], None
