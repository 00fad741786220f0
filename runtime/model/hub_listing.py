"""What a hub has: a repository by its name, and the files of one commit that a checkpoint needs.

A listing that was seen is remembered, so that what is here can be told to be whole without asking again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .snapshot import INDEX, WEIGHTS, Snapshot, is_commit
from .storage import cache_folder, write_atomically

# Small files of a repository that a checkpoint needs; its weights are chosen apart.
_SMALL_FILES = ("*.json", "*.jinja", "merges.txt")
_SMALL_FOLDERS = ("additional_chat_templates/", "1_Pooling/")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_REFERENCE = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?")

# A repository that was not there is asked for again after a day.
_ABSENT_FOR_S = 86_400


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository, "owner/name", and the branch, tag or commit that is wanted (None: the copy at hand)."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """Read "owner/name" or "owner/name@revision"; None when it is neither."""
        match = _REFERENCE.fullmatch(text)
        if match is None or ".." in (match["revision"] or ""):
            return None
        return cls(match["name"], match["revision"])

    @property
    def may_move(self) -> bool:
        """Whether the hub must be asked what it means now: a branch or tag that was named."""
        return self.revision is not None and not is_commit(self.revision)

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub lists it. `digest` names its blob: sha256 (64 digits), or git's sha1 (40 digits)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one commit that a checkpoint needs, in the order in which they are fetched."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]


def choose_files(files: Iterable[HubFile]) -> list[HubFile]:
    """The files of a repository that a checkpoint needs: small ones first, then its weights, shards in order.

    Where weights are published both whole and in shards, the whole file is taken.
    """
    by_name = {file.name: file for file in files}
    small = [name for name in by_name if _is_small(name)]
    tensors = sorted(name for name in by_name if "/" not in name and name.endswith(".safetensors"))
    weights = [name for name in tensors if _SHARD.fullmatch(name)] or tensors
    if WEIGHTS in tensors:
        weights, small = [WEIGHTS], [name for name in small if name != INDEX]
    return [by_name[name] for name in [*sorted(small), *weights]]


def _is_small(name: str) -> bool:
    if "/" in name:
        return name.startswith(_SMALL_FOLDERS)
    return any(fnmatchcase(name, pattern) for pattern in _SMALL_FILES)


def remember_listing(listing: Listing) -> None:
    """Keep what the hub said about a commit."""
    write_atomically(_memory(listing.repository) / f"{listing.commit}.json", json.dumps(asdict(listing)))


def remembered_listing(snapshot: Snapshot) -> Listing | None:
    """What the hub said about a snapshot's commit; None when it was not seen."""
    file = _memory(snapshot.repository) / f"{snapshot.commit}.json"
    try:
        raw: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Listing(**raw | {"files": tuple(HubFile(**entry) for entry in raw["files"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remember_absence(repository: str) -> None:
    """Keep that the hub does not have a repository."""
    write_atomically(_memory(repository) / "absent", "")


def was_absent(repository: str) -> bool:
    """Whether the hub did not have a repository a short while ago."""
    with suppress(OSError):
        return time.time() - (_memory(repository) / "absent").stat().st_mtime < _ABSENT_FOR_S
    return False


def _memory(repository: str) -> Path:
    """Where it is remembered what the hub said about a repository."""
    return cache_folder() / "hub" / repository.replace("/", "--")
