"""Content hashes: equal for equal content, different where a picture or film differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from qvl_local.runtime.library import hashing
from qvl_local.runtime.library.hashing import content_hash


def test_the_name_does_not_count_and_every_byte_does(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    first.write_bytes(b"x" * 5000)
    second.write_bytes(b"x" * 5000)
    third.write_bytes(b"x" * 4999 + b"y")
    assert content_hash(first) == content_hash(second)
    assert content_hash(first) != content_hash(third)
    assert len(content_hash(first)) == 20


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(hashing, "END_BYTES", 1000)
    monkeypatch.setattr(hashing, "SAMPLES", 4)
    monkeypatch.setattr(hashing, "SAMPLE_BYTES", 100)
    body = bytearray(b"z" * 50_000)
    path = tmp_path / "film"

    def digest(**changes: int) -> bytes:
        changed = bytearray(body)
        for at in changes.values():
            changed[at] = 0
        path.write_bytes(changed)
        return content_hash(path)

    original = digest()
    assert digest(first=0) != original
    assert digest(last=49_999) != original
    assert digest(sampled=1000 + 12_000) != original
    path.write_bytes(body + b"z")
    assert content_hash(path) != original
    # Between the samples nothing is read: the price of not reading films twice.
    assert digest(between=2000) == original


def test_an_unreadable_file_is_the_callers_business(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        content_hash(tmp_path / "gone")
