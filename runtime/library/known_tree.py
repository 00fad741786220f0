"""What a library knows of a place, for a walk to compare with: its files under every root that holds it."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence

from .records import Folder, KnownFile, Space
from .roots import is_inside
from .store import Store


class KnownTree:
    """The known files of all roots, by place. A root is read once, a single file asked for alone."""

    def __init__(self, store: Store, space: Space, folders: Sequence[Folder]) -> None:
        self._store = store
        self._space = space
        self._folders = folders
        self._by_name: dict[int, tuple[list[str], list[KnownFile]]] = {}

    def at(self, path: str) -> list[KnownFile]:
        """The file at `path`, under every root that knows it."""
        around = (folder for folder in self._folders if path != folder.path and is_inside(path, folder.path))
        found = (
            self._store.known_file(folder.id, os.path.relpath(path, folder.path), self._space)
            for folder in around
        )
        return [file for file in found if file is not None]

    def below(self, path: str) -> list[KnownFile]:
        """Everything in the folder `path`, under every root."""
        files: list[KnownFile] = []
        for folder in self._folders:
            if is_inside(folder.path, path):
                files.extend(self._files(folder)[1])
            elif is_inside(path, folder.path):
                names, known = self._files(folder)
                name = os.path.relpath(path, folder.path) + os.sep
                # Sorted by code point: what begins with `name` stands together.
                after = name[:-1] + chr(ord(os.sep) + 1)
                files.extend(known[bisect_left(names, name) : bisect_left(names, after)])
        return files

    def inside(self, path: str) -> list[KnownFile]:
        """Everything in the folder `path`, or the file there: few, so that the root need not be read."""
        files: list[KnownFile] = []
        for folder in self._folders:
            if is_inside(folder.path, path):
                files.extend(self._files(folder)[1])
            elif is_inside(path, folder.path):
                name = os.path.relpath(path, folder.path)
                files.extend(self._store.known_below(folder.id, name, self._space))
        return files

    def _files(self, folder: Folder) -> tuple[list[str], list[KnownFile]]:
        if folder.id not in self._by_name:
            known = sorted(self._store.known(folder.id, self._space), key=lambda file: file.name)
            self._by_name[folder.id] = [file.name for file in known], known
        return self._by_name[folder.id]
