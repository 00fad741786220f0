"""Names of files as they leave the server: text whatever they are, harmless wherever they go."""

from __future__ import annotations

import os
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qvl_local.runtime.server.names import base_name, content_disposition, safe_name, shown

# As file systems give them: any bytes but NUL and the separator.
NAMES = st.binary(min_size=1, max_size=80).map(
    lambda raw: os.fsdecode(raw.replace(b"\0", b"_").replace(b"/", b"_"))
)


@given(NAMES)
def test_every_name_is_text_in_json(name: str) -> None:
    shown(name).encode("utf-8")
    assert shown(name) == name or not name.isascii()


@given(NAMES)
def test_every_name_is_safe_in_an_archive_and_a_header(name: str) -> None:
    safe = safe_name(f"/folder/{name}")
    assert safe
    assert len(safe) <= 160
    assert not set(safe) & set('<>:"/\\|?*\0\r\n')
    assert safe not in (".", "..")
    assert not safe.startswith((".", " "))
    header = content_disposition(name, is_attachment=True)
    assert header.isascii()
    assert header.isprintable()
    assert header.startswith('attachment; filename="')
    assert header.count('"') == 2
    if "filename*" in header:
        assert unquote(header.rpartition("''")[2]) == safe_name(name)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("IMG_1.JPG", "IMG_1.JPG"),
        ("/a/b/c.jpg", "c.jpg"),
        ("..", "file"),
        ("...jpg", "file.jpg"),
        ("a\nb.jpg", "a_b.jpg"),
        ("x" * 300 + ".jpg", "x" * 147 + ".jpg"),
        ("\u202egpj.exe", "_gpj.exe"),
    ],
)
def test_examples(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_the_last_part_of_a_path() -> None:
    assert base_name("/a/b\udce9.jpg") == "b\udce9.jpg"
