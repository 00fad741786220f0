"""A folder of broken and strange media: every file is indexed or reported by name with its reason."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime import Library
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.records import IndexReport
from qvl_local.runtime.library.tally import IndexProgress
from qvl_local.runtime.library.workers import WorkerSettings

RED, BLUE = (200, 30, 30), (30, 30, 200)

GOOD = {"png called.jpg", "one pixel.png", "panorama.png", "cmyk.jpg", "sixteen bit.png", "animated.gif"}
GOOD |= {"whole.jpg", "new\nline.jpg", "🐕 am Strand.jpg", "caf\udce9.jpg"}
GOOD |= {"broken middle.mkv", "short.mp4", "video called.jpg"}

BAD = {
    "truncated.jpg": "cut short",
    "zero.jpg": "empty",
    "zeros.mp4": "only zeros",
    "text called.jpg": "no photo or video of a known format",
    "sound only.mp4": "only sound",
    "no index.mp4": "the video is cut short: its end is missing; copy it again",
    "bomb.png": "50000x50000 pixels are more than the limit of 200 million",
    "playlist.mp4": "no photo or video of a known format",
    "pipe.jpg": "not a file",
    "vanishing.jpg": "cannot be read: no such file",
}


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, media: Any) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    names = ["whole.jpg", "new\nline.jpg", "🐕 am Strand.jpg", "caf\udce9.jpg", "vanishing.jpg"]
    for seed, name in enumerate(names):
        shutil.move(media.photo(folder / "made.jpg", RED, seed=seed), os.fsencode(folder / name))
    shutil.move(media.photo(folder / "made.png", RED, seed=9), folder / "png called.jpg")
    Image.new("RGB", (1, 1), RED).save(folder / "one pixel.png")
    Image.new("RGB", (20_000, 20), BLUE).save(folder / "panorama.png")
    Image.new("CMYK", (60, 40), (0, 200, 200, 0)).save(folder / "cmyk.jpg")
    Image.fromarray(np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16)).save(
        folder / "sixteen bit.png"
    )
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    media.video(folder / "short.mp4", [(BLUE, 0.1)])
    shutil.move(media.video(folder / "made.mp4", [(RED, 1)]), folder / "video called.jpg")
    film = bytearray(media.video(folder / "broken middle.mkv", [(RED, 4)], keyframe_every=6).read_bytes())
    film[len(film) // 2 : len(film) // 2 + 2000] = np.random.default_rng(0).bytes(2000)
    (folder / "broken middle.mkv").write_bytes(film)

    whole = media.photo(folder / "truncated.jpg", RED, size=(400, 300)).read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "zeros.mp4").write_bytes(b"\0" * 100_000)
    (folder / "text called.jpg").write_text("Dear diary")
    media.sound(folder / "sound only.mp4")
    film = media.video(folder / "no index.mp4", [(RED, 2)]).read_bytes()
    (folder / "no index.mp4").write_bytes(film[: len(film) // 2])
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nshort.mp4\n")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "notes.txt").write_text("none of ours")
    (folder / "album.jpg").mkdir()  # a folder called like a photo
    return folder


@pytest.fixture(scope="module")
def indexed(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str
) -> tuple[Path, IndexReport]:
    home = tmp_path_factory.mktemp("broken") / "library"

    def vanish(step: IndexProgress) -> None:
        (corpus / "vanishing.jpg").unlink(missing_ok=True)  # after the walk, before it is read

    settings = IndexSettings(WorkerSettings(2))
    with Library.open(home, model=tiny_bundle, settings=settings) as library:
        return home, library.index([corpus], progress=vanish)


def test_every_file_is_accounted_for(corpus: Path, indexed: tuple[Path, IndexReport]) -> None:
    home, report = indexed
    failed = {Path(failure.path).name: failure.error for failure in report.failed}
    with Library.open(home) as library:
        hits = library.search("anything", limit=100, rerank=False).hits
    assert {Path(hit.path).name for hit in hits} == GOOD
    assert set(failed) == set(BAD)
    assert (report.items, report.added) == (len(GOOD), len(GOOD))


@pytest.mark.parametrize("name", sorted(BAD))
def test_each_failure_has_its_reason(indexed: tuple[Path, IndexReport], name: str) -> None:
    (error,) = [failure.error for failure in indexed[1].failed if Path(failure.path).name == name]
    assert BAD[name] in error
    assert "\n" not in error


def test_failures_stay_on_record_and_are_not_tried_again(
    corpus: Path, indexed: tuple[Path, IndexReport], tiny_bundle: str
) -> None:
    home, first = indexed
    # A decoder that cannot even start: nothing may want it.
    command = (sys.executable, "-c", "raise SystemExit(9)")
    settings = IndexSettings(WorkerSettings(1), worker_command=command)
    with Library.open(home, model=tiny_bundle, settings=settings) as library:
        again = library.index([corpus])
        recorded = {Path(failure.path).name for failure in library.failures()}
    assert again.unchanged == len(GOOD)
    expected = {failure.path: failure.error for failure in first.failed if "vanishing" not in failure.path}
    assert {failure.path: failure.error for failure in again.failed} == expected
    assert recorded == set(BAD) - {"vanishing.jpg", "pipe.jpg"}


def test_a_failure_is_tried_again_when_the_file_changes(tmp_path: Path, media: Any, tiny_bundle: str) -> None:
    bad = tmp_path / "album" / "a.jpg"
    bad.parent.mkdir()
    bad.write_bytes(b"not yet copied")
    with Library.open(tmp_path / "library", model=tiny_bundle) as library:
        assert len(library.index([bad.parent]).failed) == 1
        media.photo(bad, RED)
        report = library.index([bad.parent])
        assert (report.failed, report.updated, report.items) == ((), 1, 1)
        assert library.failures() == ()
        bad.write_bytes(b"broken again")
        report = library.index([bad.parent])
        assert (report.items, len(report.failed)) == (0, 1)
        assert len(library.failures()) == 1
        bad.unlink()
        assert library.index([bad.parent]).failed == ()
        assert library.failures() == ()


HOSTILE = """
import os, signal, sys, time
from qvl_local.runtime.errors import MediaAccessError
from qvl_local.runtime.library.decode import decode_file
from qvl_local.runtime.library.worker import serve

