"""Copies are found whatever was done to them, and other shots of the same scene are not taken for copies."""

from __future__ import annotations

import io
import os
import random
import shutil
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime import Library
from qvl_local.runtime.errors import StoppedError
from qvl_local.runtime.library.cropping import best_windows
from qvl_local.runtime.library.duplicates import DuplicateGroup
from qvl_local.runtime.library.fingerprint import hashes, luma
from qvl_local.runtime.library.grouping import grouped
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.likeness import SAME, Window, difference, difference_of_part
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.world.render import Renderer
from qvl_local.runtime.world.vocabulary import PLACES

STAGE, WIDTH, HEIGHT = 640, 560, 420
SCENES = 4


def scene(renderer: Renderer, number: int, *, moved: float = 0.0) -> Image.Image:
    """A rendered place with three things, larger than a picture of it; the thing in front may have moved."""
    rng = random.Random(number)
    stage = renderer.stage(random.Random(number), number % len(PLACES), number % 3, STAGE)
    for index in range(3):
        thing, side = rng.randrange(20), rng.choice([16, 24, 34])
        x, y = rng.uniform(40, 85), rng.uniform(50, 85)
        at = x + (moved if index == 2 else 0)
        stage.put_exactly(thing, 0, side, at, y, flipped=False, step=0, size=1)
    return stage.image.convert("RGB")


