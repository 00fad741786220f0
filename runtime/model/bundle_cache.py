"""Bundles that were exported from checkpoints, kept in the cache: one for each content, precision and recipe.

    bundles/NAME-PRECISION-CONTENT-MAKING/

CONTENT is a hash of the checkpoints' files, MAKING one of how this version of the exporter makes a bundle of
that precision. What another version made is not used any more: the checkpoints are exported anew, and what is
outdated is told, and removed when somebody asks for that, since a library may still be searched with it.

This module does not export: it calls whatever is registered in the entry point group "qvl_local.exporters".
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..errors import BundleError, CheckpointError, ModelError
from .bundle import MANIFEST, Bundle, Role, holds_bundle, open_bundle
from .checkpoints import Checkpoint
from .progress import Progress, no_progress
from .replacement import working_name
from .snapshot import checkpoint_files
from .storage import CACHE_VARIABLE, cache_folder, remembered_sha256, write_atomically

EXPORTER = "onnx"
"""The exporter whose bundles ONNX Runtime runs."""

FORMAT = 3
"""Raised when the exporter makes other graphs of the same checkpoint and recipe than before."""

# Where the exporter keeps the recipes that precisions stand for. They are read as files: to ask the exporter
# means to read the metadata of everything that is installed, which takes longer than a search.
_EXPORTER_PACKAGE = "qvl_local.export"
_RECIPES = "recipes"
_OTHER_CACHE = f"Get access, or choose another folder: {CACHE_VARIABLE}=/some/folder"
_NAME = re.compile(r".+-[0-9a-f]{16}(-[0-9a-f]{8})?")


class Exporter(Protocol):
    """What an entry point of the group "qvl_local.exporters" is."""

    def __call__(
        self,
        checkpoints: Mapping[Role, Path],
        folder: Path,
        *,
        names: Mapping[Role, str],
        precision: str,
        progress: Progress | None = None,
    ) -> None:
        """Write a complete bundle to `folder`, or nothing; safe when two processes do it at once."""
        ...


@dataclass(frozen=True, slots=True)
class OutdatedBundle:
    """A bundle in the cache that this version of qvl-local makes differently; `size` in bytes."""

    folder: Path
    size: int


def export_once(
    checkpoints: Mapping[Role, Checkpoint], *, precision: str, progress: Progress | None = None
) -> Bundle:
    """The cached bundle of these checkpoints, made now when it is not there yet.

    Raises:
        CheckpointError: a checkpoint cannot be used.
        ParityError: the bundle would not reproduce it.
        ModelError: nothing can be written to the cache.
    """
    folder = _folder(checkpoints, precision)
    if holds_bundle(folder):
        try:
            return open_bundle(folder)
        except BundleError:
            # Left damaged by something outside our control: make it again.
            _set_aside(folder)
    _make_writable(folder.parent)
    report = progress or no_progress
    for old in _made_otherwise(checkpoints, precision):
        report(
            f"This version of qvl-local makes {precision} differently, so the model is exported anew, once. "
            f"The old export stays in {old}, for libraries that are not indexed anew yet; "
            "`qvl-local doctor --clean` removes it.",
            0.0,
        )
    _exporter()(
        {role: checkpoint.path for role, checkpoint in checkpoints.items()},
        folder,
        names={role: checkpoint.name for role, checkpoint in checkpoints.items()},
        precision=precision,
        progress=progress,
    )
    return open_bundle(folder)


def was_exported(checkpoints: Mapping[Role, Checkpoint], *, precision: str) -> bool:
    """Whether `export_once` would find the bundle. Quick: no weights are read."""
    if any(_remembered(_hash_memory(checkpoint.path)) is None for checkpoint in checkpoints.values()):
        return False  # whatever was exported was hashed
    return holds_bundle(_folder(checkpoints, precision))


def is_refused(checkpoints: Mapping[Role, Checkpoint], *, precision: str) -> bool:
    """Whether an export at this precision strayed too far from these checkpoints before."""
    return _refusal(checkpoints, precision).is_file()


def note_refusal(checkpoints: Mapping[Role, Checkpoint], reason: str, *, precision: str) -> None:
    """Remember that an export at this precision strayed too far."""
    write_atomically(_refusal(checkpoints, precision), f"{reason}\n")


def outdated_bundles() -> list[OutdatedBundle]:
    """What the cache holds that this version of qvl-local does not open any more."""
    with suppress(OSError):
        return [
            OutdatedBundle(folder, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
            for folder in sorted(_bundles().iterdir())
            if _is_outdated(folder)
        ]
    return []


def remove_outdated(bundle: OutdatedBundle) -> None:
    """Remove one of `outdated_bundles`.

    Raises:
        BundleError: it cannot be removed.
    """
    _set_aside(bundle.folder)


def _bundles() -> Path:
    return cache_folder() / "bundles"


def _folder(checkpoints: Mapping[Role, Checkpoint], precision: str) -> Path:
    return _bundles() / _key(checkpoints, precision)


def _refusal(checkpoints: Mapping[Role, Checkpoint], precision: str) -> Path:
    return cache_folder() / "refused" / f"{_key(checkpoints, precision)}.txt"


def _make_writable(folder: Path) -> None:
    """Make sure that a bundle can be written into a folder of the cache."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{folder}: the model cache cannot be made there ({error.strerror}). {_OTHER_CACHE}"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ModelError(f"{folder}: the model cache cannot be written. {_OTHER_CACHE}")