def decode(task, beat):
    if "hang" in task.path:
        time.sleep(600)
    if "crash" in task.path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hungry" in task.path:
        bytearray(8 * 2**30)
    if "unplugged" in task.path:
        raise MediaAccessError(task.path, "the file cannot be read: no such device")
    pieces = decode_file(task, beat)
    if "late" in task.path:
        yield next(pieces)
        os.abort()
    yield from pieces

serve(decode, memory_mb=int(sys.argv[1]), time_limit_s=float(sys.argv[2]))
"""


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[str, ...]:
    script = tmp_path / "hostile_worker.py"
    script.write_text(textwrap.dedent(HOSTILE))
    return sys.executable, str(script)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hang.jpg", "longer than the limit of 4 s"),
        ("crash.jpg", "crashed (SIGSEGV)"),
        ("hungry.jpg", "more memory than a worker may use"),
        ("late.mp4", "crashed (SIGABRT)"),
    ],
)
def test_a_decoder_that_dies_costs_one_file(
    tmp_path: Path, media: Any, tiny_bundle: str, hostile: tuple[str, ...], name: str, reason: str
) -> None:
    album = tmp_path / "album"
    for seed in range(3):
        media.photo(album / f"{seed}.jpg", BLUE, seed=seed)
    maker: Callable[..., Path] = media.video if name.endswith("mp4") else media.photo
    maker(album / name)
    settings = IndexSettings(WorkerSettings(1, time_limit_s=4), worker_command=hostile)
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=settings) as library:
        report = library.index([album])
        assert report.items == 3
        ((path, error),) = [(failure.path, failure.error) for failure in report.failed]
        assert path == str(album / name)
        assert reason in error
        # And it is not tried again: with this limit that would take another four seconds each time.
        assert library.index([album]).failed == report.failed


def test_a_file_that_the_system_refused_is_tried_again(
    tmp_path: Path, media: Any, tiny_bundle: str, hostile: tuple[str, ...]
) -> None:
    photo = media.photo(tmp_path / "album" / "unplugged.jpg")
    settings = IndexSettings(WorkerSettings(1), worker_command=hostile)
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=settings) as library:
        report = library.index([photo.parent])
        assert [failure.error for failure in report.failed] == ["the file cannot be read: no such device"]
        assert library.failures() == report.failed
    with Library.open(tmp_path / "library") as library:
        report = library.index([photo.parent])  # the file is as it was; the disk is back
        assert (report.items, report.failed) == (1, ())
        assert library.failures() == ()
