"""Checkpoints in the cache of huggingface_hub: where they lie, whether they are whole and unharmed.

    models--Qwen--Qwen3-VL-Embedding-2B/
        refs/main                        the commit at which a branch or tag stood
        snapshots/<commit>/config.json   a link to a blob, or the file itself where the system has no links
        blobs/<hash>                     named by its sha256 (large files) or by git's sha1 (small ones)

Reads the disk and knows no network; `hub.py` fills the cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .storage import remembered_sha256

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# What a checkpoint is made of; the rest of a repository (pictures, notebooks, other formats) stays away.
CHECKPOINT_FILES = (
    "*.json",
    "*.safetensors",
    "*.jinja",
    "merges.txt",
    "additional_chat_templates/*",
)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One repository at one commit, as a folder of the cache. `repository` is "owner/name"."""

    path: Path
    repository: str
    commit: str

    def blob(self, digest: str) -> Path:
        """Where the content of that hash lies, or will."""
        return self.path.parents[1] / "blobs" / digest


def snapshot_of(cache: Path, repository: str, revision: str) -> Snapshot | None:
    """The snapshot that a commit, or a branch or tag as last seen, names; None when nothing of it is here."""
    root = cache / f"models--{repository.replace('/', '--')}"
    commit = revision if is_commit(revision) else _read_ref(root / "refs" / revision)
    if commit is None or not (root / "snapshots" / commit).is_dir():
        return None
    return Snapshot(root / "snapshots" / commit, repository, commit)


def snapshot_at(folder: Path) -> Snapshot | None:
    """The snapshot that a folder inside a hub cache is, by its place: a snapshot, or a whole repository.

    A repository's folder stands for what its branch `main` was when it was last downloaded.
    """
    folder = folder.absolute()
    if folder.name.startswith("models--") and (folder / "snapshots").is_dir():
        return snapshot_of(folder.parent, _repository(folder.name), "main")
    root = folder.parent.parent
    if is_commit(folder.name) and folder.parent.name == "snapshots" and root.name.startswith("models--"):
        return Snapshot(folder, _repository(root.name), folder.name)
    return None


def is_commit(revision: str) -> bool:
    """Whether a revision names one content forever: a full commit hash."""
    return _COMMIT.fullmatch(revision) is not None


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that matter, sorted."""
    return sorted(file for pattern in CHECKPOINT_FILES for file in folder.glob(pattern) if file.is_file())


def lacking(folder: Path) -> list[str]:
    """What a folder lacks to be a checkpoint that can be used; empty when it is whole."""
    absent = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        absent.append("preprocessor_config.json")
    templates = any((folder / name).is_file() for name in _TEMPLATES)
    if not templates and not any(folder.glob("additional_chat_templates/*.jinja")):
        absent.append("chat_template.jinja")
    if not (folder / WEIGHTS).is_file():
        shards = _shards(folder / INDEX)
        absent += [WEIGHTS] if shards is None else [name for name in shards if not (folder / name).is_file()]
    return absent


def damaged(snapshot: Snapshot, *, progress: Callable[[int], None] | None = None) -> list[str]:
    """Files whose content is not what the name of their blob promises, relative to the snapshot.

    A file that was checked before and has not changed since is not read again. Files that are no links have
    no name to be held against. `progress` hears the bytes of each piece that is read.
    """
    return [
        file.relative_to(snapshot.path).as_posix()
        for file in checkpoint_files(snapshot.path)
        if file.is_symlink() and not _is_named_truly(file, progress)
    ]


def content_matches(file: Path, digest: str, *, progress: Callable[[int], None] | None = None) -> bool:
    """Whether a file has this sha256 (64 digits) or this git blob hash (40 digits); other names pass."""
    if _SHA256.fullmatch(digest):
        return remembered_sha256(file, progress=progress) == digest
    if _COMMIT.fullmatch(digest):
        content = file.read_bytes()
        # A blob as git hashes it: its kind, its size, a NUL, its content.
        return (
            hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == digest
        )
    return True


def _is_named_truly(file: Path, progress: Callable[[int], None] | None) -> bool:
    return content_matches(file, file.resolve().name, progress=progress)


def _shards(index: Path) -> list[str] | None:
    """The files that an index names; None without a readable index."""
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def _read_ref(file: Path) -> str | None:
    try:
        commit = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if is_commit(commit) else None


def _repository(folder_name: str) -> str:
    return folder_name.removeprefix("models--").replace("--", "/", 1)
