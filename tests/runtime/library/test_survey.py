"""What is to be read and what is gone, for whole folders and for files that were named one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.library.records import FoundFile, KnownFile, Space
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.survey import known_places, survey


@pytest.fixture
def space(store: Store, make: Any) -> Space:
    return store.space(make.identity())


def index(store: Store, make: Any, space: Space, *paths: Path) -> None:
    """Do what an indexer would do with what a survey finds."""
    for todo in survey(store, space, [str(path) for path in paths]).todo:
        photo = make.photo(todo.file.folder_id, todo.file.name)
        store.write([type(photo)(todo.file, photo.content_hash, photo.info, photo.segments)], space)


def files(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return paths


def names(found: tuple[KnownFile, ...]) -> list[str]:
    return sorted(file.name for file in found)


def test_single_files_do_not_read_their_folder_each(
    store: Store, make: Any, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    album = files(tmp_path / "album", *(f"{number}.jpg" for number in range(9)))
    index(store, make, space, *album)
    read: list[int] = []
    known = Store.known

    def counted(self: Store, folder_id: int, space: Space) -> Iterator[KnownFile]:
        read.append(folder_id)
        return known(self, folder_id, space)

    monkeypatch.setattr(Store, "known", counted)
    album[3].unlink()
    album[4].write_bytes(b"longer than before")
    found = survey(store, space, [str(path) for path in album])
    assert (found.unchanged, names(found.gone)) == (7, ["3.jpg"])
    assert [(Path(todo.path), todo.known is not None) for todo in found.todo] == [(album[4], True)]
    assert read == []
    assert len(known_places(store, space)) == 9
    assert len(read) == 1


def test_subfolders_of_a_root_read_it_once(
    store: Store, make: Any, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    files(root, "a/1.jpg", "a/2.jpg", "a b/3.jpg", "a.jpg", "a0/4.jpg", "b/5.jpg")
    index(store, make, space, root)
    read: list[int] = []
    known = Store.known

    def counted(self: Store, folder_id: int, space: Space) -> Iterator[KnownFile]:
        read.append(folder_id)
        return known(self, folder_id, space)

    monkeypatch.setattr(Store, "known", counted)
    for name in ("a/2.jpg", "a b/3.jpg", "a.jpg", "b/5.jpg"):
        (root / name).unlink()
    found = survey(store, space, [str(root / "a"), str(root / "b")])
    assert (found.unchanged, names(found.gone)) == (1, ["a/2.jpg", "b/5.jpg"])
    assert len(read) == 1
    assert names(survey(store, space, [str(root)]).gone) == ["a b/3.jpg", "a.jpg", "a/2.jpg", "b/5.jpg"]


def test_a_file_known_under_an_outer_root_moves_to_the_inner_one(
    store: Store, make: Any, space: Space, tmp_path: Path
) -> None:
    (path,) = files(tmp_path / "outer", "inner/a.jpg")
    index(store, make, space, tmp_path / "outer")
    store.add_folder(str(path.parent))
    found = survey(store, space, [str(path)])
    assert names(found.gone) == ["inner/a.jpg"]
    assert [todo.file.name for todo in found.todo] == ["a.jpg"]


def test_single_files_on_an_unplugged_disk_are_kept(
    store: Store, make: Any, space: Space, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    album = files(disk, "a.jpg", "b.jpg")
    index(store, make, space, *album)
    for path in album:
        path.unlink()  # the mount point is left behind, and empty
    (disk / ".fseventsd").touch()
    found = survey(store, space, known_places(store, space))
    assert found.gone == ()
    (failure,) = found.failures
    assert failure.path == str(disk)
    assert "its 2 known files are kept" in failure.error
    assert f"qvl-local remove {disk} " in failure.error
    files(disk, "another.jpg")  # the disk is there
    assert names(survey(store, space, known_places(store, space)).gone) == ["a.jpg", "b.jpg"]


def test_a_file_of_the_survey_is_the_one_on_disk(
    store: Store, make: Any, space: Space, tmp_path: Path
) -> None:
    (path,) = files(tmp_path / "album", "a.jpg")
    (todo,) = survey(store, space, [str(path)]).todo
    status = path.stat()
    (folder,) = store.folders()
    assert not folder.is_whole
    assert todo.file == FoundFile(folder.id, "a.jpg", status.st_size, status.st_mtime_ns)
    assert todo.known is None


def test_a_link_that_is_named_stands_for_its_file(
    store: Store, make: Any, space: Space, tmp_path: Path
) -> None:
    (photo,) = files(tmp_path / "album", "a.jpg")
    link = tmp_path / "desk" / "favourite.jpg"
    link.parent.mkdir()
    link.symlink_to(photo)
    index(store, make, space, link)
    assert known_places(store, space) == (str(photo),)
    index(store, make, space, photo.parent)
    found = survey(store, space, [str(link), str(photo.parent)])
    assert (found.todo, found.unchanged, found.gone) == ((), 1, ())


def test_links_that_were_items_of_their_own_go(store: Store, make: Any, space: Space, tmp_path: Path) -> None:
    root, desk = tmp_path / "root", tmp_path / "desk"
    files(root, "a.jpg", "link.jpg")
    files(desk, "b.jpg")
    index(store, make, space, root, desk / "b.jpg")
    for link in (root / "link.jpg", desk / "b.jpg"):
        link.unlink()
        link.symlink_to(root / "a.jpg")
    found = survey(store, space, known_places(store, space))
    assert (found.todo, found.unchanged) == ((), 1)
    assert names(found.gone) == ["b.jpg", "link.jpg"]
