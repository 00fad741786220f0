"""What the search commands ask for, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from qvl_local.desktop.queries import check_file
from qvl_local.runtime.errors import InputError


def test_a_file_may_be_called_like_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody-of-that-name").write_bytes(b"")
    assert check_file("~nobody-of-that-name", "FILE") == tmp_path / "~nobody-of-that-name"
    with pytest.raises(InputError, match="no such file"):
        check_file("~nobody-else", "FILE")


def test_the_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"")
    assert check_file("~/a.jpg", "FILE") == tmp_path / "a.jpg"
    with pytest.raises(InputError, match="is a folder; name one file"):
        check_file("~", "FILE")
