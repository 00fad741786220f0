"""What a model makes nothing of: it costs the vectors of that model alone, never those that serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.records import FailedMedia, Failure
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.model.embedder import Embedder

REASON = "the model's vector for it is not finite"


def states(store: Store, folder_id: int, space: Any) -> dict[str, str]:
    return {known.name: known.state for known in store.known(folder_id, space)}


def refused(photo: Any) -> FailedMedia:
    return FailedMedia(photo.file, photo.content_hash, REASON, is_models=True)


def test_a_refusal_keeps_what_other_spaces_hold(store: Store, home: Path, make: Any) -> None:
    folder = store.add_folder("/p")
    first, second = (store.space(make.identity(precision=precision)) for precision in ("fp32", "int8"))
    photo = make.photo(folder.id, "a.jpg", camera="Canon")
    (media_id,) = store.write([photo], first)
    store.write([refused(photo)], second)

    assert store.counts().items == 1
    assert [candidate.item.id for candidate in store.nearest(make.vectors(1)[0], limit=9)] == [media_id]
    item = store.media(media_id)
    assert item is not None
    assert (item.state, item.camera, item.error) == ("indexed", "Canon", None)
    assert states(store, folder.id, first) == {"a.jpg": "indexed"}
    assert states(store, folder.id, second) == {"a.jpg": "failed"}  # not tried again with this model
    assert store.failures() == ()
    assert store.failures(second) == (Failure("/p/a.jpg", REASON),)
    assert (store.counts().failed, store.counts(second).failed) == (0, 1)

    store.write([photo], second)  # it works after all
    assert store.failures(second) == ()
    assert states(store, folder.id, second) == {"a.jpg": "indexed"}
    store.write([refused(photo)], second)
    store.activate(second)
    store.remove_space(first)
    assert store.counts().items == 0
    assert store.failures() == (Failure("/p/a.jpg", REASON),)
    assert store.remove([media_id]) == 0  # it was in quarantine
    assert left(home) == [0, 0, 0, 0]


def left(home: Path) -> list[Any]:
    connection = apsw.Connection(str(home / "library.db"))
    try:
        tables = ("media", "segment", "vector", "refusal")
        return [connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in tables]
    finally:
        connection.close()


def test_a_decoder_that_fails_on_what_it_once_read_costs_the_new_space_alone(store: Store, make: Any) -> None:
    folder = store.add_folder("/p")
    first, second = (store.space(make.identity(precision=precision)) for precision in ("fp32", "int8"))
    photo = make.photo(folder.id, "a.jpg")
    store.write([photo], first)
    store.write([FailedMedia(photo.file, photo.content_hash, "its decoder was killed")], second)
    assert store.counts().items == 1
    assert states(store, folder.id, second) == {"a.jpg": "failed"}
    assert store.failures(second) == (Failure("/p/a.jpg", "its decoder was killed"),)


def test_a_file_that_changed_leaves_no_old_vectors(store: Store, home: Path, make: Any) -> None:
    folder = store.add_folder("/p")
    first, second = (store.space(make.identity(precision=precision)) for precision in ("fp32", "int8"))
    store.write([make.photo(folder.id, "a.jpg")], first)
    changed = make.photo(folder.id, "a.jpg", content="another picture")
    store.write([refused(changed)], second)
    assert left(home) == [1, 0, 0, 1]
    assert states(store, folder.id, first) == {"a.jpg": "pending"}  # the other model may read it
    assert store.failures() == ()
    store.write([changed], first)
    assert states(store, folder.id, first) == {"a.jpg": "indexed"}
    assert states(store, folder.id, second) == {"a.jpg": "failed"}
    store.write([make.failed(folder.id, "a.jpg")], first)  # changed once more, and torn
    assert left(home) == [1, 0, 0, 0]
    for space in (first, second):
        assert store.failures(space) == (Failure("/p/a.jpg", "truncated"),)


def test_a_file_that_the_system_refuses_stays_as_it_is_known(store: Store, make: Any) -> None:
    folder = store.add_folder("/p")
    first, second = (store.space(make.identity(precision=precision)) for precision in ("fp32", "int8"))
    photo = make.photo(folder.id, "a.jpg")
    store.write([photo], first)
    store.write([refused(photo)], second)
    store.write([FailedMedia(photo.file, b"", "the file cannot be read: permission denied")], second)
    assert store.counts().items == 1
    assert store.failures() == ()


def test_copies_are_refused_together_and_keep_their_own_vectors(store: Store, make: Any) -> None:
    folder = store.add_folder("/p")
    first, second = (store.space(make.identity(precision=precision)) for precision in ("fp32", "int8"))
    old = make.photo(folder.id, "old.jpg", content="same")
    new = make.photo(folder.id, "new.jpg", content="same")
    store.write([old], first)
    (media_id,) = store.write([new], second)
    store.copy(media_id, old.file)
    assert store.counts(first).items == 1  # the old model knew one of them, and still does
    assert store.counts(second).items == 2
    store.write([refused(new)], second)
    store.copy(media_id, make.file(folder.id, "third.jpg"))
    assert store.failures(second) == (Failure("/p/new.jpg", REASON), Failure("/p/third.jpg", REASON))


@pytest.fixture
def album(tmp_path: Path, media: Any) -> Path:
    folder = tmp_path / "album"
    for seed in range(3):
        media.photo(folder / f"{seed}.jpg", (200, 30, 30), seed=seed)
    return folder


@pytest.fixture
def opened(tmp_path: Path, tiny_bundle: str) -> Iterator[Callable[..., Library]]:
    libraries: list[Library] = []

    def opener(model: str | Path = tiny_bundle) -> Library:
        libraries.append(
            Library.open(tmp_path / "library", model=model, settings=IndexSettings(WorkerSettings(1)))
        )
        return libraries[-1]

    yield opener
    for library in libraries:
        library.close()


def test_a_model_that_makes_nothing_of_anything_does_not_serve(
    album: Path,
    opened: Callable[..., Library],
    tiny_bundle: str,
    smaller_pictures: Callable[[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert opened().index([album]).items == 3
    broken = opened(smaller_pictures(tiny_bundle, tmp_path / "other"))
    real = Embedder.embed
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed", lambda *given, **options: np.nan * real(*given, **options))
        report = broken.index([album])
        assert [failure.error for failure in report.failed] == [REASON] * 3
        assert len(broken.index([album]).failed) == 3  # on record, and not tried again
    assert len(opened().search("red", rerank=False).hits) == 3  # the old model serves as before
    assert opened().status().model == tiny_bundle
    assert opened().failures() == ()


def test_a_model_that_makes_nothing_of_one_file_serves_the_rest(
    album: Path,
    opened: Callable[..., Library],
    tiny_bundle: str,
    smaller_pictures: Callable[[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened().index([album])
    picky = opened(smaller_pictures(tiny_bundle, tmp_path / "other"))
    real = Embedder.embed

    def overflowing(*given: Any, **options: Any) -> Any:
        vectors = real(*given, **options)
        vectors[0] = np.nan
        return vectors

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed", overflowing)
        report = picky.index([album])
    assert (report.items, len(report.failed)) == (2, 1)
    assert len(picky.search("red", rerank=False).hits) == 2
    assert picky.failures() == report.failed
    assert picky.status().counts.failed == 1
