"""The user's cache folder, files written so that a reader never sees half of one, and hashes kept there."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CACHE_VARIABLE = "QVL_CACHE_DIR"

_PIECE = 4 << 20
_WORTH_REMEMBERING = 1 << 20


def folder_named(name: str | Path) -> Path:
    """The folder that somebody may mean by a name; whether it is there is another question.

    Unlike Path.expanduser, takes "~x" for what it says where there is no user x.
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111


def cache_folder() -> Path:
    """Where exported bundles and small caches live: `QVL_CACHE_DIR`, or the platform's user cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return folder_named(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("qvl-local", appauthor=False)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small cache file, whole or not at all. A folder that refuses is no error: it is a cache."""
    import tempfile

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content.encode("utf-8") if isinstance(content, str) else content)
            os.replace(temporary, path)  # noqa: PTH105 - a path object has no advantage here
        except OSError:
            Path(temporary).unlink(missing_ok=True)


def remembered_sha256(path: Path, *, progress: Callable[[int], None] | None = None) -> str:
    """Hex sha256 of a file; of a large one remembered by place, size and time of change: it is read once.

    `progress` hears the bytes of each piece of a large file that is read, and nothing when it was known.
    """
    import hashlib

    real = path.resolve()
    status = real.stat()
    is_large = status.st_size >= _WORTH_REMEMBERING
    stamp = hashlib.sha256(f"{real}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogatepass"))
    memory = cache_folder() / "hashes" / f"{stamp.hexdigest()[:32]}.file"
    with suppress(OSError, UnicodeDecodeError):
        known = memory.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    sha = hashlib.sha256()
    with real.open("rb") as stream:
        while piece := stream.read(_PIECE):
            sha.update(piece)
            if progress is not None and is_large:
                progress(len(piece))
    if is_large:
        write_atomically(memory, sha.hexdigest())
    return sha.hexdigest()
