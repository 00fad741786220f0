"""Background indexing on real files: queue, pause, errors and retries, folders that come and go."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.errors import LibraryBusyError, LibraryStorageError
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.records import IndexReport
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.server import jobs as jobs_module
from qvl_local.runtime.server import wanted
from qvl_local.runtime.server.jobs import Jobs, JobState, background_settings

PATIENCE_S = 120.0
SETTINGS = IndexSettings(
    WorkerSettings(1, is_background=True), batch_layers=2, write_files=4, is_background=True
)


@pytest.fixture
def album(tmp_path: Path, media: Any) -> Path:
    for number in range(6):
        media.photo(tmp_path / "album" / f"{number}.jpg", (20 + 30 * number, 90, 60), seed=number)
    return tmp_path / "album"


@pytest.fixture
def library(tmp_path: Path, tiny_bundle: str) -> Iterator[Library]:
    Store.create(tmp_path / "library")
    with Library.open(tmp_path / "library", model=tiny_bundle, create=False, settings=SETTINGS) as library:
        yield library


@pytest.fixture
def jobs(library: Library) -> Iterator[Jobs]:
    jobs = Jobs(library)
    jobs.open()
    yield jobs
    jobs.close()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def items(library: Library) -> int:
    return library.status().counts.items


def embedded(jobs: Jobs) -> int:
    """How many files this run has read and embedded."""
    state = jobs.state()
    return state.done if state.stage == "embed" else 0


class Runs:
    """Notes what a library is asked for, and holds a run until it is let go or stopped."""

    def __init__(self, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.held = threading.Event()
        self.held.set()
        self.errors: list[Exception] = []

        def index(
            paths: Any = None, *, progress: Any = None, stop: threading.Event | None = None
        ) -> IndexReport | None:
            return self._run("index", tuple(map(str, paths or ())), stop)

        def update(paths: Any, *, progress: Any = None, stop: threading.Event | None = None) -> Any:
            return self._run("update", tuple(map(str, paths)), stop)

        monkeypatch.setattr(library, "index", index)
        monkeypatch.setattr(library, "update", update)

    def _run(self, what: str, paths: tuple[str, ...], stop: threading.Event | None) -> Any:
        self.asked.append((what, paths))
        if self.errors:
            raise self.errors.pop(0)
        while not self.held.is_set() and not (stop is not None and stop.is_set()):
            time.sleep(0.01)


def test_a_folder_that_is_added_is_indexed_in_the_background(
    library: Library, jobs: Jobs, album: Path
) -> None:
    assert jobs.state() == JobState()
    jobs.add([str(album)])
    seen: list[JobState] = []
    while not jobs.is_idle():
        seen.append(jobs.state())
        time.sleep(0.01)
    assert items(library) == 6
    running = [state for state in seen if state.state == "running"]
    assert {state.stage for state in running} <= {"scan", "embed", "remove"}
    assert any(state.total == 6 and state.path_name is not None for state in running)
    assert jobs.state() == JobState()


def test_pausing_keeps_what_was_read_and_resuming_goes_on(library: Library, jobs: Jobs, album: Path) -> None:
    jobs.pause()
    jobs.add([str(album)])
    assert jobs.state().state == "paused"
    time.sleep(0.2)
    assert items(library) == 0
    jobs.resume()
    until(lambda: embedded(jobs) >= 2)
    jobs.pause()
    until(jobs.is_idle)
    assert jobs.state().state == "paused"
    kept = items(library)
    assert kept >= 2
    jobs.resume()
    until(jobs.is_idle)
    assert items(library) == 6


def test_what_is_wanted_merges(
    library: Library, jobs: Jobs, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(library.path, mode="write") as store:
        store.add_folder(str(album))
    runs = Runs(library, monkeypatch)
    jobs.pause()
    for _ in range(3):
        jobs.add([str(album)])
        jobs.changed([str(album / "1.jpg")])
        jobs.changed([str(album / "2.jpg"), str(album / "1.jpg")])
    jobs.resume()
    until(jobs.is_idle)
    changed = (str(album / "1.jpg"), str(album / "2.jpg"))
    assert runs.asked == [("index", (str(album),)), ("update", changed)]
    runs.asked.clear()
    jobs.pause()
    jobs.changed([str(album / "1.jpg")])
    jobs.start()  # everything holds what changed, too
    until(jobs.is_idle)
    assert runs.asked == [("index", ())]


def test_what_changes_while_indexing_is_paused_is_remembered_as_folders(
    library: Library, jobs: Jobs, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted, "MANY", 8)
    with Store.open(library.path, mode="write") as store:
        store.add_folder(str(album))
    runs = Runs(library, monkeypatch)
    jobs.pause()
    jobs.changed([str(album / "a" / f"{number}.jpg") for number in range(7)])
    jobs.changed([str(album / "b" / "1.jpg"), str(tmp_path / "elsewhere.jpg")])
    jobs.resume()
    until(jobs.is_idle)
    assert runs.asked == [("update", (str(album / "a"), str(album / "b")))]
    runs.asked.clear()
    jobs.pause()
    for number in range(100):
        jobs.changed([str(album / f"{number}" / "1.jpg")])
        assert len(jobs._wanted.changed) <= 8
    jobs.changed([str(album / f"{number}" / "1.jpg") for number in range(100)])
    jobs.resume()
    until(jobs.is_idle)
    assert runs.asked == [("update", (str(album),))]


def test_what_is_added_goes_before_a_long_run(
    library: Library, jobs: Jobs, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    with Store.open(library.path, mode="write") as store:
        store.add_folder(str(album))
    runs = Runs(library, monkeypatch)
    runs.held.clear()
    jobs.start()
    until(lambda: len(runs.asked) == 1)
    jobs.add([str(tmp_path / "new")])
    until(lambda: len(runs.asked) == 2)
    assert [folder.path for folder in library.folders()] == [str(album), str(tmp_path / "new")]
    runs.held.set()
    until(jobs.is_idle)
    assert runs.asked == [("index", ()), ("index", (str(tmp_path / "new"),)), ("index", ())]


def test_a_long_run_makes_room_for_what_changed(
    library: Library, jobs: Jobs, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_MAKES_ROOM_AFTER_S", 0.0)
    update = library.update
    updated: list[int] = []

    def noted(paths: Any, **options: Any) -> IndexReport:
        report = update(paths, **options)
        updated.append(items(library))
        return report

    monkeypatch.setattr(library, "update", noted)
    jobs.add([str(album)])
    until(lambda: embedded(jobs) >= 1)
    jobs.changed([str(album / "0.jpg")])
    until(jobs.is_idle)
    assert items(library) == 6
    assert len(updated) == 1
    assert updated[0] < 6


def test_a_run_is_not_ended_while_it_looks_around(
    library: Library, jobs: Jobs, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_MAKES_ROOM_AFTER_S", 0.0)
    index = library.index
    read: list[int] = []

    def noted(paths: Any = None, **options: Any) -> IndexReport:
        # Something happens before every look: a run that made room for it at once would read nothing, ever.
        jobs.changed([str(album / "0.jpg")])
        report = index(paths, **options)
        read.append(report.added)
        return report

    monkeypatch.setattr(library, "index", noted)
    jobs.add([str(album)])
    until(lambda: bool(read))
    jobs.stop()
    until(jobs.is_idle)
    assert read[0] > 0


def test_stop_forgets_what_was_wanted(
    library: Library, jobs: Jobs, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(library, monkeypatch)
    runs.held.clear()
    jobs.add([str(album)])
    until(lambda: len(runs.asked) == 1)
    jobs.stop()
    until(jobs.is_idle)
    assert len(runs.asked) == 1
    assert jobs.state().state == "idle"


def test_a_busy_library_is_tried_again_and_said(
    library: Library, jobs: Jobs, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_BUSY_RETRY_S", 0.3)
    with Store.open(library.path, mode="write"):
        jobs.add([str(album)])
        until(lambda: jobs.state().error is not None)
        state = jobs.state()
        assert "is indexing into this library" in str(state.error)
        assert state.retry_s is not None
    until(lambda: items(library) == 6)
    until(jobs.is_idle)
    assert jobs.state().error is None


def test_a_full_disk_is_tried_again_ever_later(
    library: Library,
    jobs: Jobs,
    album: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(jobs_module, "_FIRST_RETRY_S", 0.1)
    runs = Runs(library, monkeypatch)
    full = LibraryStorageError("library.db: the disk is full\nMore of it.")
    runs.errors = [full, full, full]
    jobs.add([str(album)])
    until(lambda: len(runs.asked) == 4)
    until(jobs.is_idle)
    assert [what for what, _ in runs.asked] == ["index"] * 4
    assert jobs.state() == JobState()
    said = [
        record.__dict__["reason"] for record in caplog.records if "did not end well" in record.getMessage()
    ]
    assert said == ["library.db: the disk is full"] * 3


def test_waiting_for_another_try_ends_when_somebody_asks(
    library: Library, jobs: Jobs, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(library, monkeypatch)
    runs.errors = [LibraryStorageError("library.db: the disk is full")]
    jobs.add([str(album)])
    until(lambda: jobs.state().error is not None)
    jobs.resume()
    until(jobs.is_idle)
    assert len(runs.asked) == 2


def test_a_bug_is_told_and_not_tried_again(
    library: Library, jobs: Jobs, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(library, monkeypatch)
    runs.errors = [ZeroDivisionError("never")]
    jobs.add([str(album)])
    until(jobs.is_idle)
    assert "ZeroDivisionError. This is a bug" in str(jobs.state().error)
    assert len(runs.asked) == 1


def test_a_folder_that_is_away_loses_nothing(library: Library, jobs: Jobs, album: Path) -> None:
    jobs.add([str(album)])
    until(lambda: items(library) == 6)
    until(jobs.is_idle)
    away = album.with_name("away")
    album.rename(away)
    jobs.start()
    jobs.changed([str(album), str(album / "1.jpg")])
    until(jobs.is_idle)
    assert items(library) == 6
    album.mkdir()  # a mount point without its disk
    jobs.start()
    jobs.changed([str(album / "1.jpg")])
    until(jobs.is_idle)
    assert items(library) == 6
    album.rmdir()
    shutil.copytree(away, album)
    (album / "1.jpg").unlink()
    jobs.changed([str(album)])
    until(jobs.is_idle)
    assert items(library) == 5


def test_a_folder_is_removed_while_it_is_indexed(
    library: Library, jobs: Jobs, album: Path, tmp_path: Path, media: Any
) -> None:
    for number in range(30):
        media.photo(tmp_path / "large" / f"{number}.jpg", (7 * number, 90, 160), seed=100 + number)
    jobs.add([str(album)])
    until(lambda: items(library) == 6)
    until(jobs.is_idle)
    jobs.add([str(tmp_path / "large")])
    until(lambda: embedded(jobs) >= 2)
    (large,) = [folder for folder in library.folders() if folder.path == str(tmp_path / "large")]
    jobs.remove_folder(large.id)
    until(jobs.is_idle)
    assert [folder.path for folder in library.folders()] == [str(album)]
    assert items(library) == 6
    assert len(list((tmp_path / "large").iterdir())) == 30


def test_a_folder_below_a_root_that_is_removed_makes_itself_no_root(
    library: Library, jobs: Jobs, album: Path, media: Any
) -> None:
    media.photo(album / "2020" / "inner.jpg", (90, 90, 160), seed=9)
    media.photo(album / "kept" / "inner.jpg", (10, 90, 160), seed=10)
    with Store.open(library.path, mode="write") as store:
        outer, _ = store.add_folder(str(album)), store.add_folder(str(album / "kept"))
    jobs.pause()
    jobs.add([str(album / "2020"), str(album / "kept")])
    jobs.remove_folder(outer.id)
    jobs.resume()
    until(jobs.is_idle)
    assert [folder.path for folder in library.folders()] == [str(album / "kept")]
    assert items(library) == 1


def test_a_folder_of_a_library_that_another_process_indexes_is_not_removed(
    library: Library, jobs: Jobs, album: Path
) -> None:
    jobs.add([str(album)])
    until(lambda: items(library) == 6)
    until(jobs.is_idle)
    (folder,) = library.folders()
    with Store.open(library.path, mode="write"), pytest.raises(LibraryBusyError):
        jobs.remove_folder(folder.id)
    assert items(library) == 6
    jobs.remove_folder(folder.id)
    assert items(library) == 0


def test_closing_ends_a_run_in_the_middle(library: Library, album: Path) -> None:
    jobs = Jobs(library)
    jobs.open()
    jobs.add([str(album)])
    until(lambda: embedded(jobs) >= 1)
    jobs.close()
    jobs.add([str(album)])  # too late
    kept = items(library)
    with Store.open(library.path, mode="write"):  # and the library is free
        pass
    assert kept < 6 or jobs.is_idle()


def test_what_is_indexed_is_found_while_indexing_goes_on(
    library: Library, jobs: Jobs, album: Path, media: Any
) -> None:
    for number in range(40):
        media.photo(album / f"more-{number}.jpg", (3 * number, 40, 160), seed=50 + number)
    jobs.add([str(album)])
    found: set[int] = set()
    while not jobs.is_idle():
        if items(library):
            found.add(len(library.search("red", limit=100, rerank=False).hits))
        time.sleep(0.5)
    assert len(library.search("red", limit=100, rerank=False).hits) == 46
    assert min(found) < 46


def test_a_server_indexes_behind_everything_else() -> None:
    settings = background_settings()
    assert settings.is_background
    assert settings.workers.is_background
    assert settings.batch_layers < IndexSettings().batch_layers
