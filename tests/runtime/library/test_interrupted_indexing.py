"""Indexing that is killed, and disks that fill up: the library stays whole and the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.errors import LibraryBusyError, LibraryStorageError
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.previews import Previews
from qvl_local.runtime.library.workers import WorkerSettings

# Writes often, so that a kill falls between transactions and into them.
INDEXING = """
import sys
from qvl_local.runtime import Library
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.previews import Previews
from qvl_local.runtime.library.workers import WorkerSettings
settings = IndexSettings(WorkerSettings(2), batch_layers=2, write_files=3)
with Library.open(sys.argv[1], model=sys.argv[2], settings=settings) as library:
    library.index([sys.argv[3]], progress=lambda step: print(step.stage, step.done, flush=True))
"""
COUNT = 30
SETTINGS = IndexSettings(WorkerSettings(1), batch_layers=2, write_files=3)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, media: Any) -> Path:
    folder = tmp_path_factory.mktemp("album")
    for seed in range(COUNT - 3):
        media.photo(folder / f"{seed:02}.jpg", (10 * seed % 255, 80, 120), seed=seed)
    for seed in range(3):
        media.video(folder / f"{5 * seed:02}.mp4", [((200, 30, 30), 2 + seed), ((30, 30, 200), 3)])
    return folder


def start(home: Path, model: str, album: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", INDEXING, str(home), model, str(album)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], done: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        stage, count = line.split()
        if stage == "embed" and int(count) >= done:
            return
    raise AssertionError("the indexer ended before it could be killed")


def check(home: Path) -> Counter[str]:
    """The names of what is in the library, after looking at the database itself."""
    connection = apsw.Connection(str(home / "library.db"))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    orphans = connection.execute(
        "SELECT count(*) FROM segment WHERE id NOT IN (SELECT segment_id FROM vector)"
    ).fetchall()
    assert orphans == [(0,)]
    connection.close()
    with Library.open(home) as library:
        if library.status().counts.items == 0:
            return Counter()
        return Counter(Path(hit.path).name for hit in library.search("x", limit=1000, rerank=False).hits)


@pytest.mark.parametrize("moment", [1, 9, 20])
def test_a_killed_indexer_loses_and_doubles_nothing(
    tmp_path: Path, album: Path, tiny_bundle: str, moment: int
) -> None:
    home = tmp_path / "library"
    process = start(home, tiny_bundle, album)
    wait_for(process, moment)
    process.kill()
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    before = check(home)
    assert set(before.values()) <= {1}
    assert moment - 6 <= len(before) < COUNT  # at most the open batch is lost
    with Library.open(home, settings=SETTINGS, model=tiny_bundle) as library:
        report = library.index([album])
    assert (report.items, report.photos, report.videos) == (COUNT, COUNT - 3, 3)
    assert (report.added, report.unchanged) == (COUNT - len(before), len(before))
    after = check(home)
    assert len(after) == COUNT
    assert set(after.values()) == {1}


@pytest.mark.skipif("os.name != 'posix'", reason="signals of POSIX systems")
def test_ctrl_c_ends_the_run_and_keeps_what_was_read(tmp_path: Path, album: Path, tiny_bundle: str) -> None:
    home = tmp_path / "library"
    process = start(home, tiny_bundle, album)
    wait_for(process, 6)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    process.stdout.close()  # type: ignore[union-attr]
    assert 6 <= len(check(home)) < COUNT


def test_another_process_may_read_but_not_index(tmp_path: Path, album: Path, tiny_bundle: str) -> None:
    home = tmp_path / "library"
    process = start(home, tiny_bundle, album)
    wait_for(process, 4)
    os.kill(process.pid, signal.SIGSTOP)  # it stays in the middle of its run
    with Library.open(home, model=tiny_bundle, settings=SETTINGS) as library:
        with pytest.raises(LibraryBusyError, match=f"process {process.pid}"):
            library.index([album])
        assert library.status().counts.items > 0
        assert library.search("x", limit=3).hits
    process.kill()
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    with Library.open(home, model=tiny_bundle, settings=SETTINGS) as library:
        assert library.index([album]).items == COUNT  # the lock went with its owner


def test_a_full_disk_leaves_the_library_whole(
    tmp_path: Path, album: Path, tiny_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "library"
    original = Previews.open.__func__  # type: ignore[attr-defined]

    def open_on_a_small_disk(cls: type[Previews], folder: Path, *, mode: Any = "read") -> Previews:
        previews: Previews = original(cls, folder, mode=mode)
        if mode == "write":
            # SQLite says "database or disk is full" at this size, as it does when the system says so.
            connection = previews._connection
            assert connection is not None
            pages = connection.execute("PRAGMA page_count").fetchall()[0][0]
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        return previews

    with Library.open(home, model=tiny_bundle, settings=SETTINGS) as library:
        library.index([album / "00.jpg"])
        with monkeypatch.context() as patch:
            patch.setattr(Previews, "open", classmethod(open_on_a_small_disk))
            with pytest.raises(LibraryStorageError, match="disk is full"):
                library.index([album])
        kept = check(home)
        assert set(kept.values()) == {1}
        assert 1 <= len(kept) < COUNT
        assert library.search("x").hits
        assert library.index([album]).items == COUNT
    assert len(check(home)) == COUNT
