"""Watching real folders: what happens in them is told once it has settled, whatever happens."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.server import watch as watch_module
from qvl_local.runtime.server.watch import Settling, Watch
from watchfiles._rust_notify import WatchfilesRustInternalError

PATIENCE_S = 60.0


def aged(path: Path, content: bytes = b"x", *, age_s: float = 100.0) -> str:
    """A file that was written a while ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return str(path)


# Settling: told times, real files


def test_nothing_is_handed_on_while_things_happen(tmp_path: Path) -> None:
    settling = Settling(quiet_s=1.0, longest_s=10.0)
    one, two = aged(tmp_path / "1.jpg"), aged(tmp_path / "2.jpg")
    settling.add([one], 0.0)
    settling.add([two], 0.8)
    assert settling.take(1.5) == []
    assert sorted(settling.take(1.9)) == [one, two]
    assert settling.take(3.0) == []
    assert len(settling) == 0


def test_a_file_that_grows_is_waited_for(tmp_path: Path) -> None:
    settling = Settling(quiet_s=1.0)
    growing = tmp_path / "film.mp4"
    for second in range(5):
        growing.write_bytes(b"x" * (second + 1))  # young and larger each time
        settling.add([str(growing)], float(second * 2))
        assert settling.take(second * 2 + 1.5) == []
    assert settling.take(10.0) == []
    assert settling.take(11.1) == [str(growing)]


def test_an_endless_copy_is_handed_on_in_parts(tmp_path: Path) -> None:
    settling = Settling(quiet_s=1.0, longest_s=10.0)
    done = aged(tmp_path / "done.jpg")
    settling.add([done], 0.0)
    for tenth in range(1, 100):
        settling.add([aged(tmp_path / f"{tenth}.jpg")], tenth / 10)
        assert settling.take(tenth / 10) == []
    settling.add([aged(tmp_path / "last.jpg")], 10.0)
    handed_on = settling.take(10.0)
    assert done in handed_on
    assert str(tmp_path / "last.jpg") not in handed_on
    assert str(tmp_path / "last.jpg") in settling.take(11.5)


def test_what_is_gone_waits_for_what_grows(tmp_path: Path) -> None:
    """A move to another disk is a slow copy and a delete: the vectors must still be there at the end."""
    settling = Settling(quiet_s=1.0, held_s=60.0)
    gone, growing = str(tmp_path / "gone.mp4"), tmp_path / "copy.mp4"
    growing.write_bytes(b"x")
    settling.add([str(growing), gone], 0.0)
    assert settling.take(2.0) == []
    growing.write_bytes(b"xx")
    assert settling.take(4.0) == []
    assert sorted(settling.take(5.1)) == sorted([gone, str(growing)])
    growing.write_bytes(b"xxx")
    settling.add([str(growing), gone], 10.0)
    assert settling.take(12.0) == []
    growing.write_bytes(b"xxxx")
    assert settling.take(71.0) == [gone]  # but not for ever


def test_a_folder_is_settled_when_its_files_are(tmp_path: Path) -> None:
    settling = Settling(quiet_s=1.0)
    folder = tmp_path / "folder"
    aged(folder / "sub" / "1.jpg")
    settling.add([str(folder)], 0.0)
    (folder / "sub" / "2.jpg").write_bytes(b"x")
    assert settling.take(2.0) == []
    assert settling.take(3.5) == []
    aged(folder / "sub" / "2.jpg")
    assert settling.take(4.6) == [str(folder)]


def test_a_link_to_nothing_holds_up_nobody(tmp_path: Path) -> None:
    settling = Settling(quiet_s=1.0)
    link, gone = tmp_path / "link.jpg", str(tmp_path / "gone.jpg")
    link.symlink_to(tmp_path / "nowhere.jpg")
    settling.add([str(link), gone], 0.0)
    assert sorted(settling.take(2.0)) == [gone, str(link)]


def test_a_whole_root_is_not_looked_through(tmp_path: Path) -> None:
    settling = Settling(quiet_s=1.0)
    (tmp_path / "young.jpg").write_bytes(b"x")
    settling.add([str(tmp_path)], 0.0)
    assert settling.take(2.0) == []
    assert settling.take(2.0, whole={str(tmp_path)}) == [str(tmp_path)]


def test_what_happens_while_files_are_looked_at_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = Settling(quiet_s=1.0)
    path = aged(tmp_path / "1.jpg")
    settling.add([path], 0.0)
    is_settled = settling._is_settled

    def and_again(*arguments: Any) -> bool:
        settling.add([path], 2.0)
        return is_settled(*arguments)

    monkeypatch.setattr(settling, "_is_settled", and_again)
    assert settling.take(2.0) == []
    monkeypatch.setattr(settling, "_is_settled", is_settled)
    assert settling.take(4.0) == [path]


# Watch: real folders and the system's own news


