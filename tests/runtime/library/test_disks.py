"""Disks below the roots that are unplugged and come back, told from files that somebody deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.library import devices, scanner
from qvl_local.runtime.library import disks as disks_module
from qvl_local.runtime.library import survey as survey_module
from qvl_local.runtime.library.home import DATABASE
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.records import Mount, Space
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.survey import Survey, survey
from qvl_local.runtime.library.workers import WorkerSettings


class PretendedDisks:
    """Stands in for mounting, which only root may do: folders that are said to lie on devices of their own.

    Unplugging moves what a disk holds aside and leaves the empty folder, or none.
    """

    def __init__(self, aside: Path) -> None:
        self._aside = aside
        self._mounted: list[Path] = []

    def plug(self, folder: Path) -> None:
        away = self._aside / folder.name
        if away.exists():
            shutil.rmtree(folder, ignore_errors=True)
            away.rename(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._mounted.append(folder)

    def unplug(self, folder: Path, *, leave: bool = True) -> None:
        self._mounted.remove(folder)
        self._aside.mkdir(exist_ok=True)
        folder.rename(self._aside / folder.name)
        if leave:
            folder.mkdir()

    def device_of(self, path: str) -> int:
        device = Path(path).stat().st_dev
        own = [number for number, disk in enumerate(self._mounted) if Path(path).is_relative_to(disk)]
        return -1 - max(own, key=lambda number: len(str(self._mounted[number]))) if own else device


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedDisks:
    disks = PretendedDisks(tmp_path / "aside")
    for module in (devices, scanner):
        monkeypatch.setattr(module, "device_of", disks.device_of)
    return disks


@pytest.fixture
def space(store: Store, make: Any) -> Space:
    return store.space(make.identity())


@pytest.fixture
def look(store: Store, make: Any, space: Space) -> Callable[..., Survey]:
    """Does what an indexer would do with what a survey finds, and returns it."""

    def looked(*paths: Path, changes: bool = False) -> Survey:
        found = survey(store, space, [str(path) for path in paths], changes=changes)
        for todo in found.todo:
            photo = make.photo(todo.file.folder_id, todo.file.name)
            store.write([type(photo)(todo.file, photo.content_hash, photo.info, photo.segments)], space)
        store.remove(file.media_id for file in found.gone)
        return found

    return looked


@pytest.fixture
def root(tmp_path: Path, disks: PretendedDisks, look: Callable[..., Survey]) -> Path:
    """A root with 1.jpg and a disk at `disk` that holds 2.jpg, sub/3.jpg, and the raw file of 2.jpg."""
    root = tmp_path / "root"
    disks.plug(root / "disk")
    for name in ("1.jpg", "disk/2.jpg", "disk/2.cr2", "disk/sub/3.jpg", "plain/4.jpg"):
        write(root / name)
    assert names(look(root)) == []
    return root


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name, encoding="utf-8")
    return path


def names(found: Survey) -> list[str]:
    """What is gone."""
    return sorted(file.name.replace(os.sep, "/") for file in found.gone)


def raws(store: Store) -> int:
    with store.reading() as connection:
        (row,) = connection.execute("SELECT count(*) FROM raw")
    return int(row[0])


@pytest.mark.parametrize("leave", [True, False])
@pytest.mark.parametrize("named", [".", "disk/2.jpg", "disk", "disk/sub"])
def test_what_a_disk_below_a_root_held_is_kept_while_it_is_away(
    store: Store, look: Callable[..., Survey], disks: PretendedDisks, root: Path, leave: bool, named: str
) -> None:
    disks.unplug(root / "disk", leave=leave)
    found = look(root / named, changes=named != ".")
    assert (found.gone, found.todo) == ((), ())
    (failure,) = found.failures
    assert failure.path == str(root / "disk")
    assert "its 2 known files are kept" in failure.error
    assert f"qvl-local remove {root / 'disk'} --library {store.folder}" in failure.error
    assert store.mounts() == (Mount(1, str(root / "disk"), is_away=True),)
    assert raws(store) == 1


def test_a_disk_that_is_back_is_as_it_was(
    store: Store, look: Callable[..., Survey], disks: PretendedDisks, root: Path
) -> None:
    disks.unplug(root / "disk")
    look(root)
    disks.plug(root / "disk")
    (root / "disk" / "sub" / "3.jpg").unlink()
    found = look(root)
    assert (names(found), found.todo, found.failures) == (["disk/sub/3.jpg"], (), ())
    assert store.mounts() == (Mount(1, str(root / "disk")),)


def test_what_is_written_into_the_mount_point_of_a_disk_that_is_away_is_not_read(
    look: Callable[..., Survey], disks: PretendedDisks, root: Path
) -> None:
    disks.unplug(root / "disk")
    stray = write(root / "disk" / "stray.jpg")
    write(root / "5.jpg")
    found = look(root)
    assert (names(found), [todo.path for todo in found.todo]) == ([], [str(root / "5.jpg")])
    assert look(stray, changes=True).todo == ()
    assert names(look(root)) == []


def test_a_disk_whose_files_were_copied_into_its_folder_is_one_no_more(
    store: Store, look: Callable[..., Survey], disks: PretendedDisks, root: Path
) -> None:
    disks.unplug(root / "disk")
    assert names(look(root)) == []
    write(root / "disk" / "sub" / "3.jpg")
    assert names(look(root)) == ["disk/2.jpg"]
    assert store.mounts() == ()


def test_a_folder_that_was_no_disk_may_be_deleted_or_emptied(
    look: Callable[..., Survey], root: Path, disks: PretendedDisks
) -> None:
    (root / "plain" / "4.jpg").unlink()
    assert names(look(root / "plain", changes=True)) == ["plain/4.jpg"]
    shutil.rmtree(root / "disk" / "sub")  # on a disk that is there
    found = look(root)
    assert (names(found), found.failures) == (["disk/sub/3.jpg"], ())
    (root / "disk" / "2.jpg").unlink()
    assert names(look(root / "disk" / "2.jpg", changes=True)) == ["disk/2.jpg"]


def test_what_was_removed_by_name_is_kept_no_longer(
    store: Store, look: Callable[..., Survey], disks: PretendedDisks, root: Path
) -> None:
    disks.unplug(root / "disk")
    look(root)
    store.remove([file.media_id for file in store.known_below(1, "disk", store.spaces()[0])])
    found = look(root)
    assert (found.gone, found.failures, store.mounts()) == ((), (), ())


def test_a_root_that_is_removed_takes_its_mount_points_along(
    store: Store, look: Callable[..., Survey], root: Path
) -> None:
    assert store.mounts()
    store.remove_folder(1)
    assert store.mounts() == ()


def test_a_disk_that_has_nothing_to_do_with_a_change_is_not_looked_at(
    look: Callable[..., Survey], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(path: str) -> bool:
        assert not Path(path).is_relative_to(root / "disk")
        return False

    monkeypatch.setattr(disks_module, "is_mount_point", hangs)
    (root / "plain" / "4.jpg").unlink()
    assert names(look(root / "plain" / "4.jpg", changes=True)) == ["plain/4.jpg"]


def test_a_disk_at_a_root_is_away_also_when_something_lies_in_its_folder(
    store: Store, look: Callable[..., Survey], disks: PretendedDisks, tmp_path: Path
) -> None:
    root = tmp_path / "stick"
    disks.plug(root)
    write(root / "1.jpg")
    look(root)
    disks.unplug(root)
    write(root / "stray.jpg")
    found = look(root)
    assert (found.gone, found.todo) == ((), ())
    assert [failure.path for failure in found.failures] == [str(root)]


def test_a_disk_that_came_later_is_known_from_the_first_change_on_it(
    store: Store, look: Callable[..., Survey], disks: PretendedDisks, root: Path
) -> None:
    disks.plug(root / "late")
    look(write(root / "late" / "a" / "6.jpg"), changes=True)
    disks.unplug(root / "late", leave=False)
    assert names(look(root)) == []
    assert Mount(1, str(root / "late"), is_away=True) in store.mounts()


def test_an_inner_root_on_a_disk_is_kept_with_it(
    store: Store, look: Callable[..., Survey], disks: PretendedDisks, root: Path
) -> None:
    store.add_folder(str(root / "disk" / "sub"))
    look(root)
    disks.unplug(root / "disk")
    found = look(root, root / "disk" / "sub")
    assert names(found) == []
    assert "its 2 known files are kept" in found.failures[0].error


def test_a_disk_that_goes_while_it_is_looked_at_loses_nothing(
    look: Callable[..., Survey], disks: PretendedDisks, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_visible = scanner.find_visible

    def unplugged_first(*args: Any) -> Any:
        disks.unplug(root / "disk")
        return find_visible(*args)

    monkeypatch.setattr(survey_module, "find_visible", unplugged_first)
    found = look(root / "disk" / "2.jpg", changes=True)
    assert names(found) == []
    assert [failure.path for failure in found.failures] == [str(root / "disk")]


def test_a_disk_that_comes_while_it_is_looked_at_loses_nothing(
    look: Callable[..., Survey], disks: PretendedDisks, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks.unplug(root / "disk")
    find_visible = scanner.find_visible

    def plugged_then(*args: Any) -> Any:
        try:
            return find_visible(*args)
        finally:
            disks.plug(root / "disk")

    monkeypatch.setattr(survey_module, "find_visible", plugged_then)
    found = look(root / "disk" / "2.jpg", changes=True)
    assert names(found) == []
    assert "while its folder was looked at" in found.failures[0].error


def test_a_root_that_goes_while_a_change_in_it_is_looked_at_loses_nothing(
    look: Callable[..., Survey], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_visible = scanner.find_visible

    def away_first(*args: Any) -> Any:
        if root.exists():
            root.rename(root.with_name("away"))
        return find_visible(*args)

    monkeypatch.setattr(survey_module, "find_visible", away_first)
    found = look(root / "1.jpg", root / "plain" / "4.jpg", changes=True)
    assert names(found) == []
    assert str(root) in [failure.path for failure in found.failures]


def test_a_library_that_is_older_than_this_learns_of_its_disks_with_the_next_look(
    home: Path, make: Any, disks: PretendedDisks, tmp_path: Path
) -> None:
    write(tmp_path / "root" / "disk" / "1.jpg")
    disks.plug(tmp_path / "root" / "disk")
    with Store.open(home, mode="write") as store:
        store.space(make.identity())
        store.add_folder(str(tmp_path / "root"))
    connection = apsw.Connection(str(home / DATABASE))
    connection.execute("DROP TABLE mount; DELETE FROM migration WHERE name = '0004-mounts'")
    connection.close()
    with Store.open(home, mode="write") as store:
        assert store.mounts() == ()
        survey(store, store.spaces()[0], [str(tmp_path / "root")])
        assert store.mounts() == (Mount(1, str(tmp_path / "root" / "disk")),)


def test_the_status_names_the_disks_that_are_away(
    disks: PretendedDisks, tmp_path: Path, tiny_bundle: str, media: Any
) -> None:
    media.photo(tmp_path / "album" / "red.jpg", (200, 30, 30))
    disks.plug(tmp_path / "album" / "disk")
    media.photo(tmp_path / "album" / "disk" / "blue.jpg", (30, 30, 200), seed=1)
    settings = IndexSettings(WorkerSettings(1))
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=settings) as library:
        library.index([tmp_path / "album"])
        assert library.status().away == ()
        disks.unplug(tmp_path / "album" / "disk")
        report = library.index()
        assert (report.items, report.removed) == (2, 0)
        assert [failure.path for failure in report.failed] == [str(tmp_path / "album" / "disk")]
        assert library.status().away == (str(tmp_path / "album" / "disk"),)
        assert library.remove([tmp_path / "album" / "disk"]) == 1
        assert library.index().failed == ()
        assert library.status().away == ()
