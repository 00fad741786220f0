"""The library as people use it, on qvl-tiny and a small rendered world: index, search, change, forget."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime import Library
from qvl_local.runtime.errors import (
    BundleError,
    InputError,
    LibraryBusyError,
    LibraryError,
    LibraryStorageError,
    MediaError,
    ModelNotFoundError,
)
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.previews import PREVIEWS, Previews
from qvl_local.runtime.library.records import Filters, SearchResult
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.library.tally import IndexProgress
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.model.bundle import open_bundle
from qvl_local.runtime.world.demo import make_sample_library

SETTINGS = IndexSettings(WorkerSettings(1))
NO_DECODER = IndexSettings(WorkerSettings(1), worker_command=(sys.executable, "-c", "raise SystemExit(9)"))
RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (20, 160, 40)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str) -> tuple[Path, Path, Any]:
    """A folder of rendered media, the library that was made of it, and the report."""
    root = tmp_path_factory.mktemp("world")
    make_sample_library(root / "media", photos=20, clips=3, seed=5)
    with Library.open(root / "library", model=tiny_bundle, settings=SETTINGS) as library:
        report = library.index([root / "media"])
    return root / "media", root / "library", report


@pytest.fixture
def searched(world: tuple[Path, Path, Any]) -> Iterator[Library]:
    with Library.open(world[1], create=False) as library:
        yield library


@pytest.fixture
def album(tmp_path: Path, media: Any) -> Path:
    """Three photos and a video of two scenes."""
    folder = tmp_path / "album"
    for seed, (name, colour) in enumerate([("red.jpg", RED), ("sub/blue.png", BLUE), ("green.webp", GREEN)]):
        media.photo(folder / name, colour, seed=seed)
    media.video(folder / "two.mp4", [(RED, 3), (BLUE, 3)])
    return folder


@pytest.fixture
def opened(tmp_path: Path, tiny_bundle: str) -> Iterator[Callable[..., Library]]:
    """Opens the library of this test; closed at the end."""
    libraries: list[Library] = []

    def opener(settings: IndexSettings = SETTINGS) -> Library:
        libraries.append(Library.open(tmp_path / "library", model=tiny_bundle, settings=settings))
        return libraries[-1]

    yield opener
    for library in libraries:
        library.close()


def changes(report: Any) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.removed


def found(result: SearchResult) -> list[str]:
    return [Path(hit.path).name for hit in result.hits]


# Searching


def test_the_first_report_counts_everything(world: tuple[Path, Path, Any]) -> None:
    _, _, report = world
    assert (report.items, report.photos, report.videos) == (23, 20, 3)
    assert changes(report) == (23, 0, 0, 0)
    assert report.segments >= 23
    assert report.failed == ()
    assert report.seconds > 0


def test_a_photo_is_its_own_best_match(world: tuple[Path, Path, Any], searched: Library) -> None:
    hits = searched.search("a dog", limit=100, rerank=False).hits
    photos = [hit for hit in hits if hit.kind == "photo"][:5]
    for photo in photos:
        result = searched.search(image=photo.path, limit=1, rerank=False)
        assert result.query is None
        assert result.hits[0].path == photo.path
        assert result.hits[0].embedding_score > 0.99


def test_hits_are_ranked_and_described(searched: Library) -> None:
    result = searched.search("dogs at night", limit=10)
    assert result.query == "dogs at night"
    assert [hit.rank for hit in result.hits] == list(range(1, 11))
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
    assert all(hit.reranker_score is not None and 0 <= hit.reranker_score <= 1 for hit in result.hits)
    assert all(hit.width > 0 and hit.height > 0 and Path(hit.path).is_file() for hit in result.hits)
    assert {"load", "embed", "search", "rerank"} <= set(result.timings_ms)


def test_without_reranking_the_cosine_decides(searched: Library) -> None:
    result = searched.search("dogs at night", limit=23, rerank=False)
    cosines = [hit.embedding_score for hit in result.hits]
    assert cosines == sorted(cosines, reverse=True)
    assert all(hit.reranker_score is None for hit in result.hits)
    assert len(result.hits) == 23
    assert "rerank" not in result.timings_ms


def test_only_the_top_is_reranked(searched: Library) -> None:
    result = searched.search("dogs at night", limit=12, rerank_top=4)
    assert [hit.reranker_score is not None for hit in result.hits] == [True] * 4 + [False] * 8


def test_videos_come_with_their_moment(searched: Library) -> None:
    result = searched.search("a dog", filters=Filters(kind="video"), limit=10)
    assert len(result.hits) == 3
    for hit in result.hits:
        assert hit.start_s is not None
        assert hit.end_s is not None
        assert 0 <= hit.start_s < hit.end_s


def test_filters_narrow_the_search(searched: Library) -> None:
    everything = searched.search("a dog", limit=100, rerank=False).hits
    cut = sorted(hit.taken_at for hit in everything if hit.taken_at)[10]
    late = searched.search("a dog", limit=100, filters=Filters(after=cut), rerank=False).hits
    expected = {hit.path for hit in everything if hit.taken_at and hit.taken_at >= cut}
    assert {hit.path for hit in late} == expected
    assert 0 < len(expected) < 23


def test_words_and_picture_together(searched: Library) -> None:
    photo = searched.search("a dog", limit=1, filters=Filters(kind="photo"), rerank=False).hits[0]
    result = searched.search("at night", image=photo.path, limit=3)
    assert len(result.hits) == 3
    with_array = searched.search("at night", image=np.asarray(Image.open(photo.path).convert("RGB")), limit=3)
    assert {hit.path for hit in with_array.hits} & {hit.path for hit in result.hits}


def test_a_reranker_that_cannot_be_loaded_is_an_error_of_the_search(
    world: tuple[Path, Path, Any], tiny_bundle: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    graph = bundle.file(bundle.part("reranker").decoder)
    graph.write_bytes(b"\xff" * graph.stat().st_size)
    with Library.open(world[1], model=tmp_path / "bundle", create=False) as library:
        with pytest.raises(BundleError, match=r"reranker_.* cannot be loaded"):
            library.search("a dog")
        assert library.search("a dog", rerank=False).hits


def test_similar_leaves_the_file_itself_out(world: tuple[Path, Path, Any], searched: Library) -> None:
    for hit in searched.search("a dog", limit=23, rerank=False).hits[::7]:
        result = searched.similar(hit.path, limit=5)
        assert len(result.hits) == 5
        assert hit.path not in {other.path for other in result.hits}


def test_similar_to_a_stranger_embeds_it(
    world: tuple[Path, Path, Any], searched: Library, tmp_path: Path
) -> None:
    hits = searched.search("a dog", limit=23, rerank=False).hits
    for kind in ("photo", "video"):
        known = next(hit for hit in hits if hit.kind == kind)
        stranger = shutil.copy(known.path, tmp_path / f"stranger{Path(known.path).suffix}")
        assert searched.similar(stranger, limit=3).hits[0].path == known.path


@pytest.mark.parametrize(
    ("query", "message"),
    [("", "empty"), ("   \n", "empty"), (None, "empty"), ("dog " * 25_000, "99,999 characters")],
)
def test_queries_that_make_no_sense(searched: Library, query: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        searched.search(query)


def test_a_long_query_still_works(searched: Library) -> None:
    assert len(searched.search("two dogs on a beach " * 100, limit=2, rerank_top=2).hits) == 2


@pytest.mark.parametrize("limit", [0, -1])
def test_limits_that_make_no_sense(searched: Library, limit: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        searched.search("dog", limit=limit)


def test_a_picture_that_cannot_be_read(searched: Library, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    for path in (tmp_path / "a.jpg", tmp_path / "gone.jpg"):
        with pytest.raises(MediaError, match=path.name):
            searched.search(image=path)


def test_a_model_folder_is_remembered_by_its_whole_path(
    tiny_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(tiny_bundle).parent)
    with Library.open(tmp_path / "library", model=Path(tiny_bundle).name) as library:
        assert library.model == str(Path(tiny_bundle))


def test_status_without_a_model(searched: Library, world: tuple[Path, Path, Any], tiny_bundle: str) -> None:
    status = searched.status()
    assert (status.counts.items, status.counts.failed) == (23, 0)
    assert status.folders == (str(world[0]),)
    assert (status.model, status.dims) == (tiny_bundle, 256)
    assert status.size > 100_000
    assert abs(status.changed_at - (world[1] / "library.db").stat().st_mtime) < 3600


def test_thumbnails_of_hits(searched: Library) -> None:
    hit = searched.search("a dog", limit=1, rerank=False).hits[0]
    thumbnail = searched.thumbnail(hit.media_id)
    assert thumbnail is not None
    assert thumbnail.startswith(b"\xff\xd8")
    assert searched.thumbnail(10**9) is None


# Opening


def test_an_unknown_model_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        Library.open(tmp_path / "library", model="no-such-model")
    assert not (tmp_path / "library").exists()


def test_a_missing_library_is_made_only_when_wanted(tmp_path: Path, opened: Callable[..., Library]) -> None:
    with pytest.raises(LibraryStorageError, match="no library"):
        Library.open(tmp_path / "library", create=False)
    library = opened()
    assert library.status().counts.items == 0
    with pytest.raises(LibraryError, match="nothing was indexed yet"):
        library.search("a dog")


def test_a_library_remembers_its_model(world: tuple[Path, Path, Any], tiny_bundle: str) -> None:
    with Library.open(world[1]) as library:
        assert library.model == tiny_bundle


def test_a_folder_of_other_things_is_refused(tmp_path: Path, tiny_bundle: str) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(LibraryStorageError, match="other files"):
        Library.open(tmp_path, model=tiny_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# Indexing again


def test_nothing_changed_costs_nothing(album: Path, opened: Callable[..., Library]) -> None:
    assert changes(opened().index([album])) == (4, 0, 0, 0)
    assert changes(opened(NO_DECODER).index([album])) == (0, 0, 4, 0)


def test_a_clock_that_ran_wild_is_no_hindrance(album: Path, opened: Callable[..., Library]) -> None:
    for name, seconds in (("red.jpg", 15_000_000_000), ("green.webp", -15_000_000_000)):
        os.utime(album / name, (seconds, seconds))  # as far as the file system goes along
    assert changes(opened().index([album])) == (4, 0, 0, 0)
    assert changes(opened(NO_DECODER).index([album])) == (0, 0, 4, 0)


def test_moved_copied_and_touched_files_are_not_decoded(album: Path, opened: Callable[..., Library]) -> None:
    opened().index([album])
    (album / "red.jpg").rename(album / "sub" / "scarlet.jpg")
    (album / "two.mp4").rename(album / "film.mp4")
    shutil.copyfile(album / "green.webp", album / "lawn.webp")
    os.utime(album / "sub" / "blue.png")
    library = opened(NO_DECODER)
    assert changes(library.index([album])) == (1, 2, 2, 0)
    result = library.search("something", limit=10, rerank=False)
    assert sorted(found(result)) == ["blue.png", "film.mp4", "green.webp", "lawn.webp", "scarlet.jpg"]
    hits = {Path(hit.path).name: hit for hit in result.hits}
    assert hits["green.webp"].embedding_score == pytest.approx(hits["lawn.webp"].embedding_score)
    # The frames of the film moved along: it can be reranked from the previews alone.
    assert all(hit.reranker_score is not None for hit in library.search("something").hits)


def test_copies_within_one_run_are_decoded_once(
    tmp_path: Path, media: Any, opened: Callable[..., Library], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qvl_local.runtime.library.workers import WorkerPool

    submitted: list[Any] = []
    original = WorkerPool.submit

    def submit(pool: WorkerPool, key: Any, task: Any, **options: Any) -> None:
        submitted.append(task.path)
        original(pool, key, task, **options)

    monkeypatch.setattr(WorkerPool, "submit", submit)
    media.photo(tmp_path / "album" / "0.jpg", RED)
    for number in range(1, 9):
        shutil.copyfile(tmp_path / "album" / "0.jpg", tmp_path / "album" / f"{number}.jpg")
    (tmp_path / "album" / "bad.jpg").write_bytes(b"bad")
    (tmp_path / "album" / "bad2.jpg").write_bytes(b"bad")
    library = opened()
    report = library.index([tmp_path / "album"])
    assert changes(report) == (9, 0, 0, 0)
    assert [Path(failure.path).name for failure in report.failed] == ["bad.jpg", "bad2.jpg"]
    assert submitted.count(str(tmp_path / "album" / "0.jpg")) == 1
    assert len([path for path in submitted if "bad" not in path]) == 1
    assert len(library.search("red", limit=100, rerank=False).hits) == 9


def test_changed_files_are_read_again_and_gone_ones_forgotten(
    album: Path, media: Any, opened: Callable[..., Library]
) -> None:
    library = opened()
    library.index([album])
    media.photo(album / "red.jpg", BLUE, seed=50)
    (album / "green.webp").unlink()
    media.photo(album / "new.jpg", GREEN, seed=51)
    report = library.index([album])
    assert changes(report) == (1, 1, 2, 1)
    assert (report.items, report.photos, report.videos) == (4, 3, 1)
    assert sorted(found(library.search("x", limit=9, rerank=False))) == [
        "blue.png",
        "new.jpg",
        "red.jpg",
        "two.mp4",
    ]
    assert library.similar(album / "red.jpg", limit=1).hits[0].path == str(album / "sub" / "blue.png")


def test_previews_of_what_is_gone_go_too(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album])
    hit = library.search("x", limit=9, filters=Filters(kind="video"), rerank=False).hits[0]
    assert library.thumbnail(hit.media_id)
    content = Store.open(library.path).media(hit.media_id).content_hash  # type: ignore[union-attr]
    (album / "two.mp4").unlink()
    library.index([album])
    assert library._files.pictures().thumbnail(content) is None


def test_a_film_of_two_halves_has_two_moments(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    report = library.index([album])
    assert report.segments == 5
    for colour, picture in ((RED, "red.jpg"), (BLUE, "sub/blue.png")):
        (hit,) = library.search(image=album / picture, filters=Filters(kind="video"), rerank=False).hits
        expected = (0.0, 3.0) if colour == RED else (3.0, 6.0)
        assert (hit.start_s, hit.end_s) == pytest.approx(expected, abs=0.2)


def test_single_files_and_subfolders_can_be_named(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    assert changes(library.index([album / "red.jpg"])) == (1, 0, 0, 0)
    assert changes(library.index(album / "sub")) == (1, 0, 0, 0)
    # The whole now holds both, and none of them twice.
    assert changes(library.index([album, album / "sub", album / "red.jpg"])) == (2, 0, 2, 0)
    assert len(library.search("x", limit=99, rerank=False).hits) == 4
    (album / "sub" / "blue.png").unlink()
    assert changes(library.index([album])) == (0, 0, 3, 1)


def test_an_outer_root_takes_nothing_twice(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album / "sub"])
    assert changes(library.index([album])) == (3, 0, 1, 0)
    assert changes(library.index([album])) == (0, 0, 4, 0)
    (album / "sub" / "blue.png").unlink()
    assert changes(library.index([album])) == (0, 0, 3, 1)


def test_a_path_that_is_not_there_stops_before_anything(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    with pytest.raises(InputError, match="nowhere"):
        library.index([album, album / "nowhere"])
    (album / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt"):
        library.index([album / "notes.txt"])
    assert library.status().folders == ()


def test_an_unplugged_disk_keeps_its_place(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album])
    away = album.with_name("away")
    album.rename(away)
    with pytest.raises(InputError, match="keeps what it knows"):
        library.index([album])
    report = library.index()
    assert (report.items, report.removed) == (4, 0)
    assert "no such file" in report.failed[0].error
    album.mkdir()  # the mount point that an unplugged disk leaves behind
    report = library.index([album])
    assert (report.items, report.removed) == (4, 0)
    assert "kept" in report.failed[0].error
    assert len(library.search("x", limit=9).hits) == 4
    album.rmdir()
    away.rename(album)
    assert changes(library.index([album])) == (0, 0, 4, 0)


def test_hits_whose_file_is_gone_are_shown_by_their_previews(
    album: Path, opened: Callable[..., Library]
) -> None:
    library = opened()
    library.index([album])
    before = library.search("red", limit=9)
    shutil.rmtree(album)
    after = library.search("red", limit=9)
    assert found(after) == found(before)
    for old, new in zip(before.hits, after.hits):
        assert new.reranker_score == pytest.approx(old.reranker_score, abs=0.1)


def test_hits_without_file_and_preview_keep_the_cosine(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album])
    shutil.rmtree(album)
    library.close()
    (library.path / PREVIEWS).unlink()
    result = opened().search("red", limit=9)
    assert len(result.hits) == 4
    assert all(hit.reranker_score is None for hit in result.hits)


def test_previews_made_anew_are_found_by_an_open_library(album: Path, opened: Callable[..., Library]) -> None:
    library, other = opened(), opened()
    library.index([album])
    item = library.search("red", limit=1, rerank=False).hits[0].media_id
    assert library.thumbnail(item)
    for file in library.path.glob(f"{PREVIEWS}*"):
        file.unlink()
    assert library.thumbnail(item)  # made of the file, since nothing is kept of it
    assert len(library.search("red").hits) == 4
    (album / "red.jpg").touch()
    Previews.open(library.path, mode="write").close()
    other.remove([album])
    other.index([album])
    item = library.search("red", limit=1, rerank=False).hits[0].media_id
    assert library.thumbnail(item)


def test_deleted_previews_are_only_slower(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album])
    library.close()
    (library.path / PREVIEWS).unlink()
    assert all(hit.reranker_score is not None for hit in opened().search("red", limit=9).hits)


def test_damaged_previews_are_only_slower(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album])
    before = library.search("red", limit=9)
    library.close()
    with closing(apsw.Connection(str(library.path / PREVIEWS))) as previews:
        previews.execute("UPDATE thumbnail SET jpeg = x'ff'")
        previews.execute("UPDATE strip SET jpeg = substr(jpeg, 1, length(jpeg) / 2)")
    after = opened().search("red", limit=9)
    assert {hit.path for hit in after.hits} == {hit.path for hit in before.hits}
    assert all(hit.reranker_score is not None for hit in after.hits)


def test_qvlignore_is_followed(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album])
    (album / ".qvlignore").write_text("*.mp4\nsub/\n")
    assert changes(library.index([album])) == (0, 0, 2, 2)


def test_a_folder_that_cannot_be_listed_keeps_its_files(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album])
    (album / "sub" / ".qvlignore").write_text("!\n")  # rules that cannot be used: the folder is not walked
    report = library.index([album])
    assert (report.items, report.removed) == (4, 0)
    assert [failure.path for failure in report.failed] == [str(album / "sub")]


def test_media_folders_are_never_written(album: Path, opened: Callable[..., Library]) -> None:
    before = {path: path.stat().st_mtime_ns for path in [album, *album.rglob("*")]}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    library = opened()
    report = library.index([album])
    library.search("red")
    for path in sorted(before, reverse=True):
        path.chmod(0o755)
    assert report.items == 4
    assert {path: path.stat().st_mtime_ns for path in [album, *album.rglob("*")]} == before


# Forgetting


def test_files_folders_and_roots_can_be_forgotten(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    library.index([album])
    assert library.remove([album / "red.jpg"]) == 1
    assert library.remove(album / "sub") == 1
    assert library.status().counts.items == 2
    with pytest.raises(InputError, match="knows nothing"):
        library.remove([album / "green.webp", album / "sub"])
    assert library.status().counts.items == 2
    assert library.remove([album]) == 2
    assert library.status().folders == ()
    assert (album / "red.jpg").is_file()
    assert changes(library.index([album])) == (4, 0, 0, 0)


# Progress, models, company


def test_progress_tells_every_file(album: Path, opened: Callable[..., Library]) -> None:
    (album / "bad.jpg").write_bytes(b"bad")
    told: list[IndexProgress] = []
    opened().index([album], progress=told.append)
    assert [step.stage for step in told] == sorted(
        (s.stage for s in told), key=["scan", "embed", "remove"].index
    )
    embedded = [step for step in told if step.stage == "embed"]
    assert [step.done for step in embedded] == [1, 2, 3, 4, 5]
    assert {step.total for step in embedded} == {5}
    assert {Path(str(step.path)).name for step in embedded} >= {"bad.jpg", "red.jpg", "two.mp4"}
    assert embedded[-1].failed == 1


@pytest.mark.skipif("os.name != 'posix'", reason="links need a privilege on Windows")
@pytest.mark.parametrize("indexed_by", ["link", "real"])
def test_a_folder_of_two_names_is_one(
    album: Path, opened: Callable[..., Library], tmp_path: Path, indexed_by: str
) -> None:
    link = tmp_path / "link"
    link.symlink_to(album)
    root, other = (link, album) if indexed_by == "link" else (album, link)
    library = opened()
    library.index([root])
    assert changes(library.index([other])) == (0, 0, 4, 0)
    assert changes(library.index([other / "sub"])) == (0, 0, 1, 0)
    assert library.status().folders == (str(root),)
    for name in (root, other):
        for under in (f"{name}/sub", f"{name}/sub/", f"{name}/sub/blue.png"):
            hits = library.search("x", rerank=False, filters=Filters(under=under)).hits
            assert [hit.path for hit in hits] == [str(root / "sub" / "blue.png")]
        assert len(library.search("x", rerank=False, filters=Filters(under=f"{name}//")).hits) == 4
        similar = library.similar(name / "red.jpg")
        assert str(root / "red.jpg") not in [hit.path for hit in similar.hits]
    assert library.remove([other / "sub"]) == 1
    assert library.remove([other]) == 3


def test_a_vector_that_is_not_finite_costs_its_file(
    album: Path, opened: Callable[..., Library], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = opened()
    real = library._models.now.embedder().embed

    def overflowing(inputs: Any, **options: Any) -> Any:
        vectors = real(inputs, **options)
        for given, vector in zip(inputs, vectors, strict=True):
            if "video" in given:
                vector[0] = np.nan
        return vectors

    monkeypatch.setattr(library._models.now.embedder(), "embed", overflowing)
    report = library.index([album])
    assert (report.photos, report.videos) == (3, 0)
    assert [(Path(f.path).name, f.error) for f in report.failed] == [
        ("two.mp4", "the model's vector for it is not finite")
    ]


def test_another_model_tries_again_what_the_first_made_nothing_of(
    album: Path,
    opened: Callable[..., Library],
    tiny_bundle: str,
    smaller_pictures: Callable[[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = opened()
    real = library._models.now.embedder().embed
    monkeypatch.setattr(
        library._models.now.embedder(), "embed", lambda inputs, **options: np.nan * real(inputs, **options)
    )
    assert len(library.index([album]).failed) == 4
    report = opened(NO_DECODER).index([album])  # not tried again with the same model
    assert (report.items, len(report.failed)) == (0, 4)
    told: list[IndexProgress] = []
    other = smaller_pictures(tiny_bundle, tmp_path / "other")
    with Library.open(library.path, model=other, settings=SETTINGS) as changed:
        report = changed.index([album], progress=told.append)
        assert (report.items, report.failed) == (4, ())
        assert changed.status().model == str(other)
    assert [step for step in told if step.stage == "renew"] == []  # there was nothing to embed anew


def test_single_files_bring_nothing_else_of_their_folder(
    album: Path,
    opened: Callable[..., Library],
    tiny_bundle: str,
    smaller_pictures: Callable[[str, Path], Path],
    tmp_path: Path,
) -> None:
    library = opened()
    assert library.index([album / "red.jpg"]).items == 1
    assert library.index([album / "green.webp"]).items == 2
    assert library.status().folders == ()
    assert library.index().items == 2
    told: list[IndexProgress] = []
    other = smaller_pictures(tiny_bundle, tmp_path / "other")
    with Library.open(library.path, model=other, settings=SETTINGS) as changed:
        assert changed.index([album / "red.jpg"], progress=told.append).items == 2
        assert told[0] == IndexProgress("renew", 0, 2, 0)
        (album / "green.webp").unlink()
        assert changed.index().items == 1  # gone, and its folder is there to say so
        assert changed.index([album / "sub"]).items == 2  # a folder inside: a root of its own
        assert changed.status().folders == (str(album / "sub"),)
        assert changed.remove([album / "red.jpg"]) == 1
        assert changed._files.reader().folders() == changed._files.reader().folders()[-1:]
        assert changed.index([album]).items == 3
        assert set(changed.status().folders) == {str(album), str(album / "sub")}


def test_files_in_quarantine_are_no_items_when_they_go(album: Path, opened: Callable[..., Library]) -> None:
    (album / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    library = opened()
    assert len(library.index([album]).failed) == 1
    assert library.remove([album / "bad.jpg"]) == 0
    library.index([album])
    (album / "bad.jpg").unlink()
    report = library.index([album])
    assert (report.removed, report.failed) == (0, ())
    (album / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    library.index([album])
    assert library.remove([album]) == 4


def test_another_pixel_budget_is_another_space(
    album: Path,
    opened: Callable[..., Library],
    tiny_bundle: str,
    smaller_pictures: Callable[[str, Path], Path],
    tmp_path: Path,
) -> None:
    library = opened()
    library.index([album])
    other = smaller_pictures(tiny_bundle, tmp_path / "other")
    with Library.open(library.path, model=other, settings=SETTINGS) as changed:
        with pytest.raises(LibraryError, match="was indexed with") as refused:
            changed.search("red")
        command = shlex.split(str(refused.value).partition("with this one: ")[2])
        assert command[:3] == ["qvl-local", "index", str(album)]  # works as it stands
        assert command[3:] == ["--model", str(other), "--library", str(library.path)]
        with Library.open(library.path) as old:
            assert len(old.search("red").hits) == 4
        report = changed.index([album / "sub"])  # all roots are filled, whatever was named
        assert (report.items, report.updated) == (4, 4)
        assert len(changed.search("red").hits) == 4
    with Library.open(library.path) as again:
        assert again.model == str(other)
    with pytest.raises(LibraryError, match="was indexed with"):
        opened().search("red")


def test_two_indexers_at_once(album: Path, opened: Callable[..., Library]) -> None:
    library = opened()
    refused: list[Exception] = []

    def meanwhile(step: IndexProgress) -> None:
        if step.stage == "embed" and not refused:
            with pytest.raises(LibraryBusyError) as caught:
                opened().index([album])
            refused.append(caught.value)
            assert opened().status().counts.items >= 0  # reading goes on

    assert library.index([album], progress=meanwhile).items == 4
    assert len(refused) == 1


def test_stopping_keeps_what_was_read(tmp_path: Path, media: Any, opened: Callable[..., Library]) -> None:
    for number in range(40):
        media.photo(tmp_path / "album" / f"{number:02}.jpg", RED, seed=number)
    stop = threading.Event()
    settings = IndexSettings(WorkerSettings(1), batch_layers=4, write_files=4)
    library = opened(settings)

    def stop_soon(step: IndexProgress) -> None:
        if step.stage == "embed" and step.done >= 10:
            stop.set()

    report = library.index([tmp_path / "album"], progress=stop_soon, stop=stop)
    assert 10 <= report.items < 40
    assert report.added == report.items == library.status().counts.items
    rest = library.index([tmp_path / "album"])
    assert changes(rest) == (40 - report.items, 0, report.items, 0)
    assert rest.items == 40


def test_a_walk_can_be_stopped(tmp_path: Path, media: Any, opened: Callable[..., Library]) -> None:
    for number in range(5):
        media.photo(tmp_path / "album" / f"{number}" / "a.jpg", RED, seed=number)
    library = opened()
    library.index([tmp_path / "album"])
    media.photo(tmp_path / "album" / "0" / "b.jpg", BLUE)
    (tmp_path / "album" / "4" / "a.jpg").unlink()
    stop = threading.Event()
    seen: list[IndexProgress] = []

    def stop_at_once(step: IndexProgress) -> None:
        seen.append(step)
        stop.set()

    report = library.index([tmp_path / "album"], progress=stop_at_once, stop=stop)
    assert [step.stage for step in seen] == ["scan"]  # one folder of six was looked at
    assert (report.items, *changes(report)) == (5, 0, 0, 0, 0)
    assert report.failed == ()


def test_making_a_model_ready_can_be_stopped(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Library]
) -> None:
    opened().close()
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    stop = threading.Event()
    steps: list[str] = []

    def model_step(step: str, _fraction: float) -> None:
        steps.append(step)
        stop.set()

    with Library.open(tmp_path / "library", model="tiny", settings=SETTINGS, progress=model_step) as library:
        report = library.index([album], stop=stop)
    assert len(steps) == 1
    assert (report.items, *changes(report)) == (0, 0, 0, 0, 0)
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_an_interrupt_passes_through_and_keeps_what_was_read(
    tmp_path: Path, media: Any, opened: Callable[..., Library]
) -> None:
    for number in range(20):
        media.photo(tmp_path / "album" / f"{number:02}.jpg", RED, seed=number)
    library = opened(IndexSettings(WorkerSettings(1), batch_layers=4))

    def interrupt(step: IndexProgress) -> None:
        if step.stage == "embed" and step.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.index([tmp_path / "album"], progress=interrupt)
    kept = library.status().counts.items
    assert 8 <= kept < 20
    assert changes(library.index([tmp_path / "album"])) == (20 - kept, 0, kept, 0)


def test_searching_starts_no_process_and_imports_no_decoder(world: tuple[Path, Path, Any]) -> None:
    program = (
        "import subprocess, sys\n"
        "def refuse(*arguments, **options): raise RuntimeError('a process was started')\n"
        "subprocess.Popen.__init__ = refuse\n"
        "from qvl_local.runtime import Library\n"
        f"assert Library.open({str(world[1])!r}).search('two dogs').hits\n"
        "print([name for name in ('av', 'torch', 'transformers', 'onnx_ir') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_dates_of_hits_are_those_of_the_camera(
    tmp_path: Path, media: Any, opened: Callable[..., Library]
) -> None:
    exif = Image.Exif()
    exif[0x0110] = "EOS R6"
    exif.get_ifd(0x8769)[0x9003] = "2021:02:03 04:05:06"
    media.photo(tmp_path / "album" / "a.jpg", RED, exif=exif)
    library = opened()
    library.index([tmp_path / "album"])
    (hit,) = library.search("red", filters=Filters(camera="eos")).hits
    assert hit.taken_at == datetime(2021, 2, 3, 4, 5, 6)
