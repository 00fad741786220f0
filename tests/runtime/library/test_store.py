"""What the store remembers: folders, media, segments, vectors, and what happens to them when files change."""

from __future__ import annotations

import os
import shutil
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from qvl_local.runtime.errors import InputError, LibraryError
from qvl_local.runtime.library.records import Failure, IndexedMedia, MediaInfo
from qvl_local.runtime.library.store import Store


def table_sizes(home: Path) -> dict[str, int]:
    connection = apsw.Connection(str(home / "library.db"))
    try:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
            for table in ("media", "segment", "vector")
        }
    finally:
        connection.close()


def test_what_is_written_is_read_back(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    info = MediaInfo(
        "photo", 4000, 3000, datetime(2024, 2, 29, 12, 30, 1, 5), None, 48.2, -16.37, "Pentax K-1"
    )
    photo = make.photo(folder.id, "a/b.jpg")
    photo = IndexedMedia(photo.file, photo.content_hash, info, photo.segments)
    vectors = make.vectors(3)
    video = make.video(folder.id, "c.mp4", vectors)
    photo_id, video_id = store.write([photo, video], space)

    item = store.media(photo_id)
    assert item is not None
    assert item.path == os.path.join("/pictures", "a/b.jpg")  # noqa: PTH118
    assert (item.size, item.mtime_ns, item.content_hash) == (100, 1, photo.content_hash)
    assert (item.width, item.height, item.taken_at, item.duration_s) == (4000, 3000, info.taken_at, None)
    assert (item.latitude, item.longitude, item.camera) == (48.2, -16.37, "Pentax K-1")
    assert [(s.t0_ms, s.t1_ms) for s in store.segments(video_id)] == [(0, 2000), (2000, 4000), (4000, 6000)]
    assert np.sum(store.vectors(video_id) * vectors, axis=1) == pytest.approx(1, abs=1e-3)
    counts = store.counts()
    assert (counts.items, counts.photos, counts.videos, counts.segments, counts.failed) == (2, 1, 1, 4, 0)
    assert store.media_by_path("/pictures/c.mp4") == store.media(video_id)
    assert store.media_by_path("/pictures/d.mp4") is None
    assert store.media_by_path("/elsewhere/c.mp4") is None
    assert store.media(12345) is None


def test_everything_survives_reopening(home: Path, make: Any) -> None:
    with Store.open(home, mode="write") as store:
        folder = store.add_folder("/pictures")
        space = store.space(make.identity())
        store.write([make.photo(folder.id, "a.jpg"), make.failed(folder.id, "b.jpg")], space)
        known = list(store.known(folder.id, space))
    with Store.open(home) as store:
        assert store.folders() == (folder,)
        assert store.active_space() == space
        assert list(store.known(folder.id, space)) == known
        assert store.failures() == (Failure("/pictures/b.jpg", "truncated"),)


def test_a_copy_of_the_database_file_is_whole(home: Path, make: Any, tmp_path: Path) -> None:
    with Store.open(home, mode="write") as store:
        folder = store.add_folder("/pictures")
        store.write([make.photo(folder.id, "a.jpg")], store.space(make.identity()))
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(home / "library.db", copy)
    with Store.open(copy) as store:
        assert store.counts().items == 1


def test_a_reader_does_not_keep_a_writer_from_closing(home: Path, make: Any) -> None:
    Store.open(home, mode="write").close()
    reader = Store.open(home)
    try:
        with Store.open(home, mode="write") as store:
            assert reader.counts().items == 0
            folder = store.add_folder("/pictures")
            store.write([make.photo(folder.id, "a.jpg")], store.space(make.identity()))
        assert reader.counts().items == 1
    finally:
        reader.close()


def test_writing_a_file_again_replaces_it(store: Store, home: Path, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    first, second = make.vectors(2)
    (before,) = store.write([make.video(folder.id, "a.mp4", [first, second, first])], space)
    (after,) = store.write([make.photo(folder.id, "a.mp4", second, content="new")], space)
    assert after == before
    assert table_sizes(home) == {"media": 1, "segment": 1, "vector": 1}
    (hit,) = store.nearest(first, limit=5)
    assert hit.cosine == pytest.approx(float(first @ second), abs=0.01)
    assert hit.item.kind == "photo"


def test_one_batch_may_name_a_file_twice(store: Store, home: Path, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    first, second = make.vectors(2)
    ids = store.write(
        [
            make.photo(folder.id, "a.jpg", first, content="1"),
            make.photo(folder.id, "a.jpg", second, content="2"),
        ],
        space,
    )
    assert ids[0] == ids[1]
    assert table_sizes(home) == {"media": 1, "segment": 1, "vector": 1}
    assert store.nearest(second, limit=1)[0].cosine == pytest.approx(1, abs=1e-3)


def test_a_file_that_fails_leaves_no_vectors_and_comes_back(store: Store, home: Path, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    vector = make.vectors(1)[0]
    store.write([make.photo(folder.id, "a.jpg", vector)], space)
    store.write([make.failed(folder.id, "a.jpg", "half a \udcff name")], space)
    assert table_sizes(home) == {"media": 1, "segment": 0, "vector": 0}
    assert store.failures() == (Failure("/pictures/a.jpg", "half a \\udcff name"),)
    assert store.counts().items == 0
    assert store.nearest(vector, limit=1) == ()
    store.write([make.photo(folder.id, "a.jpg", vector, content="mended")], space)
    assert store.failures() == ()
    assert store.nearest(vector, limit=1)[0].item.error is None


def test_a_renamed_file_keeps_its_row_and_vectors(store: Store, make: Any) -> None:
    folder, other = store.add_folder("/pictures"), store.add_folder("/archive")
    space = store.space(make.identity())
    vector = make.vectors(1)[0]
    (media_id,) = store.write([make.photo(folder.id, "a.jpg", vector, content="x")], space)
    (twin,) = store.find_content(make.photo(0, "", content="x").content_hash, 100, space)
    assert twin.media_id == media_id
    store.rename(media_id, make.file(other.id, "b.jpg", mtime_ns=9))
    (hit,) = store.nearest(vector, limit=5)
    assert (hit.item.id, hit.item.path, hit.item.mtime_ns) == (media_id, os.path.join("/archive", "b.jpg"), 9)  # noqa: PTH118
    assert list(store.known(folder.id, space)) == []


def test_renaming_onto_a_known_file_replaces_that_one(store: Store, home: Path, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    first, second = store.write([make.photo(folder.id, "a.jpg"), make.photo(folder.id, "b.jpg")], space)
    store.rename(first, make.file(folder.id, "b.jpg"))
    assert store.media(second) is None
    assert [k.media_id for k in store.known(folder.id, space)] == [first]
    assert table_sizes(home) == {"media": 1, "segment": 1, "vector": 1}


def test_a_copy_gets_rows_of_its_own(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    vectors = make.vectors(2)
    (media_id,) = store.write([make.video(folder.id, "a.mp4", vectors)], space)
    copied = store.copy(media_id, make.file(folder.id, "b.mp4", mtime_ns=5))
    assert [(s.t0_ms, s.t1_ms) for s in store.segments(copied)] == [(0, 2000), (2000, 4000)]
    np.testing.assert_array_equal(store.vectors(copied), store.vectors(media_id))
    store.remove([media_id])
    (hit,) = store.nearest(vectors[1], limit=5)
    assert (hit.item.name, hit.item.kind, hit.item.duration_s, hit.item.mtime_ns) == (
        "b.mp4",
        "video",
        4.0,
        5,
    )
    with pytest.raises(InputError, match="12345"):
        store.copy(12345, make.file(folder.id, "c.mp4"))


def test_touch_changes_the_time_stamp_alone(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    (media_id,) = store.write([make.photo(folder.id, "a.jpg")], space)
    store.touch(media_id, make.file(folder.id, "a.jpg", mtime_ns=77))
    (known,) = store.known(folder.id, space)
    assert (known.media_id, known.mtime_ns, known.state) == (media_id, 77, "indexed")


def test_removing_leaves_nothing_behind(store: Store, home: Path, make: Any) -> None:
    folder, other = store.add_folder("/pictures"), store.add_folder("/archive")
    space = store.space(make.identity())
    ids = store.write([make.photo(folder.id, f"{i}.jpg") for i in range(5)], space)
    store.write([make.photo(other.id, "kept.jpg")], space)
    assert store.remove([ids[0], ids[1], 999]) == 2
    assert store.remove_folder(folder.id) == 3
    assert table_sizes(home) == {"media": 1, "segment": 1, "vector": 1}
    assert store.folders() == (other,)


def test_adding_a_folder_twice_gives_the_same_one(store: Store) -> None:
    assert store.add_folder("/pictures/") == store.add_folder("/pictures/./")
    with pytest.raises(InputError, match="absolute"):
        store.add_folder("pictures")


@pytest.mark.parametrize(
    "name",
    [
        "naïve ☃ 🐕.jpg",
        "two\nlines.jpg",
        "quote'\"--;.jpg",
        os.fsdecode(b"bad \xff\xfe.jpg"),
        "a\\b.jpg",
        " .jpg",
    ],
)
def test_odd_names_come_back_unchanged(store: Store, home: Path, make: Any, name: str) -> None:
    root = f"/odd {name}"
    folder = store.add_folder(root)
    space = store.space(make.identity())
    vector = make.vectors(1)[0]
    (media_id,) = store.write(
        [
            make.photo(folder.id, name, vector),
        ],
        space,
    )
    with Store.open(home) as reader:
        assert reader.folders()[0].path == root
        assert [k.name for k in reader.known(folder.id, space)] == [name]
        path = os.path.join(root, name)  # noqa: PTH118
        assert reader.nearest(vector, limit=1)[0].item.path == path
        found = reader.media_by_path(path)
        assert found is not None
        assert found.id == media_id
    assert store.write([make.photo(folder.id, name, vector)], space) == (media_id,)


def test_known_walks_more_than_a_page_while_rows_change(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvl_local.runtime.library.known_files.PAGE", 3)
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    store.write([make.photo(folder.id, f"{i}.jpg") for i in range(10)], space)
    seen = []
    for known in store.known(folder.id, space):
        seen.append(known.name)
        store.touch(known.media_id, make.file(folder.id, known.name, mtime_ns=2))
    assert seen == [f"{i}.jpg" for i in range(10)]


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.ones(8, np.float32) / np.sqrt(8).astype(np.float32), "shape"),
        (np.ones(64, np.float32), "length"),
        (np.full(64, np.nan, np.float32), "length"),
        (np.zeros(64, np.float32), "length"),
    ],
)
def test_a_wrong_vector_is_refused_and_nothing_is_written(
    store: Store, make: Any, vector: Any, message: str
) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    with pytest.raises(InputError, match=message):
        store.write([make.photo(folder.id, "good.jpg"), make.photo(folder.id, "bad.jpg", vector)], space)
    assert store.counts().items == 0
    assert list(store.known(folder.id, space)) == []


def test_a_file_without_vectors_is_refused(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    with pytest.raises(InputError, match="without a single vector"):
        store.write([make.video(folder.id, "a.mp4", [])], store.space(make.identity()))


def test_a_reader_cannot_write(home: Path, make: Any) -> None:
    Store.create(home)
    with Store.open(home) as store, pytest.raises(LibraryError, match="reading only"):
        store.add_folder("/pictures")


def test_an_empty_library_answers(home: Path, make: Any) -> None:
    Store.create(home)
    Store.create(home)
    with Store.open(home) as store:
        assert store.counts().items == 0
        assert store.active_space() is None
        assert store.nearest(make.vectors(1)[0], limit=5) == ()
        assert store.failures() == ()
        assert store.segments(1) == ()
        assert store.vectors(1).shape == (0, 0)


def test_threads_share_a_store(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    space = store.space(make.identity())
    vectors = make.vectors(200)
    wrong: list[object] = []

    def search() -> None:
        try:
            for at in range(50):
                best = store.nearest(vectors[at], limit=1)[0]
                if best.item.name != f"{at}.jpg":
                    wrong.append(best)
        except Exception as error:
            wrong.append(error)

    store.write([make.photo(folder.id, f"{i}.jpg", vectors[i]) for i in range(50)], space)
    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(50, 200, 10):
        store.write([make.photo(folder.id, f"{i}.jpg", vectors[i]) for i in range(at, at + 10)], space)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.counts().items == 200
