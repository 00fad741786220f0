import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qvl_local.desktop import text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("IMG_0001.jpg", "IMG_0001.jpg"),
        ("Grüße 🐕 日本.jpg", "Grüße 🐕 日本.jpg"),
        ("👨‍👩‍👧.jpg", "👨‍👩‍👧.jpg"),
        ("two\nlines\r\t.jpg", "two\\nlines\\r\\t.jpg"),
        ("\x1b[31mred\x1b]8;;http://evil\x07.jpg", "\\x1b[31mred\\x1b]8;;http://evil\\x07.jpg"),
        ("\x9b31m.jpg", "\\x9b31m.jpg"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("line\u2028sep", "line\\u2028sep"),
        ("caf\udce9.jpg", "caf\\xe9.jpg"),
    ],
)
def test_printable_shows_what_a_terminal_would_obey(raw: str, shown: str) -> None:
    assert text.printable(raw) == shown


@given(st.text(st.characters()))
def test_printable_never_leaves_a_control_character(raw: str) -> None:
    shown = text.printable(raw)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    shown.encode("utf-8")


def test_valid_unicode_replaces_only_what_utf8_cannot_carry() -> None:
    assert text.valid_unicode("a\nb é") == "a\nb é"
    assert text.valid_unicode("caf\udce9.jpg") == "caf\ufffd.jpg"
    assert text.valid_unicode("odd \ud800 surrogate").encode("utf-8")
    assert text.is_valid_unicode("é")
    assert not text.is_valid_unicode("\udce9")


def test_home_is_shown_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert text.home_relative("/home/ada/Pictures/a.jpg") == "~/Pictures/a.jpg"
    assert text.home_relative("/home/adam/a.jpg") == "/home/adam/a.jpg"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (12.9, "0:12"), (75, "1:15"), (3723, "1:02:03"), (36000, "10:00:00")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert text.clock(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.44, "0.4 s"), (12.4, "12 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.skipif(sys.platform == "win32", reason="its shells know no ~ in arguments")
def test_paths_in_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    assert text.shell_path("/home/ana/lib") == "~/lib"
    assert text.shell_path("/home/ana/My library's") == "~/'My library'\"'\"'s'"
    assert text.shell_path("/home/anabel/lib") == "/home/anabel/lib"
    assert text.shell_path("/mnt/a b") == "'/mnt/a b'"


def test_count_and_size() -> None:
    assert text.count(1, "photo") == "1 photo"
    assert text.count(1204, "photo") == "1,204 photos"
    assert text.count(2, "entry", "entries") == "2 entries"
    assert [text.size(n) for n in (812, 3_400_000, 7.5e12, 2e15)] == [
        "812 B",
        "3.4 MB",
        "7.5 TB",
        "2000.0 TB",
    ]
