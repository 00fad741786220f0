"""Tables as a terminal gets them: links, escaping, and what they say."""

import io
import re
from datetime import datetime
from pathlib import Path

import pytest
from qvl_local.desktop import tables
from qvl_local.desktop.console import stdout_console
from qvl_local.runtime.library.no_match import is_no_match
from qvl_local.runtime.library.records import Failure, Hit, IndexReport, SearchResult
from rich.console import Console

EVIL = "\x1b]8;;http://evil\x1b\\click\x1b[2J\n\r\u202e.jpg"


def hit(**changes: object) -> Hit:
    values: dict[str, object] = {
        "rank": 1,
        "media_id": 1,
        "path": str(Path("/pictures/2024/beach.jpg").absolute()),
        "kind": "photo",
        "score": 0.9,
        "embedding_score": 0.5,
        "reranker_score": 0.8,
        "start_s": None,
        "end_s": None,
        "taken_at": datetime(2024, 5, 3, 21, 4),
        "width": 640,
        "height": 480,
    }
    return Hit(**{**values, **changes})  # type: ignore[arg-type]


def shown(*hits: Hit, terminal: bool = True, width: int = 100) -> str:
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=terminal, width=width, color_system="truecolor" if terminal else None
    )
    tables.print_search(SearchResult("dogs", hits, {"embed": 12.3, "search": 0.4}), console=console)
    return file.getvalue()


def test_a_terminal_gets_links_to_the_files() -> None:
    assert "\x1b]8;id=" in shown(hit())
    assert Path("/pictures/2024/beach.jpg").absolute().as_uri() in shown(hit())


def test_no_name_speaks_to_the_terminal() -> None:
    printed = shown(hit(path="/pictures/" + EVIL), width=200)
    ours = re.sub(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b]*\x1b\\", "", printed)
    assert "\x1b" not in ours
    assert "\r" not in ours
    assert "\u202e" not in ours
    assert "\\x1b]8;;http://evil" in ours
    links = re.findall(r"\x1b\]8;[^;]*;([^\x1b]*)\x1b\\", printed)
    assert {link.split(":")[0] for link in links if link} == {"file"}


def test_names_that_are_not_unicode_are_shown_and_linked() -> None:
    printed = shown(hit(path="/pictures/caf\udce9.jpg"))
    assert "caf\\xe9.jpg" in printed
    assert "caf%E9.jpg" in printed


def test_moments_and_dates_have_columns_only_when_there_are_any() -> None:
    film = hit(kind="video", start_s=12.0, end_s=20.5)
    assert "0:12–0:20" in shown(film, terminal=False)
    assert "2024-05-03 21:04" in shown(film, terminal=False)
    bare = shown(hit(taken_at=None), terminal=False)
    assert "moment" not in bare
    assert "taken" not in bare


@pytest.mark.parametrize(
    ("probabilities", "is_good"),
    [
        ([0.1, 0.6], True),
        ([0.1, 0.5], True),
        ([0.49, 0.1], False),
        ([None, None], True),
        ([0.4, None], False),
    ],
)
def test_a_poor_result_says_so(probabilities: list[float | None], is_good: bool) -> None:
    hits = [hit(reranker_score=p) for p in probabilities]
    printed = shown(*hits, terminal=False)
    assert ("No good match. The closest are probably something else:" in printed) is not is_good
    # The page is told the same.
    assert is_no_match(SearchResult("dogs", tuple(hits), {})) is not is_good
    assert not is_no_match(SearchResult(None, tuple(hits), {}))  # a picture alone


def test_output_for_a_pipe_is_neither_cut_nor_padded() -> None:
    long = "/pictures/" + "x" * 300 + ".jpg"
    file = io.StringIO()
    console = Console(file=file, width=10_000)
    tables.print_search(SearchResult("dogs", (hit(path=long), hit()), {}), console=console)
    assert long in file.getvalue()
    assert not [line for line in file.getvalue().splitlines() if line != line.rstrip() or not line]


def test_lines_for_a_pipe_are_as_long_as_what_they_say() -> None:
    long = "/pictures/" + "x" * 300 + ".jpg"
    file = io.StringIO()
    tables.print_search(
        SearchResult("dogs", (hit(path=long), hit()), {}), console=Console(file=file, width=10_000)
    )
    assert sorted(len(line) > 100 for line in file.getvalue().splitlines()) == [False, False, True]


def test_no_color_means_no_escapes_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert stdout_console().color_system is not None
    monkeypatch.setenv("NO_COLOR", "1")
    console = stdout_console()
    with console.capture() as captured:
        tables.print_search(SearchResult("dogs", (hit(),), {}), console=console)
    assert "\x1b" not in captured.get()


def test_a_long_list_of_failures_is_cut() -> None:
    failed = tuple(Failure(f"/pictures/{i}.jpg", "the file is empty") for i in range(25))
    file = io.StringIO()
    report = IndexReport(1, 1, 0, 1, 1, 0, 0, 0, failed, 2.0)
    tables.print_index(report, console=Console(file=file, width=200))
    assert "25 files could not be used" in file.getvalue()
    assert "/pictures/19.jpg" in file.getvalue()
    assert "/pictures/20.jpg" not in file.getvalue()
    assert "... and 5 more" in file.getvalue()


@pytest.mark.parametrize(
    ("fraction", "expected"), [(-1, " " * 8), (0, " " * 8), (0.5, "████    "), (1, "█" * 8), (7, "█" * 8)]
)
def test_bar(fraction: float, expected: str) -> None:
    assert tables.bar(fraction) == expected


def test_bar_shows_eighths() -> None:
    assert tables.bar(1 / 64) == "▏" + " " * 7
    assert len({tables.bar(i / 64) for i in range(65)}) == 65
