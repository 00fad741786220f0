"""What the window and its icon ask of a server: a real one, over a library that holds nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qvl_local.desktop import cli
from qvl_local.desktop.window.server import Indexing, own_server
from qvl_local.runtime.server.settings import ServerSettings


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "pictures").mkdir()
    settings = ServerSettings(library=tmp_path / "library", model="tiny", port=0)
    with own_server(settings, [], check=lambda service: None) as url:
        yield url


def test_a_folder_that_is_taken_needs_no_words(url: str, tmp_path: Path) -> None:
    assert Indexing(url).add([str(tmp_path / "pictures")]) == ()


def test_a_folder_that_is_refused_is_told_with_the_reason(url: str, tmp_path: Path) -> None:
    own, missing = str(tmp_path / "library"), str(tmp_path / "missing")
    refusals = Indexing(url).add([own, str(tmp_path / "pictures"), missing])
    assert len(refusals) == 2
    for folder, refusal in zip((own, missing), refusals, strict=True):
        assert refusal.startswith(f"{folder} was not added: ")
        assert len(refusal) > len(f"{folder} was not added: ") + 10


def test_a_server_that_asks_for_a_token_or_is_gone_is_told_of(tmp_path: Path) -> None:
    settings = ServerSettings(
        library=tmp_path / "library", model="tiny", port=0, token="a secret of some length"
    )
    with own_server(settings, [], check=lambda service: None) as url:
        (refusal,) = Indexing(url, "wrong").add([str(tmp_path)])
        assert "token" in refusal.lower()
    (refusal,) = Indexing(url, "a secret of some length").add([str(tmp_path)])
    assert "does not answer" in refusal
    assert not Indexing(url, "a secret of some length").is_paused()


def test_the_icon_pauses_indexing_and_lets_it_go_on(url: str) -> None:
    indexing = Indexing(url)
    indexing.set_paused(True)
    assert indexing.is_paused()
    indexing.set_paused(False)
    assert not indexing.is_paused()


def test_the_command_says_which_folder_a_running_server_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    library = str(tmp_path / "library")
    assert cli.run(["desktop", "--library", library, "--json", library]) == 0
    said = capsys.readouterr()
    assert url in said.out
    assert f"{library} was not added: " in said.err.replace("\n", " ")
