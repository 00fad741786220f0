"""The sample library: real files with real metadata, safe to make, cheap to make again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from qvl_local.runtime.errors import InputError, LibraryStorageError
from qvl_local.runtime.world import demo
from qvl_local.runtime.world.album import plan_album
from qvl_local.runtime.world.demo import (
    MARKER,
    SampleItem,
    demo_queries,
    make_sample_library,
    read_sample_library,
)
from qvl_local.runtime.world.render import Renderer
from qvl_local.runtime.world.vocabulary import ANY, PLACES, Kind, Slot, Time, Weather

PHOTOS, CLIPS = 40, 4


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "Sample library"
    make_sample_library(folder, photos=PHOTOS, clips=CLIPS, workers=2)
    return folder


@pytest.fixture(scope="module")
def items(library: Path) -> list[SampleItem]:
    return read_sample_library(library)


def read_photo(path: Path) -> tuple[Image.Image, Image.Exif]:
    if path.suffix == ".HEIC":
        image = pillow_heif.open_heif(path).to_pillow()
        return image, image.getexif()
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image), image.getexif()


def decode_clip(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_file_is_there_and_nothing_else(library: Path, items: list[SampleItem]) -> None:
    assert Counter(item.kind for item in items) == {Kind.PHOTO: PHOTOS, Kind.CLIP: CLIPS}
    listed = {item.path.relative_to(library.resolve()).as_posix() for item in items}
    assert listed | {MARKER} == set(files_of(library))
    assert {name.split("/")[0] for name in listed} == {"Photos", "Videos"}
    assert Counter(item.path.suffix.lower() for item in items)[".heic"] > 0


def test_photographs_show_their_scenes_upright(items: list[SampleItem]) -> None:
    shots = {Path(shot.path).name: shot for shot in plan_album(seed=1, photos=PHOTOS, clips=CLIPS)}
    renderer = Renderer()
    turned = 0
    for item in items:
        if item.kind == Kind.CLIP:
            continue
        shot = shots[item.path.name]
        image, exif = read_photo(item.path)
        turned += exif.get(0x0112, 1) != 1
        shown = np.asarray(image.convert("RGB")).astype(int)
        assert 512 <= shown.shape[0] <= 768
        assert np.abs(shown - renderer.image(item.moments[0].scene, shot.seed, shot.size)).mean() < 4
    assert turned > 0


def test_photographs_say_when_where_and_how(items: list[SampleItem]) -> None:
    for item in items:
        if item.kind == Kind.CLIP:
            continue
        _, exif = read_photo(item.path)
        taken_at = exif.get_ifd(0x8769)[0x9003]
        assert datetime.strptime(taken_at, "%Y:%m:%d %H:%M:%S") == item.taken_at
        assert exif[0x0110] == item.camera
        gps = exif.get_ifd(0x8825)
        for reference, parts, value in ((gps[1], gps[2], item.latitude), (gps[3], gps[4], item.longitude)):
            degrees = float(parts[0]) + float(parts[1]) / 60 + float(parts[2]) / 3600
            assert (-degrees if reference in "SW" else degrees) == pytest.approx(value, abs=1e-4)


def test_clips_are_films_of_their_scenes(items: list[SampleItem]) -> None:
    clips = [item for item in items if item.kind == Kind.CLIP]
    for item in clips:
        with av.open(str(item.path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
            metadata = container.metadata
        assert metadata["creation_time"].startswith(item.taken_at.isoformat())
        assert metadata["com.apple.quicktime.model"] == item.camera
        place = f"{item.latitude:+08.4f}{item.longitude:+09.4f}/"
        assert metadata["com.apple.quicktime.location.ISO6709"] == place
        frames = decode_clip(item.path)
        assert 8 <= item.moments[-1].end_s <= 17
        assert len(frames) == pytest.approx(item.moments[-1].end_s * 8, abs=2)
        # A cut is where the picture changes most, and it is where the truth says.
        jumps = np.abs(np.diff(frames[:, ::8, ::8].astype(int), axis=0)).mean((1, 2, 3))
        for moment in item.moments[1:]:
            cut = round(moment.start_s * 8)
            assert jumps[cut - 2 : cut + 2].max() > 15
    assert any(len(item.moments) > 1 for item in clips)


def test_times_and_seasons_are_plausible() -> None:
    shots = plan_album(seed=3, photos=300, clips=40)
    assert {shot.taken_at.year for shot in shots} == set(range(2019, 2026))
    assert [shot.taken_at for shot in shots] == sorted(shot.taken_at for shot in shots)
    assert len({shot.path.lower() for shot in shots}) == len(shots)
    for shot in shots:
        scene = shot.scenes[0]
        if scene[Slot.WEATHER] == Weather.SNOW or PLACES[scene[Slot.PLACE]].name == "snow":
            assert shot.taken_at.month in (12, 1, 2)
        hour = shot.taken_at.hour
        if scene[Slot.TIME] == Time.NIGHT:
            assert hour >= 18
        if scene[Slot.TIME] == Time.DAY:
            assert 9 <= hour < 18
        assert shot.path.startswith(
            f"{'Photos' if shot.kind == Kind.PHOTO else 'Videos'}/{shot.taken_at.year}"
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_full_library_answers_its_queries(seed: int) -> None:
    shots = plan_album(seed=seed, photos=300, clips=40)
    assert len(shots) == 340
    for asked in demo_queries():
        held = sum(any(demo.match(asked.constraints[None], np.stack(shot.scenes))[0]) for shot in shots)
        assert held >= 3, asked.text
        assert held < 30, asked.text
        assert (asked.constraints != ANY).any()


def test_the_first_query_names_two_dogs(items: list[SampleItem]) -> None:
    asked = demo_queries()[0]
    assert asked.text == "two dogs on a beach at night"
    assert sum(item.answers(asked.constraints) for item in items) >= 3


def test_the_seed_alone_decides_the_files(library: Path, tmp_path: Path) -> None:
    small = {"photos": 4, "clips": 1}
    make_sample_library(tmp_path / "a", **small, workers=1)
    make_sample_library(tmp_path / "b", **small, workers=3)
    make_sample_library(tmp_path / "c", **small, seed=2)
    a, b, c = (files_of(tmp_path / name) for name in "abc")
    assert a == b
    assert set(a.values()).isdisjoint(c.values())


def test_a_second_run_changes_nothing(library: Path, items: list[SampleItem]) -> None:
    before = {path: path.stat().st_mtime_ns for path in library.rglob("*")}
    again = make_sample_library(library, photos=PHOTOS, clips=CLIPS)
    assert {path: path.stat().st_mtime_ns for path in library.rglob("*")} == before
    assert [item.path for item in again] == [item.path for item in items]


def test_an_interrupted_run_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write_photo = demo.write_photo

    def stop_after_three(path: Path, pixels: NDArray[np.uint8], **options: object) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_photo(path, pixels, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(demo, "write_photo", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            make_sample_library(tmp_path / "demo", photos=8, clips=0, workers=1)
    kept = files_of(tmp_path / "demo")
    assert len(kept) == 4  # three photographs and the marker
    steps: list[tuple[int, int]] = []
    make_sample_library(
        tmp_path / "demo", photos=8, clips=0, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(done, 8) for done in range(3, 9)]
    complete = files_of(tmp_path / "demo")
    assert len(complete) == 9
    assert kept.items() <= complete.items()


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me", encoding="utf-8")
    yield tmp_path / "mine"
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "keep me"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_folder_of_the_user_is_left_alone(foreign: Path) -> None:
    with pytest.raises(InputError, match=r"mine: holds files that are not a sample library\. Name a new"):
        make_sample_library(foreign, photos=1, clips=0)
    with pytest.raises(InputError, match="not a sample library"):
        read_sample_library(foreign)
    with pytest.raises(InputError, match=r"thesis\.txt: is a file"):
        make_sample_library(foreign / "thesis.txt", photos=1, clips=0)


def test_a_library_of_other_options_is_left_alone(tmp_path: Path) -> None:
    make_sample_library(tmp_path, photos=2, clips=0)
    before = files_of(tmp_path)
    with pytest.raises(InputError, match="made with other options or by another version"):
        make_sample_library(tmp_path, photos=3, clips=0)
    (tmp_path / MARKER).write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(InputError, match="made by another version"):
        make_sample_library(tmp_path, photos=2, clips=0)
    (tmp_path / MARKER).write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        make_sample_library(tmp_path, photos=2, clips=0)
    assert {name: digest for name, digest in files_of(tmp_path).items() if name != MARKER} == {
        name: digest for name, digest in before.items() if name != MARKER
    }


def test_a_file_that_the_user_changed_is_kept(tmp_path: Path) -> None:
    items = make_sample_library(tmp_path, photos=2, clips=0)
    items[0].path.write_bytes(b"mine now")
    make_sample_library(tmp_path, photos=2, clips=0)
    assert items[0].path.read_bytes() == b"mine now"


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    items = make_sample_library(tmp_path / "demo", photos=1, clips=0)
    items[0].path.unlink()
    photos = tmp_path / "demo" / "Photos"
    for folder in sorted((path for path in photos.rglob("*")), reverse=True):
        folder.rmdir()
    photos.rmdir()
    photos.symlink_to(outside, target_is_directory=True)
    with pytest.raises(InputError, match="leads out of"):
        make_sample_library(tmp_path / "demo", photos=1, clips=0)
    assert not [path for path in outside.rglob("*") if path.is_file()]


def test_counts_that_make_no_sense(tmp_path: Path) -> None:
    for photos, clips in ((0, 0), (-1, 5), (5, -1)):
        with pytest.raises(InputError, match="ask for one file at least"):
            make_sample_library(tmp_path / "demo", photos=photos, clips=clips)
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LibraryStorageError, match="cannot be written"):
        make_sample_library(tmp_path / "file" / "demo", photos=1, clips=0)


def test_a_full_disk_is_named_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(LibraryStorageError, match=r"\.(jpg|JPG): cannot be written \(No space left"):
        make_sample_library(tmp_path, photos=2, clips=0)
    assert list(files_of(tmp_path)) == [MARKER]


def test_the_marker_is_plain_json(library: Path) -> None:
    marker = json.loads((library / MARKER).read_text(encoding="utf-8"))
    assert set(marker) == {"format", "seed", "items"}
    assert all(len(moment["scene"]) == 17 for item in marker["items"] for moment in item["moments"])
