"""Places below the roots where something happened: looked at alone, as a walk of the whole root would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.library import indexing
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.records import KnownFile, Space
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.survey import survey
from qvl_local.runtime.library.workers import WorkerSettings

SETTINGS = IndexSettings(WorkerSettings(1))


@pytest.fixture
def space(store: Store, make: Any) -> Space:
    return store.space(make.identity())


@pytest.fixture
def root(tmp_path: Path, store: Store, make: Any, space: Space) -> Path:
    """A root that is known as it is: a/1.jpg, a/b/2.jpg, 3.jpg."""
    root = tmp_path / "root"
    for name in ("a/1.jpg", "a/b/2.jpg", "3.jpg"):
        write(root / name)
    for todo in survey(store, space, [str(root)]).todo:
        photo = make.photo(todo.file.folder_id, todo.file.name)
        store.write([type(photo)(todo.file, photo.content_hash, photo.info, photo.segments)], space)
    return root


def write(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or path.name, encoding="utf-8")
    return path


def changes(store: Store, space: Space, *paths: Path) -> tuple[list[str], list[str]]:
    """Names to read and names that are gone."""
    found = survey(store, space, [str(path) for path in paths], changes=True)
    assert found.failures == ()
    return sorted(todo.file.name for todo in found.todo), names(found.gone)


def names(files: tuple[KnownFile, ...]) -> list[str]:
    return sorted(file.name.replace(os.sep, "/") for file in files)


def test_only_what_changed_is_read(
    store: Store, space: Space, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, changed = write(root / "a" / "4.jpg"), write(root / "3.jpg", "something longer")
    (root / "a" / "1.jpg").unlink()
    write(root / "a" / "b" / "unseen.jpg")

    def whole(*_: Any) -> Iterator[KnownFile]:
        raise AssertionError("the whole root was read")

    monkeypatch.setattr(Store, "known", whole)
    read, gone = changes(store, space, new, changed, root / "a" / "1.jpg")
    assert (read, gone) == (["3.jpg", str(Path("a", "4.jpg"))], ["a/1.jpg"])


def test_a_folder_that_is_gone_takes_its_files_along(store: Store, space: Space, root: Path) -> None:
    shutil.rmtree(root / "a")
    assert changes(store, space, root / "a") == ([], ["a/1.jpg", "a/b/2.jpg"])
    assert changes(store, space, root / "a" / "b") == ([], ["a/b/2.jpg"])


def test_a_folder_that_came_is_walked(store: Store, space: Space, root: Path) -> None:
    write(root / "new" / "deep" / "5.jpg")
    assert changes(store, space, root / "new") == ([str(Path("new", "deep", "5.jpg"))], [])


@pytest.mark.parametrize(
    "name", [".hidden.jpg", ".cache/x.jpg", "@eaDir/x.jpg", "notes.txt", "a/b/node_modules/x.jpg"]
)
def test_what_a_walk_would_pass_over_is_passed_over(
    store: Store, space: Space, root: Path, name: str
) -> None:
    assert changes(store, space, write(root / name)) == ([], [])


def test_rules_from_above_hold(store: Store, space: Space, root: Path) -> None:
    write(root / ".qvlignore", "b/\n*.png\n")
    write(root / "a" / "new" / "6.png")
    write(root / "a" / "new" / "7.jpg")
    kept = str(Path("a", "new", "7.jpg"))
    assert changes(store, space, root / "a" / "new") == ([kept], [])
    assert changes(store, space, write(root / "a" / "8.png"), write(root / "a" / "b" / "9.jpg")) == ([], [])
    assert changes(store, space, root / "a" / "b") == ([], ["a/b/2.jpg"])
    assert changes(store, space, root) == ([str(Path("a", "new", "7.jpg"))], ["a/b/2.jpg"])


def test_nothing_is_gone_from_a_root_that_is_away(store: Store, space: Space, root: Path) -> None:
    away = root.with_name("away")
    root.rename(away)
    found = survey(store, space, [str(root / "a"), str(root / "3.jpg")], changes=True)
    assert (found.gone, found.todo) == ((), ())
    assert [failure.path for failure in found.failures] == [str(root)]
    root.mkdir()  # a mount point without its disk
    (root / ".fseventsd").touch()
    found = survey(store, space, [str(root / "a"), str(root / "3.jpg")], changes=True)
    assert (found.gone, found.todo) == ((), ())
    assert "known files are kept" in found.failures[0].error


def test_what_lies_outside_of_the_roots_is_nobodys_business(
    store: Store, space: Space, root: Path, tmp_path: Path
) -> None:
    assert changes(store, space, write(tmp_path / "elsewhere" / "x.jpg"), tmp_path) == ([], [])
    assert [folder.path for folder in store.folders()] == [str(root)]


def test_of_a_root_of_single_files_only_those_count(
    store: Store, make: Any, space: Space, tmp_path: Path
) -> None:
    one = write(tmp_path / "some" / "one.jpg")
    (todo,) = survey(store, space, [str(one)]).todo
    photo = make.photo(todo.file.folder_id, todo.file.name)
    store.write([type(photo)(todo.file, photo.content_hash, photo.info, photo.segments)], space)
    other = write(tmp_path / "some" / "other.jpg")
    write(one, "changed by now")
    assert changes(store, space, one, other) == (["one.jpg"], [])
    assert changes(store, space, one.parent) == (["one.jpg"], [])


def test_a_link_that_leaves_the_root_is_not_followed(
    store: Store, space: Space, root: Path, tmp_path: Path
) -> None:
    outside = write(tmp_path / "outside" / "secret.jpg")
    (root / "link.jpg").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "twin.jpg").symlink_to(root / "3.jpg")
    found = changes(store, space, root / "link.jpg", root / "folder", root / "folder" / "secret.jpg")
    assert found == ([], [])
    assert changes(store, space, root / "twin.jpg") == ([], [])


@pytest.fixture
def opened(tmp_path: Path, tiny_bundle: str) -> Iterator[Callable[[], Library]]:
    libraries: list[Library] = []

    def opener() -> Library:
        libraries.append(Library.open(tmp_path / "library", model=tiny_bundle, settings=SETTINGS))
        return libraries[-1]

    yield opener
    for library in libraries:
        library.close()


def test_a_library_follows_changes_without_embedding_what_moved(
    opened: Callable[[], Library], media: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    album = tmp_path / "album"
    media.photo(album / "red.jpg", (200, 30, 30))
    media.photo(album / "sub" / "blue.jpg", (30, 30, 200), seed=1)
    library = opened()
    library.index([album])
    (album / "sub").rename(album / "renamed")
    (album / "red.jpg").unlink()
    # Nothing may be decoded: what moved keeps its vectors.
    monkeypatch.setattr(indexing, "embed_behind", lambda *_, **__: lambda inputs: pytest.fail("embedded"))
    report = library.update([album / "sub", album / "renamed", album / "red.jpg"])
    assert (report.items, report.updated, report.removed) == (1, 1, 1)
    assert library.knows(album / "renamed" / "blue.jpg")
    hit = library.search("blue", rerank=False).hits[0]
    assert library.thumbnail(hit.media_id) is not None


def test_pictures_of_what_is_gone_are_dropped_and_others_kept(
    opened: Callable[[], Library], media: Any, tmp_path: Path
) -> None:
    album = tmp_path / "album"
    media.photo(album / "red.jpg", (200, 30, 30))
    shutil.copy(album / "red.jpg", album / "twin.jpg")
    media.photo(album / "blue.jpg", (30, 30, 200), seed=1)
    library = opened()
    library.index([album])
    (album / "blue.jpg").unlink()
    (album / "twin.jpg").unlink()
    assert library.update([album / "blue.jpg", album / "twin.jpg"]).removed == 2
    with Store.open(tmp_path / "library") as store:
        (hit,) = library.search("red", rerank=False).hits
        assert store.media(hit.media_id) is not None
    previews = library._files.pictures()
    row = previews._connection.execute("SELECT count(*) FROM thumbnail").fetchone()  # type: ignore[union-attr]
    assert row == (1,)