# Names


def _key(checkpoints: Mapping[Role, Checkpoint], precision: str) -> str:
    """Name of the cached bundle: what goes in and how it is made."""
    return f"{_stem(checkpoints, precision)}-{_making(precision)}"


def _stem(checkpoints: Mapping[Role, Checkpoint], precision: str) -> str:
    """The part of the name that does not depend on how a bundle is made."""
    contents = {role: _content_hash(checkpoint.path) for role, checkpoint in checkpoints.items()}
    return f"{_slug(checkpoints)}-{precision}-{_digest(contents)[:16]}"


def _making(precision: str) -> str:
    """How a bundle of a precision is made: changes with the exporter and with what the recipe says."""
    return _digest([EXPORTER, FORMAT, precision, _recipe(precision)])[:8]


def _recipe(precision: str) -> list[str]:
    """The lines of a precision's recipe that say something; none for a precision that there is not."""
    try:
        text = (_recipes() / f"{precision}.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "about"))]


def _precisions() -> list[str]:
    return [file.stem for file in _recipes().glob("*.toml")]


def _recipes() -> Path:
    """The folder of the recipes; without an exporter one that is not there, which is told when it is run."""
    package = find_spec(_EXPORTER_PACKAGE)
    origin = None if package is None else package.origin
    return Path(origin or _RECIPES).with_name(_RECIPES)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _made_otherwise(checkpoints: Mapping[Role, Checkpoint], precision: str) -> list[Path]:
    """Bundles of the same checkpoints and precision that were made in another way."""
    stem = _stem(checkpoints, precision)
    before = f"{_slug(checkpoints)}-{precision}-{_digest_of_format_2(checkpoints, precision)}"
    return [
        folder
        for folder in sorted(_bundles().iterdir())
        if (folder.name == before or folder.name.rpartition("-")[0] == stem) and (folder / MANIFEST).is_file()
    ]


def _digest_of_format_2(checkpoints: Mapping[Role, Checkpoint], precision: str) -> str:
    """The end of a name as it was before recipes counted."""
    parts: dict[str, Any] = {role: _content_hash(checkpoint.path) for role, checkpoint in checkpoints.items()}
    return _digest(parts | {"exporter": EXPORTER, "recipe": 2, "precision": precision})[:16]


def _is_outdated(folder: Path) -> bool:
    """Whether a folder of the cache is a bundle that this version would not look for."""
    if folder.name.startswith(".") or not _NAME.fullmatch(folder.name) or not (folder / MANIFEST).is_file():
        return False
    stem, _, making = folder.name.rpartition("-")
    named = stem.rpartition("-")[0]
    return not any(making == _making(name) for name in _precisions() if named.endswith(f"-{name}"))


def _slug(checkpoints: Mapping[Role, Checkpoint]) -> str:
    """Something readable at the front of the name."""
    checkpoint = next(iter(checkpoints.values()))
    words = [word for word in checkpoint.name.replace("\\", "/").split("/") if word]
    return re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(words[-2:])).strip("-")[:48].lower() or "model"


def _content_hash(folder: Path) -> str:
    """Hash of the checkpoint's files, remembered by name, size and time so that they are read once."""
    memory = _hash_memory(folder)
    known = _remembered(memory)
    if known is not None:
        return known
    hashes = [
        [file.relative_to(folder).as_posix(), remembered_sha256(file)] for file in checkpoint_files(folder)
    ]
    digest = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    write_atomically(memory, digest)
    return digest


def _hash_memory(folder: Path) -> Path:
    """Where the hash of a checkpoint's files as they are now is remembered, once it is known."""
    files = checkpoint_files(folder)
    if not files:
        raise CheckpointError(f"{folder}: holds no checkpoint files.")
    facts: list[tuple[str, int, int]] = []
    for file in files:
        status = file.stat()
        facts.append((file.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    stamp = hashlib.sha256(json.dumps([str(folder.resolve()), facts]).encode()).hexdigest()[:32]
    return cache_folder() / "hashes" / f"{stamp}.txt"


def _remembered(memory: Path) -> str | None:
    try:
        known = memory.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return known if re.fullmatch(r"[0-9a-f]{64}", known) else None


def _exporter() -> Exporter:
    """The registered exporter."""
    from importlib.metadata import entry_points

    for point in entry_points(group="qvl_local.exporters", name=EXPORTER):
        exporter: Exporter = point.load()
        return exporter
    raise ModelError(
        "No exporter is installed, so a checkpoint cannot be turned into a bundle. "
        "Install qvl-local again: pip install --force-reinstall qvl-local"
    )


def _set_aside(folder: Path) -> None:
    """Remove a bundle from the cache."""
    import shutil

    doomed = working_name(folder)
    try:
        folder.rename(doomed)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be removed ({error.strerror}). Delete it.") from error
    shutil.rmtree(doomed, ignore_errors=True)
