"""Showing a file: which programs are started, with which arguments, and what is said without a desktop."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from qvl_local.runtime.server import file_manager
from qvl_local.runtime.server.file_manager import NoDesktopError, can_show, show

ODD = "a, 'quoted' \"name\" $(touch pwned) `x`; rm -rf ~ é.jpg"

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="the programs of Linux desktops")


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A display, and a PATH with programs that note their arguments, byte for byte."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("dbus-send", "xdg-open"):
        noting = programs / name
        noting.write_text(
            f"#!{sys.executable}\n"
            "import os, sys\n"
            f"with open(os.path.join({str(tmp_path)!r}, 'asked'), 'ab') as file:\n"
            "    file.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])) + b'\\n')\n"
            f"sys.exit(os.path.exists({str(tmp_path / 'no bus')!r}) and {name!r} == 'dbus-send')\n"
        )
        noting.chmod(noting.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setattr(file_manager, "_LIMIT_S", 60.0)
    return tmp_path


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    can_show.cache_clear()
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)


def asked(desktop: Path) -> list[list[str]]:
    lines = (desktop / "asked").read_bytes().splitlines()
    return [[os.fsdecode(part) for part in line.split(b"\0")] for line in lines]


def test_a_file_is_shown_through_the_bus_as_one_argument(desktop: Path) -> None:
    show(f"/photos/{ODD}")
    (arguments,) = asked(desktop)
    (items,) = [argument for argument in arguments if argument.startswith("array:")]
    assert items.startswith("array:string:file:///photos/a%2C%20%27quoted%27%20%22name%22%20%24%28touch")
    assert "," not in items
    assert "org.freedesktop.FileManager1.ShowItems" in arguments


def test_without_a_bus_the_folder_is_opened(desktop: Path) -> None:
    (desktop / "no bus").touch()
    show(f"/photos/-odd/{ODD}")
    assert asked(desktop)[-1] == ["/photos/-odd"]


def test_without_a_desktop_it_says_so() -> None:
    assert not can_show()
    with pytest.raises(NoDesktopError, match="no desktop"):
        show("/photos/a.jpg")


def test_without_a_file_manager_it_says_so(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_show()
    monkeypatch.setenv("PATH", str(desktop / "empty"))
    with pytest.raises(NoDesktopError, match="No file manager"):
        show("/photos/a.jpg")
