"""Walking folders: what is found, what is skipped, what is reported."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from qvl_local.runtime.library.records import Folder
from qvl_local.runtime.library.scanner import Walk, find, find_visible, walk, way_to


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def names(seen: Walk) -> list[str]:
    return [file.name.replace(os.sep, "/") for file in seen.files]


def scan(root: Path, start: str = "") -> Walk:
    return walk(Folder(7, str(root)), start=start)


def test_finds_every_format_in_order_of_names(tmp_path: Path) -> None:
    found = "a.jpg b/c.PNG b/d.heic e.webp f.gif g.bmp h.tiff i.avif"
    found += " j.mp4 k.MOV l.mkv m.webm n.avi o.m4v p.3gp q.mts r.cr2 s.DNG"
    touch(tmp_path, *found.split(), "notes.txt", "a.nef", "disk.raw", "script.py", "noextension")
    seen = scan(tmp_path)
    assert sorted(names(seen)) == sorted(found.split())
    assert seen.failures == ()
    assert names(scan(tmp_path)) == names(seen)


def test_a_file_carries_its_folder_size_and_time(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(5, 1_234_567_890_123_456_700))
    (file,) = scan(tmp_path).files
    assert (file.folder_id, file.size, file.mtime_ns) == (7, 5, 1_234_567_890_123_456_700)
    assert find(Folder(7, str(tmp_path)), "a.jpg") == file


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir/a.jpg",
        ".git/a.jpg",
        "node_modules/a.jpg",
        "#recycle/a.jpg",
        ".hidden/a.jpg",
        ".a.jpg",
        "._b.jpg",
        "Thumbnails/a.jpg",
        "x/.thumbnails/a.jpg",
        "$RECYCLE.BIN/a.jpg",
    ],
)
def test_skips_caches_waste_and_hidden_names(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "kept.jpg", name)
    assert names(scan(tmp_path)) == ["kept.jpg"]


def test_a_hidden_root_is_walked_when_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden/a.jpg")
    assert names(scan(tmp_path / ".hidden")) == ["a.jpg"]


def test_qvlignore_follows_the_rules_of_gitignore(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.jpg", "b.png", "raw/c.jpg", "trip/raw/d.jpg", "trip/e.png", "trip/keep.png", "top/f.jpg"
    )
    touch(tmp_path, "trip/top/g.jpg")
    (tmp_path / ".qvlignore").write_text("# pictures of screens\n*.png\nraw/\n/top\n!keep.png\n")
    assert names(scan(tmp_path)) == ["a.jpg", "trip/keep.png", "trip/top/g.jpg"]


def test_a_deeper_qvlignore_has_the_last_word(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "sub/b.png", "sub/c.jpg")
    (tmp_path / ".qvlignore").write_text("*.png\n")
    (tmp_path / "sub" / ".qvlignore").write_text("!b.png\n*.jpg\n")
    assert names(scan(tmp_path)) == ["sub/b.png"]


def test_a_pattern_that_cannot_be_used_stops_that_folder_only(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jpg")
    (tmp_path / "sub" / ".qvlignore").write_text("!\n")
    seen = scan(tmp_path)
    assert names(seen) == ["a.jpg"]
    assert ".qvlignore" in seen.failures[0].error
    assert not seen.covers(f"sub{os.sep}b.jpg")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["pipe", "endless", "large", "nowhere"])
def test_rules_that_are_no_text_file_stop_that_folder_only(tmp_path: Path, what: str) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jpg")
    rules = tmp_path / "sub" / ".qvlignore"
    match what:
        case "pipe":
            os.mkfifo(rules)
        case "endless":
            rules.symlink_to("/dev/zero")
        case "large":
            rules.write_bytes(b"*.png\n" * 200_000)
        case _:
            rules.symlink_to(tmp_path / "gone")
    seen = scan(tmp_path)
    assert names(seen) == ["a.jpg"]
    assert [failure.path for failure in seen.failures] == [str(tmp_path / "sub")]
    with pytest.raises((OSError, ValueError)):
        way_to(Folder(7, str(tmp_path)), f"sub{os.sep}b.jpg", is_folder=False)


@pytest.mark.parametrize("name", ["new\nline.jpg", "🐕 beach.jpg", "a b'\"$.jpg", "-rf.jpg", "日本.jpg"])
def test_strange_names_are_kept_as_they_are(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    assert names(scan(tmp_path)) == [name]


def test_a_name_that_is_no_utf8_survives(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.jpg").write_bytes(b"x")
    (found,) = scan(tmp_path).files
    assert os.fsencode(found.name) == b"caf\xe9.jpg"


def test_links_to_folders_are_not_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "root/a.jpg", "outside/b.jpg")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root", target_is_directory=True)
    (tmp_path / "root" / "away").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert names(scan(tmp_path / "root")) == ["a.jpg"]


def test_links_to_files_count_inside_the_root_only(tmp_path: Path) -> None:
    touch(tmp_path, "root/store/a.bin", "outside/b.jpg")
    (tmp_path / "root" / "in.jpg").symlink_to(tmp_path / "root" / "store" / "a.bin")
    (tmp_path / "root" / "out.jpg").symlink_to(tmp_path / "outside" / "b.jpg")
    (tmp_path / "root" / "self.jpg").symlink_to(tmp_path / "root" / "self.jpg")
    assert names(scan(tmp_path / "root")) == ["in.jpg"]


def test_a_link_to_a_file_that_is_found_is_no_second_one(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root, "album/a.jpg", "left out/b.jpg", ".git/annex/c.jpg", "a.nef")
    (root / ".qvlignore").write_text("left out/\n")
    for name, target in (
        ("favourite.jpg", "album/a.jpg"),
        ("b.jpg", "left out/b.jpg"),
        ("c.jpg", ".git/annex/c.jpg"),
        ("raw.nef", "a.nef"),
        ("twice.jpg", "favourite.jpg"),
    ):
        (root / name).symlink_to(root / target)
    assert sorted(names(scan(root))) == ["a.nef", "album/a.jpg", "b.jpg", "c.jpg"]
    folder = scan(root).folder
    assert find_visible(folder, "favourite.jpg").files == ()
    assert [file.name for file in find_visible(folder, "c.jpg").files] == ["c.jpg"]


def test_a_root_that_is_a_link_is_walked(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert names(scan(tmp_path / "link")) == ["a.jpg"]


def test_a_folder_called_like_a_photo_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "album.jpg/a.jpg")
    assert names(scan(tmp_path)) == ["album.jpg/a.jpg"]


def test_what_is_no_file_is_reported_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s.mp4"))
    listener.close()
    seen = scan(tmp_path)
    assert names(seen) == ["a.jpg"]
    assert {Path(failure.path).name for failure in seen.failures} == {"pipe.jpg", "s.mp4"}
    assert "not a file" in seen.failures[0].error


def test_a_missing_root_covers_nothing(tmp_path: Path) -> None:
    seen = scan(tmp_path / "gone")
    assert seen.files == ()
    assert "no such file" in seen.failures[0].error
    assert not seen.covers("anything.jpg")


def test_a_walk_may_start_further_down(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jpg", "sub/more/c.jpg")
    assert names(scan(tmp_path, "sub")) == ["sub/b.jpg", "sub/more/c.jpg"]
