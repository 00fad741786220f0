"""The user's cache folder, and files written so that a reader never sees half of one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CACHE_VARIABLE = "QVL_CACHE_DIR"


def cache_folder() -> Path:
    """Where exported bundles and small caches live: `QVL_CACHE_DIR`, or the platform's user cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("qvl-local", appauthor=False)


def write_atomically(path: Path, text: str) -> None:
    """Write a small cache file, whole or not at all. A folder that refuses is no error: it is a cache."""
    import tempfile

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.replace(temporary, path)  # noqa: PTH105 - a path object has no advantage here
        except OSError:
            Path(temporary).unlink(missing_ok=True)