class Told:
    """What a watch has handed on, but for the probes that find out whether it watches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.probed = threading.Event()
        self._news = threading.Condition()

    def __call__(self, paths: list[str]) -> None:
        others = [path for path in paths if "probe-" not in path]
        if len(others) < len(paths):
            self.probed.set()
        with self._news:
            if others:
                self.batches.append(others)
            self._news.notify_all()

    @property
    def places(self) -> set[str]:
        return {path for batch in self.batches for path in batch}

    def wait_for(self, *paths: str | Path) -> None:
        wanted = {str(path) for path in paths}
        with self._news:
            assert self._news.wait_for(lambda: wanted <= self.places, PATIENCE_S), (wanted, self.batches)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    aged(root / "old.jpg")
    return root


@pytest.fixture
def watching(tmp_path: Path, told: Told) -> Iterator[Callable[..., Watch]]:
    """Starts a quick watch that is really watching."""
    watches: list[Watch] = []

    def start(*roots: Path, **options: Any) -> Watch:
        settling = Settling(quiet_s=0.2, longest_s=1.0)
        watch = Watch(
            told,
            outside=str(tmp_path / "root" / "library"),
            settling=settling,
            **{"look_s": 0.3, **options},
        )
        watches.append(watch)
        watch.open()
        watch.follow(map(str, roots))
        return watch

    yield start
    for watch in watches:
        watch.close()


def until_watched(root: Path, told: Told) -> None:
    """The system tells only what happens after it has begun; files are made until it does."""
    told.probed.clear()
    for number in range(600):
        (root / f"probe-{time.monotonic_ns()}-{number}.jpg").write_bytes(b"x")
        if told.probed.wait(0.1):
            break
    assert told.probed.is_set()
    told.probed.clear()
    told.batches.clear()


def test_new_changed_moved_and_deleted_files_are_told(
    root: Path, told: Told, watching: Callable[..., Watch]
) -> None:
    watch = watching(root)
    until_watched(root, told)
    assert watch.is_watching
    (root / "new.jpg").write_bytes(b"new")
    told.wait_for(root / "new.jpg")
    (root / "new.jpg").rename(root / "moved.jpg")
    told.wait_for(root / "new.jpg", root / "moved.jpg")
    (root / "moved.jpg").unlink()
    told.wait_for(root / "moved.jpg")


def test_a_move_is_told_as_one(root: Path, told: Told, watching: Callable[..., Watch]) -> None:
    aged(root / "a" / "1.jpg")
    watching(root)
    until_watched(root, told)
    (root / "a").rename(root / "b")
    told.wait_for(root / "a", root / "b")
    (batch,) = [batch for batch in told.batches if str(root / "a") in batch]
    assert str(root / "b") in batch


def test_many_files_are_told_in_few_batches(root: Path, told: Told, watching: Callable[..., Watch]) -> None:
    watching(root)
    until_watched(root, told)
    names = [root / f"{number}.jpg" for number in range(300)]
    for name in names:
        name.write_bytes(b"x")
    told.wait_for(*names)
    assert len(told.batches) <= 10


def test_what_cannot_be_a_picture_is_not_told(root: Path, told: Told, watching: Callable[..., Watch]) -> None:
    (root / "library").mkdir()
    watching(root)
    until_watched(root, told)
    for name in ("notes.txt", ".hidden.jpg", "library/library.db-shm"):
        (root / name).write_bytes(b"x")
    (root / "library" / "library.db-shm").unlink()
    (root / ".cache").mkdir()
    (root / ".cache" / "1.jpg").write_bytes(b"x")
    (root / "last.jpg").write_bytes(b"x")
    told.wait_for(root / "last.jpg")
    assert told.places <= {str(root / "last.jpg"), str(root)}


def test_new_rules_concern_their_folder(root: Path, told: Told, watching: Callable[..., Watch]) -> None:
    (root / "sub").mkdir()
    watching(root)
    until_watched(root, told)
    (root / "sub" / ".qvlignore").write_text("*.png\n")
    told.wait_for(root / "sub")


def test_a_root_that_vanishes_is_told_when_it_is_back(
    root: Path, told: Told, watching: Callable[..., Watch]
) -> None:
    watch = watching(root)
    until_watched(root, told)
    away = root.with_name("away")
    root.rename(away)
    deadline = time.monotonic() + PATIENCE_S
    while watch.is_there(str(root)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not watch.is_there(str(root))
    assert "Is its disk connected" in watch.notes()[str(root)]
    assert watch.is_watching  # of what is there
    told.batches.clear()
    away.rename(root)
    told.wait_for(root)
    until_watched(root, told)
    (root / "new.jpg").write_bytes(b"x")
    told.wait_for(root / "new.jpg")
    assert watch.notes() == {}


def test_roots_come_and_go_while_watching(
    root: Path, tmp_path: Path, told: Told, watching: Callable[..., Watch]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    watch = watching(root)
    watch.follow([str(root), str(other)])
    until_watched(other, told)
    forgotten = watch._roots[str(root)].thread
    watch.follow([str(other)])
    forgotten.join(PATIENCE_S)
    assert not forgotten.is_alive()
    (root / "unseen.jpg").write_bytes(b"x")
    (other / "seen.jpg").write_bytes(b"x")
    told.wait_for(other / "seen.jpg")
    assert str(root / "unseen.jpg") not in told.places


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "OS file watch limit reached"),
        WatchfilesRustInternalError("Error creating recommended watcher: Too many open files (os error 24)"),
    ],
)
def test_a_root_that_cannot_be_watched_is_looked_at_now_and_then(
    error: Exception,
    root: Path,
    told: Told,
    watching: Callable[..., Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_more_watches(*_: Any, **__: Any) -> Iterator[Any]:
        raise error

    monkeypatch.setattr(watch_module, "watch", no_more_watches)
    watch = watching(root, rescan_s=0.5)
    told.wait_for(root)
    assert not watch.is_watching
    assert "looked at every" in watch.notes()[str(root)]
    told.batches.clear()
    told.wait_for(root)


def test_more_places_than_can_be_looked_at_one_by_one_are_their_root(
    root: Path, told: Told, watching: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_MANY", 3)
    watch = watching(root)
    watch.happened([aged(root / f"{number}.jpg") for number in range(9)])
    told.wait_for(root)
    assert str(root / "1.jpg") not in told.places


def test_a_folder_that_is_deleted_whole_is_told(
    root: Path, told: Told, watching: Callable[..., Watch]
) -> None:
    aged(root / "a" / "b" / "1.jpg")
    watching(root)
    until_watched(root, told)
    shutil.rmtree(root / "a")
    told.wait_for(root / "a")
