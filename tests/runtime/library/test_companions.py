"""A Live Photo and a photo with its raw file are one item, whatever order their files came in."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.library.browse import browse
from qvl_local.runtime.library.home import DATABASE
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.migrations import MIGRATIONS
from qvl_local.runtime.library.records import Companion, Filters, FoundFile, IndexedMedia
from qvl_local.runtime.library.search import find
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.survey import survey
from qvl_local.runtime.library.workers import WorkerSettings


def film(make: Any, folder_id: int, name: str, *, seconds: float = 2.8, vector: Any = None) -> IndexedMedia:
    media: IndexedMedia = make.video(folder_id, name, make.vectors(1) if vector is None else [vector])
    return replace(media, info=replace(media.info, duration_s=seconds))


def shown(store: Store, **filters: Any) -> list[str]:
    return sorted(item.name for item in browse(store, filters=Filters(**filters)).items)


def test_a_live_photo_is_one_item_in_every_order_of_writing(home: Path, make: Any) -> None:
    for number, order in enumerate(permutations(range(3))):
        with Store.open(home / str(number), mode="write") as store:
            folder, space = store.add_folder("/p"), store.space(make.identity())
            files = [
                make.photo(folder.id, "d/IMG_1.HEIC"),
                make.photo(folder.id, "d/IMG_1.JPG"),
                film(make, folder.id, "d/IMG_1.MOV"),
            ]
            ids = dict(zip(order, [store.write([files[at]], space)[0] for at in order]))
            assert shown(store) == ["IMG_1.HEIC", "IMG_1.JPG"]
            assert store.companions(ids.values()) == {ids[0]: (Companion("live", "IMG_1.MOV", ids[2]),)}
            assert store.shown_as(ids[2]) == ids[0]
            counts = store.counts()
            assert (counts.items, counts.photos, counts.videos, counts.segments) == (2, 2, 0, 3)
            assert store.folder_counts() == {folder.id: 2}
            assert store.remove(ids.values()) == 2


@pytest.mark.parametrize(
    ("still", "moving", "seconds"),
    [
        ("d/IMG_1.HEIC", "d/IMG_1.MOV", 4.5),
        ("d/IMG_1.HEIC", "e/IMG_1.MOV", 2.0),
        ("d/IMG_1.HEIC", "d/IMG_10.MOV", 2.0),
        ("d/IMG_1.HEIC", "d/IMG_1.edited.MOV", 2.0),
        ("d/IMG_1.PNG", "d/IMG_1.MOV", 2.0),
        ("d/IMG_1.HEIC", "d/IMG_1.MKV", 2.0),
    ],
)
def test_what_only_looks_like_a_live_photo_is_two_items(
    store: Store, make: Any, still: str, moving: str, seconds: float
) -> None:
    folder, space = store.add_folder("/p"), store.space(make.identity())
    store.write([make.photo(folder.id, still), film(make, folder.id, moving, seconds=seconds)], space)
    assert browse(store).total == 2


def test_pairs_follow_moves_failures_and_removals(store: Store, make: Any) -> None:
    folder, space = store.add_folder("/p"), store.space(make.identity())
    still, moving = store.write([make.photo(folder.id, "a.jpg"), film(make, folder.id, "a.mov")], space)
    store.rename(still, FoundFile(folder.id, "b.jpg", 100, 1))
    assert shown(store) == ["a.mov", "b.jpg"]
    store.rename(moving, FoundFile(folder.id, "b.mov", 100, 1))
    assert shown(store) == ["b.jpg"]
    copied = store.copy(moving, FoundFile(folder.id, "c.mov", 100, 1))
    assert shown(store) == ["b.jpg", "c.mov"]
    store.copy(still, FoundFile(folder.id, "c.jpg", 100, 1))
    assert store.shown_as(copied) != copied
    assert shown(store) == ["b.jpg", "c.jpg"]
    store.write([make.failed(folder.id, "b.jpg")], space)
    assert shown(store) == ["b.mov", "c.jpg"]
    store.remove([store.shown_as(copied)])
    assert shown(store) == ["b.mov", "c.mov"]


def test_a_hit_in_the_film_is_shown_as_the_photo(store: Store, make: Any) -> None:
    folder, space = store.add_folder("/p"), store.space(make.identity())
    query, *others = make.vectors(40)
    still, moving, *_ = store.write(
        [
            make.photo(folder.id, "a.jpg", -query),
            film(make, folder.id, "a.mov", vector=query),
            *(make.photo(folder.id, f"{n}.png", vector) for n, vector in enumerate(others)),
        ],
        space,
    )
    (hit,) = find(store, query, limit=1).result().hits
    assert (hit.media_id, hit.kind, hit.start_s) == (still, "photo", None)
    assert hit.embedding_score == pytest.approx(1, abs=0.01)
    assert hit.companions == (Companion("live", "a.mov", moving),)
    every = find(store, query, limit=100).result().hits
    assert sorted(h.media_id for h in every) == sorted(m for m in range(1, 42) if m != moving)
    (only,) = find(store, query, limit=1, filters=Filters(kind="photo")).result().hits
    assert (only.media_id, only.embedding_score) == (still, pytest.approx(1, abs=0.01))
    assert find(store, query, filters=Filters(kind="video")).result().hits == ()
    for excluded in (still, moving):
        assert still not in {h.media_id for h in find(store, query, exclude=excluded).result().hits}


def test_pairs_of_an_older_library_are_found_when_it_is_opened(home: Path, make: Any) -> None:
    files = (
        "a.HEIC",
        "a.JPG",
        "a.MOV",
        "b.jpeg",
        "b.mp4",
        "long.jpg",
        "long.mov",
        "x\udcff.jpg",
        "x\udcff.mov",
    )
    with Store.open(home, mode="write") as store:
        folder, space = store.add_folder("/p"), store.space(make.identity())
        for name in files:
            is_film = name.lower().endswith(("mov", "mp4"))
            seconds = 60.0 if name.startswith("long") else 2.0
            one = film(make, folder.id, name, seconds=seconds) if is_film else make.photo(folder.id, name)
            store.write([one], space)
        now = {name: store.shown_as(at) for at, name in enumerate(files, start=1)}
        assert now["a.MOV"] == 1
        assert now["b.mp4"] == 4
        assert now["x\udcff.mov"] == 8
    undo(home)
    with Store.open(home) as store:
        then = {name: store.shown_as(at) for at, name in enumerate(files, start=1)}
    # Only a name that is no text waits for its file to change.
    assert then == now | {"x\udcff.mov": 9}


def undo(home: Path) -> None:
    """Take a library back to the schema before companions."""
    import apsw

    later = [migration.name for migration in MIGRATIONS if migration.name >= "0003"]
    connection = apsw.Connection(str(home / DATABASE))
    for name in ("media_shown_by", "media_shown", "media_place"):
        connection.execute(f"DROP INDEX {name}")
    connection.execute("ALTER TABLE media DROP COLUMN shown_by; DROP TABLE raw; DROP TABLE mount")
    connection.executemany("DELETE FROM migration WHERE name = ?", [(name,) for name in later])
    connection.close()


def test_filters_ask_the_photo_and_never_its_film(store: Store, make: Any) -> None:
    from datetime import datetime

    folder, space = store.add_folder("/p"), store.space(make.identity())
    query = make.vectors(1)[0]
    moving = film(make, folder.id, "a.mov", vector=query)
    moving = replace(moving, info=replace(moving.info, taken_at=datetime(2024, 1, 2)))
    store.write([make.photo(folder.id, "a.jpg", -query, taken_at=datetime(2024, 1, 1)), moving], space)
    late, early = Filters(after=datetime(2024, 1, 2)), Filters(before=datetime(2024, 1, 2))
    assert find(store, query, filters=late).result().hits == ()
    (hit,) = find(store, query, filters=early).result().hits
    assert np.isclose(hit.embedding_score, 1, atol=0.01)


def indexed(store: Store, root: Path, make: Any, *, changes: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The raw files of each photo after a run over `root`, or over what changed in it."""
    space = store.space(make.identity())
    paths = [str(root / name) for name in changes] if changes else [str(root)]
    found = survey(store, space, paths, changes=bool(changes))
    store.remove([file.media_id for file in found.gone])
    files = [todo.file for todo in found.todo]
    photos = [make.photo(file.folder_id, file.name, mtime_ns=file.mtime_ns) for file in files]
    store.write([replace(photo, file=file) for photo, file in zip(photos, files)], space)
    items = browse(store, limit=1000).items
    return {item.name: [companion.name for companion in item.companions] for item in items}