def shot(stage: Image.Image, *, left: float = 0.0, seed: int = 0) -> Image.Image:
    """A photograph of a stage, with the noise of a sensor; `left`: how far the camera turned, in widths."""
    x, y = (STAGE - WIDTH) / 2 + left * WIDTH, (STAGE - HEIGHT) / 2
    seen = stage.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=(x, y, x + WIDTH, y + HEIGHT))
    noise = np.random.default_rng(seed).normal(0, 2, (HEIGHT, WIDTH, 3))
    return Image.fromarray(np.clip(np.asarray(seen, np.float64) + noise, 0, 255).astype(np.uint8))


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def write_film(path: Path, stage: Image.Image, *, size: tuple[int, int], moving: float, crf: int) -> None:
    """Four seconds of a camera that turns over a stage."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": str(crf)}
        for number in range(48):
            pixels = np.asarray(shot(stage, left=moving * (number - 24) / 48, seed=number).resize(size))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 12)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each scene a picture, copies of it in a folder "same", and other shots in a folder "other"."""
    renderer, root = Renderer(), tmp_path_factory.mktemp("album")
    for number in range(SCENES):
        here = root / str(number)
        (here / "same").mkdir(parents=True)
        (here / "other").mkdir()
        stage = scene(renderer, number)
        picture = shot(stage, seed=number)
        picture.save(here / "picture.png")
        shutil.copyfile(here / "picture.png", here / "same" / "copy.png")
        picture.save(here / "same" / "poor.jpg", quality=40)
        picture.save(here / "same" / "modern.webp", quality=70)
        picture.resize((WIDTH // 2, HEIGHT // 2)).save(here / "same" / "half.jpg", quality=85)
        cut(picture, 0.04, 0.04, 0.04, 0.04).save(here / "same" / "cut.jpg", quality=90)
        cut(picture, 0.0, 0.08, 0.03, 0.0).save(here / "same" / "cut more.jpg", quality=90)
        shot(scene(renderer, number, moved=6), seed=50 + number).save(here / "other" / "moved.png")
        shot(stage, left=0.06, seed=60 + number).save(here / "other" / "turned.png")
    stage = scene(renderer, 9)
    write_film(root / "film.mp4", stage, size=(320, 240), moving=0.12, crf=18)
    write_film(root / "film small.mp4", stage, size=(240, 180), moving=0.12, crf=32)
    write_film(root / "other film.mp4", scene(renderer, 10), size=(320, 240), moving=0.12, crf=18)
    write_film(root / "back.mp4", stage, size=(320, 240), moving=-0.12, crf=18)
    return root


@pytest.fixture(scope="module")
def indexed(album: Path, tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str) -> Path:
    home = tmp_path_factory.mktemp("duplicates") / "library"
    with Library.open(home, model=tiny_bundle, settings=IndexSettings(workers=WorkerSettings(2))) as library:
        assert library.index([album]).failed == ()
    return home


@pytest.fixture
def library(indexed: Path, tmp_path: Path) -> Iterator[Library]:
    shutil.copytree(indexed, tmp_path / "library")
    with Library.open(tmp_path / "library", create=False) as library:
        yield library


def names(library: Library, album: Path, group: DuplicateGroup) -> list[str]:
    items = (library.media(media_id) for media_id in group.ids)
    return [str(Path(item.path).relative_to(album)) for item in items if item is not None]


def test_copies_are_one_group_and_other_shots_are_not(library: Library, album: Path) -> None:
    groups = library.duplicates()
    same = {frozenset(names(library, album, group)) for group in groups if group.kind == "same"}
    copies = ("copy.png", "poor.jpg", "modern.webp", "half.jpg", "cut.jpg", "cut more.jpg")
    expected = {
        frozenset([f"{number}/picture.png", *(f"{number}/same/{name}" for name in copies)])
        for number in range(SCENES)
    }
    assert same == expected | {frozenset(["film.mp4", "film small.mp4"])}


def test_the_best_comes_first_and_near_shots_are_apart(library: Library, album: Path) -> None:
    groups = library.duplicates()
    kinds = [group.kind for group in groups]
    assert kinds == sorted(kinds, reverse=True)
    for group in groups:
        assert 0 <= group.distance <= 1
        first, *_ = names(library, album, group)
        if group.kind == "same":
            assert first in {"film.mp4", *(f"{n}/picture.png" for n in range(SCENES))} or first.endswith(
                "copy.png"
            )
        else:
            assert len({name.partition("/")[0] for name in names(library, album, group)}) == 1
    near = {name for group in groups if group.kind == "near" for name in names(library, album, group)}
    assert {f"{number}/other/moved.png" for number in range(SCENES)} <= near
    assert not {name for name in near if "/same/poor" in name}


def test_what_was_found_is_remembered_until_the_library_changes(library: Library, album: Path) -> None:
    told: list[str] = []
    first = library.duplicates(progress=lambda at: told.append(at.stage))
    assert {"look", "compare"} <= set(told)
    told.clear()
    assert library.duplicates(progress=lambda at: told.append(at.stage)) == first
    assert told == []
    library.remove([album / "0" / "same"])
    after = library.duplicates(progress=lambda at: told.append(at.stage))
    assert "look" not in told  # fingerprints are kept
    assert {
        name for group in after for name in names(library, album, group) if name.startswith("0/same")
    } == set()
    with Library.open(library.path, create=False) as another:
        told.clear()
        assert another.duplicates(progress=lambda at: told.append(at.stage)) == after
        assert "look" not in told


@pytest.mark.skipif("os.name != 'posix'", reason="links need a privilege on Windows")
def test_names_of_one_file_are_no_duplicates(album: Path, tmp_path: Path, tiny_bundle: str) -> None:
    here = tmp_path / "photos"
    for name in ("hidden/.kept/z.png", "a.png", "copies/b.png"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(album / "0" / "picture.png", here / "a.png")
    os.link(here / "a.png", here / "hard link.png")
    shutil.copyfile(album / "1" / "picture.png", here / "hidden/.kept/z.png")
    (here / "l.png").symlink_to(here / "hidden/.kept/z.png")
    (here / "m.png").symlink_to(here / "hidden/.kept/z.png")
    with Library.open(
        tmp_path / "library", model=tiny_bundle, settings=IndexSettings(workers=WorkerSettings(1))
    ) as library:
        assert library.index([here]).items == 4
        assert library.duplicates() == ()
        shutil.copyfile(here / "a.png", here / "copies" / "b.png")
        library.index([here])
        (group,) = library.duplicates()
        assert sorted(names(library, here, group)) == ["a.png", "copies/b.png"]


def test_a_search_can_be_stopped(library: Library) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        library.duplicates(stop=stop)
    assert library.duplicates()


def test_without_previews_only_bytes_tell(library: Library, album: Path) -> None:
    for file in library.path.glob("previews.db*"):
        file.unlink()
    groups = [names(library, album, group) for group in library.duplicates()]
    assert sorted(map(sorted, groups)) == [[f"{n}/picture.png", f"{n}/same/copy.png"] for n in range(SCENES)]


def test_of_the_same_bytes_the_plain_name_comes_first_then_the_older_file(
    tmp_path: Path, tiny_bundle: str
) -> None:
    pictures = tmp_path / "pictures"
    content = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(content, "PNG")
    for age, name in enumerate(["new/house.png", "house.png", "house - Kopie.png", "house (1).png"]):
        file = pictures / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.getvalue())
        os.utime(file, (1_700_000_000 - age, 1_700_000_000 - age))
    settings = IndexSettings(workers=WorkerSettings(1))
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=settings) as library:
        for name in ("house (1).png", "house - Kopie.png"):  # met first
            library.index([pictures / name])
        library.index([pictures])
        (group,) = library.duplicates()
        assert names(library, pictures, group) == [
            "house.png",
            str(Path("new/house.png")),
            "house (1).png",
            "house - Kopie.png",
        ]


def test_no_chain_joins_what_differs() -> None:
    edges = {(0, 1): 0.01, (1, 2): 0.01, (2, 3): 0.01}
    heads, groups = grouped([0, 1, 2, 3], edges)
    assert [members for members, _ in groups] == [(0, 1), (2, 3)]
    assert heads == {0, 2}
    assert [members for members, _ in grouped([1, 0, 2, 3], edges)[1]] == [(1, 0, 2)]


def test_a_hash_hardly_changes_with_quality_and_does_with_content() -> None:
    renderer = Renderer()
    pictures = [shot(scene(renderer, number), seed=number) for number in range(8)]
    whole = hashes(np.stack([luma(picture) for picture in pictures]))
    third = hashes(np.stack([luma(picture.resize((WIDTH // 3, HEIGHT // 3))) for picture in pictures]))
    assert np.bitwise_count(whole ^ third).max() <= 8
    apart = np.bitwise_count(whole[:, None] ^ whole[None])
    assert apart[~np.eye(8, dtype=bool)].min() > 8


@pytest.mark.parametrize(
    "edges", [(0.05, 0.05, 0.05, 0.05), (0.12, 0, 0, 0), (0, 0.1, 0.02, 0.03), (0.1, 0, 0.1, 0)]
)
def test_a_cut_is_found_where_it_lies(edges: tuple[float, float, float, float]) -> None:
    picture = shot(scene(Renderer(), 3))
    part = cut(picture, *edges)
    stretch = np.log(part.width / part.height) - np.log(picture.width / picture.height)
    (window,), (score,) = best_windows(luma(picture)[None], luma(part)[None], np.array([stretch]))
    assert score > 0.7
    assert window == pytest.approx(
        [edges[0], edges[1], 1 - edges[0] - edges[2], 1 - edges[1] - edges[3]], abs=0.06
    )
    assert difference_of_part(picture, part, Window(*window)) < SAME
    assert difference_of_part(part, picture, Window(0, 0, 1, 1)) > SAME
    assert noticed(picture, part)


def noticed(picture: Image.Image, part: Image.Image) -> bool:
    """Whether a cut is seen when the pictures are compared as they are."""
    apart = difference(picture, part)
    return apart is None or apart > SAME


def test_a_small_thing_that_moved_is_noticed() -> None:
    renderer = Renderer()
    apart = difference(shot(scene(renderer, 5), seed=1), shot(scene(renderer, 5, moved=3), seed=2))
    assert apart is not None
    assert apart > SAME
    again = difference(shot(scene(renderer, 5), seed=1), shot(scene(renderer, 5), seed=2))
    assert again is not None
    assert again < SAME / 2
