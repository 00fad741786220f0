"""The files of an open library: its database for searches and for lists, and the pictures to show.

Each is opened when it is first needed.
"""

from __future__ import annotations

import threading
from pathlib import Path

from ..errors import LibraryError
from .home import DATABASE
from .previews import PREVIEWS, Previews
from .records import Space
from .store import Store

_CACHE_PATIENCE_MS = 500


class Files:
    """The open files of the library in `folder`. Safe between threads; they open anew after `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._reader: Store | None = None
        self._lister: Store | None = None
        self._pictures: Previews | None = None
        self._cache: Previews | None = None
        self._pictures_identity: tuple[int, int] | None = None

    def reader(self) -> Store:
        """The database, for searches."""
        with self._lock:
            if self._reader is None:
                self._reader = Store.open(self.folder)
            return self._reader

    def lister(self) -> Store:
        """A reader of its own for lists and counts, which no search shall wait for."""
        with self._lock:
            if self._lister is None:
                self._lister = Store.open(self.folder)
            return self._lister

    def active_space(self) -> Space | None:
        """The space that serves searches; None also where there is no library yet."""
        return self.reader().active_space() if (self.folder / DATABASE).is_file() else None

    def pictures(self) -> Previews:
        """The small pictures, for reading."""
        with self._lock:
            # The cache may be deleted at any time, and made anew by another process.
            identity = _identity_of(self.folder / PREVIEWS)
            if self._pictures is None or identity != self._pictures_identity:
                for opened in (self._pictures, self._cache):
                    if opened is not None:
                        opened.close()
                self._cache = None
                self._pictures = Previews.open(self.folder)
                self._pictures_identity = identity
            return self._pictures

    def cache(self) -> Previews | None:
        """The same pictures for writing down what was made on request; None where that cannot be."""
        with self._lock:
            self.pictures()
            if self._cache is None:
                self._cache = _open_cache(self.folder)
            return self._cache

    def close(self) -> None:
        """Close whatever is open."""
        with self._lock:
            opened = (self._reader, self._lister, self._pictures, self._cache)
            self._reader = self._lister = self._pictures = self._cache = None
        for file in opened:
            if file is not None:
                file.close()


def _open_cache(folder: Path) -> Previews | None:
    """The previews for writing; None where nothing can be written, or somebody else does for long."""
    try:
        cache = Previews.open(folder, mode="write")
    except LibraryError:
        return None
    cache.be_quick(_CACHE_PATIENCE_MS)
    return cache


def _identity_of(file: Path) -> tuple[int, int] | None:
    """What tells a file from another one of its name; None where there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