def test_raw_files_beside_a_photo_are_its_companions(store: Store, make: Any, tmp_path: Path) -> None:
    album = tmp_path / "album"
    (album / "d").mkdir(parents=True)
    photos = ("d/a.jpg", "d/b.jpg", "e.jpg", "d/x.y.jpg")
    for name in (*photos, "d/a.CR2", "d/a.dng", "d/c.NEF", "d/.a.CR2", "d/e.cr2", "d/x.y.arw"):
        (album / name).write_bytes(name.encode())
    beside = {"a.jpg": ["a.CR2", "a.dng"], "b.jpg": [], "e.jpg": [], "x.y.jpg": ["x.y.arw"]}
    expected = beside | {"c.NEF": [], "e.cr2": []}
    assert indexed(store, album, make) == expected
    (photo,) = (item.id for item in browse(store).items if item.name == "a.jpg")
    assert store.companions([photo])[photo][0] == Companion("raw", "a.CR2")
    (album / "d" / "a.dng").unlink()
    (album / "d" / "b.ORF").write_bytes(b"raw")
    assert indexed(store, album, make) == expected | {"a.jpg": ["a.CR2"], "b.jpg": ["b.ORF"]}


def test_raw_files_that_come_and_go_are_noticed_alone(store: Store, make: Any, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / "a.jpg").write_bytes(b"a")
    (album / "b.jpg").write_bytes(b"b")
    (album / "b.nef").write_bytes(b"raw")
    assert indexed(store, album, make) == {"a.jpg": [], "b.jpg": ["b.nef"]}
    (album / "a.CR3").write_bytes(b"raw")
    (album / "b.nef").unlink()
    assert indexed(store, album, make, changes=("a.CR3",)) == {"a.jpg": ["a.CR3"], "b.jpg": ["b.nef"]}
    assert indexed(store, album, make, changes=("b.nef",)) == {"a.jpg": ["a.CR3"], "b.jpg": []}
    (album / "c.jpg").write_bytes(b"c")
    (album / "c.raf").write_bytes(b"raw")
    assert indexed(store, album, make, changes=("c.jpg",))["c.jpg"] == ["c.raf"]


