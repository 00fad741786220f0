"""Small files of the cache: whole or not at all; hashes of large files: computed once for each content."""

import errno
import hashlib
import os
from pathlib import Path

from qvl_local.runtime.model import storage
from qvl_local.runtime.model.storage import remembered_sha256, write_atomically


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "cache" / "file"
    write_atomically(path, "old")
    seen = []

    def replace(source, target):
        seen.append((Path(source).read_bytes(), Path(target).read_bytes()))
        real(source, target)

    real = os.replace
    monkeypatch.setattr(storage.os, "replace", replace)
    write_atomically(path, b"new")
    assert seen == [(b"new", b"old")]
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_refuses_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def refuse(*_):
        raise OSError(errno.EACCES, "in use")

    monkeypatch.setattr(storage.os, "replace", refuse)
    write_atomically(path, "new")  # a cache: no error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_large_file_is_hashed_once_for_each_content(tmp_path, monkeypatch):
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    read = []

    def written(fill, time_ns):
        content = fill * (2 << 20)
        file.write_bytes(content)
        os.utime(file, ns=(time_ns, time_ns))
        return hashlib.sha256(content).hexdigest()

    first = written(b"a", 1_000_000_000)
    assert remembered_sha256(file, progress=read.append) == first
    assert sum(read) == 2 << 20
    assert remembered_sha256(file, progress=read.append) == first
    assert sum(read) == 2 << 20  # known
    second = written(b"b", 2_000_000_000)  # as large, but later
    assert remembered_sha256(file, progress=read.append) == second != first
