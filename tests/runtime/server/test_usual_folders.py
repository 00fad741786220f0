"""The folders that are offered to somebody who has named none, in homes that are made up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.server import usual_folders as module
from qvl_local.runtime.server.usual_folders import UsualFolder, usual_folders

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system names the folders")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home" / "ana"
    (home / ".config").mkdir(parents=True)
    for variable in ("XDG_CONFIG_HOME", "XDG_PICTURES_DIR", "XDG_VIDEOS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "ana")
    return home


def fill(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def offered(home: Path, **options: Any) -> list[tuple[str, str, int | None]]:
    options.setdefault("mounts", ())
    return [
        (one.kind, str(Path(one.path).relative_to(home.parent.parent)), one.count)
        for one in usual_folders(**options)
    ]


def test_folders_in_the_language_of_the_system(home: Path) -> None:
    (home / ".config" / "user-dirs.dirs").write_text(
        '# made by the system\nXDG_PICTURES_DIR="$HOME/Bilder"\nXDG_VIDEOS_DIR="$HOME/Meine Videos"\n'
    )
    fill(home / "Bilder", "a.jpg", "2024/b.HEIC", "2024/notes.txt", ".hidden/c.jpg", "@eaDir/d.jpg")
    fill(home / "Meine Videos", "a.mov")
    fill(home / "Documents", "scan.jpg")
    assert offered(home) == [
        ("pictures", "home/ana/Bilder", 2),
        ("videos", "home/ana/Meine Videos", 1),
        ("home", "home/ana", 4),
    ]


def test_a_phones_folders_other_systems_and_uploads(home: Path) -> None:
    fill(home / "Pictures", "notes.txt")  # nothing to see there
    fill(home / "DCIM", "Camera/1.jpg", "Camera/2.jpg")
    fill(home / "Movies", "1.mp4")
    fill(home / "Dropbox" / "Camera Uploads", "1.jpg")
    found = usual_folders(mounts=())
    assert [(one.name, one.count) for one in found] == [
        ("DCIM", 2),
        ("Movies", 1),
        ("Dropbox Camera Uploads", 1),
        ("ana", 4),
    ]


def test_only_what_is_there_each_once(home: Path) -> None:
    assert offered(home) == [("home", "home/ana", 0)]
    fill(home / "Pictures", "1.jpg")
    (home / "Photos").symlink_to(home / "Pictures")
    (home / "Videos").write_text("a file")
    (home / "Movies").symlink_to(home / "gone")
    assert offered(home) == [("pictures", "home/ana/Pictures", 1), ("home", "home/ana", 1)]


def test_disks_that_are_connected(home: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    fill(media / "CAMERA CARD" / "DCIM", "1.jpg")
    fill(media / "not a disk")
    fill(media / ".hidden disk")
    (media / "Old disk").mkdir()
    found = usual_folders(
        mounts=(str(media), str(tmp_path / "gone")), is_disk=lambda path: "disk" not in Path(path).name
    )
    assert [one for one in found if one.kind == "disk"] == [
        UsualFolder("disk", "CAMERA CARD", str(media / "CAMERA CARD"), None)
    ]


def test_what_is_searched_already_is_not_offered(home: Path) -> None:
    fill(home / "Pictures", "1.jpg")
    fill(home / "Videos", "1.mp4")
    assert offered(home, known=[str(home / "Pictures")]) == [
        ("videos", "home/ana/Videos", 1),
        ("home", "home/ana", 2),
    ]
    assert offered(home, known=[str(home)]) == []


def test_counting_ends(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(home / "Pictures", *(f"{number}.jpg" for number in range(20)))
    monkeypatch.setattr(module, "MOST_COUNTED", 7)
    assert offered(home)[0] == ("pictures", "home/ana/Pictures", 7)
    monkeypatch.setattr(module, "_PATIENCE_S", -1.0)
    assert offered(home)[0] == ("pictures", "home/ana/Pictures", None)