def test_a_raw_file_is_a_photo_of_its_own_while_no_photo_lies_beside_it(
    store: Store, make: Any, tmp_path: Path
) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / "b.png").write_bytes(b"b")
    for name in ("a.CR2", "a.DNG", "disk.raw"):
        (album / name).write_bytes(name.encode())
    alone = {"a.CR2": [], "a.DNG": [], "b.png": []}
    assert indexed(store, album, make) == alone
    (album / "a.HEIC").write_bytes(b"a")
    together = {"a.HEIC": ["a.CR2", "a.DNG"], "b.png": []}
    assert indexed(store, album, make, changes=("a.HEIC",)) == together
    assert indexed(store, album, make) == together
    (album / "a.HEIC").unlink()
    assert indexed(store, album, make, changes=("a.HEIC",)) == alone
    (album / "a.HEIC").write_bytes(b"a")
    assert indexed(store, album, make) == together
    (album / "a.HEIC").unlink()
    assert indexed(store, album, make) == alone
    # Where the photo came first, the raw file never is one.
    (album / "b.nef").write_bytes(b"raw")
    assert indexed(store, album, make, changes=("b.nef",)) == alone | {"b.png": ["b.nef"]}
    (album / "c.nef").write_bytes(b"raw")
    assert indexed(store, album, make, changes=("c.nef",)) == alone | {"b.png": ["b.nef"], "c.nef": []}
    (album / "c.nef").unlink()
    assert indexed(store, album, make, changes=("c.nef",)) == alone | {"b.png": ["b.nef"]}


