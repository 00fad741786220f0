"""The cache of small pictures: kept by content, and no harm when it is damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from qvl_local.runtime.errors import LibraryError
from qvl_local.runtime.library.previews import PREVIEWS, Preview, Previews, Strip

A, B = b"a" * 20, b"b" * 20
FILM = Preview(B, b"thumb-b", (Strip(0, (0.0, 0.5), b"strip-0"), Strip(2000, (0.0,), b"strip-2000")))


def test_what_is_written_is_read_by_another(tmp_path: Path) -> None:
    with Previews.open(tmp_path, mode="write") as previews:
        previews.write([Preview(A, b"thumb-a"), FILM])
    with Previews.open(tmp_path) as previews:
        assert previews.thumbnail(A) == b"thumb-a"
        assert previews.strip(B, 2000) == Strip(2000, (0.0,), b"strip-2000")
        assert previews.strip(B, 0) == Strip(0, (0.0, 0.5), b"strip-0")
        assert previews.strip(A, 0) is None
        assert previews.thumbnail(b"?") is None


def test_writing_again_replaces_all_of_a_content(tmp_path: Path) -> None:
    with Previews.open(tmp_path, mode="write") as previews:
        previews.write([FILM])
        previews.write([Preview(B, b"new", (Strip(500, (0.25,), b"other"),))])
        assert previews.thumbnail(B) == b"new"
        assert previews.strip(B, 0) is None
        assert previews.strip(B, 500) == Strip(500, (0.25,), b"other")


def test_the_strips_of_a_film_may_come_before_the_rest(tmp_path: Path) -> None:
    first, second, last = (Strip(at, (0.0,), b"strip-%d" % at) for at in (0, 2000, 4000))
    with Previews.open(tmp_path, mode="write") as previews:
        previews.write([FILM])
        previews.write_strips(B, [first], is_first=True)
        assert previews.strip(B, 2000) is None
        previews.write_strips(B, [second, second], is_first=False)
        previews.write([Preview(B, b"new", (last, last), is_continued=True)])
        assert [previews.strip(B, at) for at in (0, 2000, 4000)] == [first, second, last]
        assert previews.thumbnail(B) == b"new"


def test_what_is_not_kept_goes(tmp_path: Path) -> None:
    with Previews.open(tmp_path, mode="write") as previews:
        previews.write([Preview(A, b"thumb-a"), FILM])
        assert previews.keep_only([A, A, b"unknown"]) == 1
        assert previews.thumbnail(A) == b"thumb-a"
        assert previews.thumbnail(B) is None
        assert previews.strip(B, 0) is None
        assert previews.keep_only([]) == 1


@pytest.mark.parametrize("content", [b"", b"this is no database " * 500])
def test_a_damaged_cache_reads_as_empty_and_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PREVIEWS).write_bytes(content)
    with Previews.open(tmp_path) as previews:
        assert previews.thumbnail(A) is None
    with Previews.open(tmp_path, mode="write") as previews:
        previews.write([Preview(A, b"thumb-a")])
    with Previews.open(tmp_path) as previews:
        assert previews.thumbnail(A) == b"thumb-a"


def test_a_reader_without_a_cache_finds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    with Previews.open(tmp_path) as previews:
        assert previews.thumbnail(A) is None
        assert previews.strip(A, 0) is None
        with pytest.raises(LibraryError, match="not open for writing"):
            previews.write([FILM])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda previews: previews.write([FILM]),
        lambda previews: previews.drop([A]),
        lambda previews: previews.keep_only([A]),
        lambda previews: previews.keep_rendition(A, None, 500, b"large"),
        lambda previews: previews.keep_fingerprints(1, {A: b"print"}),
    ],
)
def test_who_waits_while_another_closes_finds_it_closed(
    tmp_path: Path, change: Callable[[Previews], object]
) -> None:
    previews = Previews.open(tmp_path, mode="write")
    raised: list[BaseException] = []
    lock, has_come = previews._calls, threading.Event()

    class Told:
        """The same lock, which tells that somebody waits for it."""

        def __enter__(self) -> None:
            has_come.set()
            lock.acquire()

        def __exit__(self, *_exception: object) -> None:
            lock.release()

    def late() -> None:
        try:
            change(previews)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=late)
    with lock:
        previews._calls = Told()  # type: ignore[assignment]
        thread.start()
        assert has_come.wait(60)
        previews._calls = lock
        previews.close()
    thread.join()
    assert [type(error) for error in raised] == [LibraryError]
    assert "not open for writing" in str(raised[0])
