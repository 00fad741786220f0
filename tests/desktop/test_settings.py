from pathlib import Path

import pytest
from qvl_local.desktop import settings
from qvl_local.desktop.machine import can_write, free_bytes, read_machine
from qvl_local.desktop.settings import Settings
from qvl_local.runtime.errors import InputError


def test_the_default_library_is_in_the_user_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "user_data_folder", lambda: tmp_path)
    read = Settings.read()
    assert read.library == tmp_path / "library"
    assert settings.default_demo_library() == tmp_path / "demo"
    assert read.model is None


def test_a_named_library_is_made_absolute_and_links_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Settings.read(library="here/../there").library == tmp_path / "there"
    assert Settings.read(library="~/library").library == tmp_path / "home" / "library"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Settings.read(library="link").library == tmp_path / "link"


def test_a_file_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="is a file"):
        Settings.read(library=str(tmp_path / "file"))
    with pytest.raises(InputError, match="--library"):
        Settings.read(library=" ")
    with pytest.raises(InputError, match="--model"):
        Settings.read(model="")


def test_the_machine_tells_its_facts(tmp_path: Path) -> None:
    machine = read_machine()
    assert machine.cores >= 1
    assert machine.memory_bytes is None or machine.memory_bytes > 2**28
    assert free_bytes(tmp_path / "not" / "there") == pytest.approx(free_bytes(tmp_path), rel=0.2)
    assert can_write(tmp_path / "not" / "there")
    (tmp_path / "file").write_bytes(b"")
    assert not can_write(tmp_path / "file" / "below")