def test_an_ignored_photo_takes_no_raw_file_in(store: Store, make: Any, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / ".qvlignore").write_text("*.jpg\n")
    for name in ("a.jpg", "a.cr2", "b.cr2"):
        (album / name).write_bytes(name.encode())
    assert indexed(store, album, make) == {"a.cr2": [], "b.cr2": []}
    assert indexed(store, album, make, changes=("a.cr2", "a.jpg")) == {"a.cr2": [], "b.cr2": []}


def test_a_raw_file_that_was_named_is_indexed_unless_its_photo_is(
    store: Store, make: Any, tmp_path: Path
) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for name in ("a.jpg", "a.cr2", "b.cr2"):
        (album / name).write_bytes(name.encode())
    space = store.space(make.identity())
    paths = [str(album / "a.cr2"), str(album / "b.cr2")]
    assert [todo.file.name for todo in survey(store, space, paths).todo] == ["a.cr2", "b.cr2"]
    assert indexed(store, album, make) == {"a.jpg": ["a.cr2"], "b.cr2": []}
    assert survey(store, space, paths).todo == ()
    assert indexed(store, album, make) == {"a.jpg": ["a.cr2"], "b.cr2": []}


def test_rules_that_cannot_be_used_end_no_run(store: Store, make: Any, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for name in ("a.jpg", "a.cr2"):
        (album / name).write_bytes(name.encode())
    assert indexed(store, album, make) == {"a.jpg": ["a.cr2"]}
    (album / ".qvlignore").write_text("!\n")
    found = survey(store, store.space(make.identity()), [str(album / "a.jpg")], changes=True)
    assert [failure.path for failure in found.failures] == [str(album / "a.jpg")]
    assert found.gone == ()


def test_a_dng_stands_for_the_film_of_its_live_photo(store: Store, make: Any) -> None:
    folder, space = store.add_folder("/p"), store.space(make.identity())
    store.write([make.photo(folder.id, "a.DNG"), film(make, folder.id, "a.MOV")], space)
    assert shown(store) == ["a.DNG"]


def test_a_link_out_of_the_library_is_followed_by_nobody(store: Store, make: Any, tmp_path: Path) -> None:
    album, elsewhere = tmp_path / "album", tmp_path / "elsewhere"
    album.mkdir()
    elsewhere.mkdir()
    for name in ("a.jpg", "secret.jpg", "secret.nef"):
        ((album if name == "a.jpg" else elsewhere) / name).write_bytes(name.encode())
    (album / "folder").symlink_to(elsewhere)
    (album / "b.jpg").symlink_to(elsewhere / "secret.jpg")
    (album / "a.nef").symlink_to(elsewhere / "secret.nef")
    (album / "again.jpg").symlink_to(album / "a.jpg")
    assert sorted(indexed(store, album, make)) == ["a.jpg"]
    assert indexed(store, album, make)["a.jpg"] == []
    changes = ("b.jpg", "folder/secret.jpg", "a.nef")
    assert indexed(store, album, make, changes=changes) == {"a.jpg": []}


def test_a_live_photo_of_real_files_is_one_item(tmp_path: Path, media: Any, tiny_bundle: str) -> None:
    album = tmp_path / "album"
    media.photo(album / "IMG_1.HEIC")
    media.video(album / "IMG_1.MOV", (((180, 40, 40), 2.0),))
    (album / "IMG_1.DNG").write_bytes(b"II*\0 nothing reads this")
    settings = IndexSettings(workers=WorkerSettings(1))
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=settings) as library:
        assert library.index([album]).failed == ()
        (hit,) = library.search("red", rerank=False).hits
        assert (Path(hit.path).name, hit.kind) == ("IMG_1.HEIC", "photo")
        assert [(one.kind, one.name) for one in hit.companions] == [
            ("live", "IMG_1.MOV"),
            ("raw", "IMG_1.DNG"),
        ]
        assert library.companions(hit.media_id) == hit.companions
        (item,) = library.browse().items
        assert (item.id, item.companions) == (hit.media_id, hit.companions)
        assert (library.facets().photos, library.facets().videos) == (1, 0)
        assert library.status().counts.items == 1
        assert library.duplicates() == ()
        assert library.similar(album / "IMG_1.MOV").hits == ()
