"""From what a user names to a bundle: a name, a Hugging Face id, a checkpoint folder or a bundle folder.

    name or id  -> checkpoint folders (downloaded once by huggingface_hub)
    checkpoints -> bundle in the cache (exported once for each content and recipe)

This module does not export: it calls whatever is registered in the entry point group "qvl_local.exporters".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import BundleError, CheckpointError, InputError, ModelError, ModelNotFoundError, ParityError
from .bundle import MANIFEST, Bundle, Role, holds_bundle, open_bundle
from .config import load_config
from .replacement import working_name
from .snapshot import Snapshot, checkpoint_files, snapshot_at, snapshot_of
from .storage import CACHE_VARIABLE, cache_folder, folder_named, remembered_sha256, write_atomically

if TYPE_CHECKING:
    from .hub import Reference

Progress = Callable[[str, float], None]

# The exporter whose bundles ONNX Runtime runs, and the version of what it makes: raised when a new version of
# the exporter makes other graphs of the same checkpoint, so that cached bundles are made again.
EXPORTER = "onnx"
RECIPE = 2

NAMES = {
    "2b": "Qwen/Qwen3-VL-Embedding-2B",
    "8b": "Qwen/Qwen3-VL-Embedding-8B",
}
TINY = "tiny"

_TINY_PACKAGE = "qvl_local.models.tiny"
_ROLE_FOLDERS: dict[Role, str] = {"embedder": "embedding", "reranker": "reranker"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint folder and what the user knows it as. `revision` is a commit of the hub, when known."""

    path: Path
    name: str
    revision: str | None = None


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


def resolve(
    model: str | Path,
    *,
    precision: str | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    progress: Progress | None = None,
) -> Bundle:
    """The bundle for a model, exported into the cache if need be.

    Args:
        model: "tiny", "2b", "8b", a Hugging Face id, a checkpoint folder, or a bundle folder.
        precision: of the weights; None is what the planner recommends for this machine (fp32 for small models
            on the CPU). A bundle folder has its own.
        device: where the model is to run, for the planner.
        progress: told a step's name and its fraction done, in [0, 1].

    Raises:
        ModelNotFoundError: no model of that name, folder or id.
        CheckpointError: the checkpoint cannot be used.
        BundleError: the bundle cannot be used.
    """
    folder = folder_named(model)
    if holds_bundle(folder):
        bundle = open_bundle(folder)
        if precision is not None:
            _check_precision(bundle, precision)
        return bundle
    checkpoints = find_checkpoints(model, progress=progress)
    if precision is not None:
        return export_once(checkpoints, precision=precision, progress=progress)
    return export_recommended(checkpoints, device=device, progress=progress)


def find_checkpoints(
    model: str | Path, *, pair: bool = True, offline: bool = False, progress: Progress | None = None
) -> dict[Role, Checkpoint]:
    """The checkpoint folders that a name stands for: a pair, or the one that there is.

    Args:
        model: "tiny", "2b", "8b", a Hugging Face id, each of the last three with "@revision" or without, or
            the folder of a checkpoint, of a pair, or of a repository in the cache of huggingface_hub.
        pair: look for the sibling of what is named, too.
        offline: take what is here and ask no network.
        progress: told a step's name and its fraction done, in [0, 1].

    Raises:
        ModelNotFoundError: no model of that name, folder or id.
        ModelError: it cannot be downloaded.
    """
    name = str(model)
    folder = folder_named(model)
    if name == TINY:
        return _tiny()
    if name.strip() and folder.is_dir():
        return _local(folder, pair=pair)
    reference = reference_of(name)
    if reference is not None and not folder.exists():
        return _from_hub(reference, pair=pair, offline=offline, progress=progress)
    known = ", ".join([TINY, *NAMES])
    raise ModelNotFoundError(
        f"{name}: no such model. Give {known}, a Hugging Face id (such as {NAMES['2b']}), a checkpoint "
        "folder or a bundle folder."
    )


def export_recommended(
    checkpoints: Mapping[Role, Checkpoint],
    *,
    device: Literal["cpu", "cuda"],
    progress: Progress | None = None,
) -> Bundle:
    """The cached bundle at the best precision that this machine can hold and that reproduces the checkpoints.

    A precision whose graphs strayed too far from a checkpoint is remembered and not tried again.

    Raises:
        CheckpointError: a checkpoint cannot be used.
        ParityError: no precision reproduces it.
    """
    precisions = recommended_precisions(checkpoints, device=device)
    for precision in precisions[:-1]:
        refusal = cache_folder() / "refused" / f"{_key(checkpoints, precision)}.txt"
        if refusal.is_file():
            continue
        try:
            return export_once(checkpoints, precision=precision, progress=progress)
        except ParityError as error:
            write_atomically(refusal, f"{error}\n")
            if progress is not None:
                progress(f"{precision} strays too far from this model; trying another precision", 0.0)
    return export_once(checkpoints, precision=precisions[-1], progress=progress)


def is_exported(checkpoints: Mapping[Role, Checkpoint], *, device: Literal["cpu", "cuda"] = "cpu") -> bool:
    """Whether the bundle that `resolve` would take is in the cache. Quick: no weights are read."""
    if any(_remembered(_hash_memory(checkpoint.path)) is None for checkpoint in checkpoints.values()):
        return False  # whatever was exported was hashed
    bundles = cache_folder() / "bundles"
    return any(
        (bundles / _key(checkpoints, precision) / MANIFEST).is_file()
        for precision in recommended_precisions(checkpoints, device=device)
    )


def recommended_precisions(
    checkpoints: Mapping[Role, Checkpoint], *, device: Literal["cpu", "cuda"]
) -> list[str]:
    """The precisions at which these checkpoints fit this machine, the best first.

    Raises:
        CheckpointError: their config.json cannot be used.
    """
    from .. import hardware
    from . import planner

    config = load_config(next(iter(checkpoints.values())).path)
    if device == "cuda":
        gpu = hardware.first_gpu(hardware.read_gpus())
        budget = planner.Budget("cuda", None if gpu is None else gpu.memory_bytes)
    else:
        budget = planner.Budget("cpu", hardware.memory_bytes())
    return planner.recommended_precisions(config, budget=budget)


def export_once(
    checkpoints: Mapping[Role, Checkpoint], *, precision: str, progress: Progress | None = None
) -> Bundle:
    """The cached bundle of these checkpoints, made now when it is not there yet."""
    key = _key(checkpoints, precision)
    folder = cache_folder() / "bundles" / key
    if (folder / MANIFEST).is_file():
        try:
            return open_bundle(folder)
        except BundleError:
            # Left damaged by something outside our control: make it again.
            _set_aside(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{folder.parent}: the cache folder cannot be made ({error.strerror}). "
            f"Choose another one: {CACHE_VARIABLE}=/some/folder"
        ) from error
    _exporter()(
        {role: checkpoint.path for role, checkpoint in checkpoints.items()},
        folder,
        names={role: checkpoint.name for role, checkpoint in checkpoints.items()},
        precision=precision,
        progress=progress,
    )
    return open_bundle(folder)


def _tiny() -> dict[Role, Checkpoint]:
    """The pair that the package carries."""
    package = None
    with suppress(ModuleNotFoundError):  # the package around it is missing, too
        package = find_spec(_TINY_PACKAGE)
    if package is None or package.origin is None:
        raise ModelNotFoundError(
            "tiny: this installation lacks the model that comes with it. Install again: pip install qvl-local"
        )
    root = Path(package.origin).parent
    found: dict[Role, Checkpoint] = {
        role: Checkpoint(path=root / name, name=f"{TINY}/{name}")
        for role, name in _ROLE_FOLDERS.items()
        if _is_checkpoint(root / name)
    }
    if not found:
        raise ModelNotFoundError(f"{root}: the model that comes with qvl-local is missing. Install it again.")
    return found


def _local(folder: Path, *, pair: bool) -> dict[Role, Checkpoint]:
    """A checkpoint folder with its sibling, or a folder that holds `embedding` and `reranker`."""
    snapshot = snapshot_at(folder)
    if snapshot is not None:
        return _in_hub_cache(snapshot, pair=pair)
    inside = {role: folder / name for role, name in _ROLE_FOLDERS.items()}
    if not _is_checkpoint(folder):
        found = {role: path for role, path in inside.items() if _is_checkpoint(path)}
        if found:
            return {role: Checkpoint(path=path, name=str(path)) for role, path in found.items()}
        raise ModelNotFoundError(
            f"{folder}: neither a checkpoint (config.json) nor a bundle ({MANIFEST}). "
            "Give the folder of one, or a Hugging Face id."
        )
    absolute = folder.absolute()
    role = role_of(absolute.name)
    checkpoints: dict[Role, Checkpoint] = {role: Checkpoint(path=folder, name=str(folder))}
    for name in sibling_names(absolute.name) if pair else ():
        sibling = absolute.with_name(name)
        if _is_checkpoint(sibling):
            checkpoints[_other(role)] = Checkpoint(path=sibling, name=str(folder.with_name(name)))
            break
    return dict(sorted(checkpoints.items()))


def _in_hub_cache(snapshot: Snapshot, *, pair: bool) -> dict[Role, Checkpoint]:
    """A snapshot that was named by its folder, and its sibling where that was downloaded, too."""
    if not _is_checkpoint(snapshot.path):
        raise ModelNotFoundError(
            f"{snapshot.path}: holds no config.json. Download it: --model {snapshot.repository}"
        )
    role = role_of(snapshot.repository)
    found = {role: snapshot}
    owner, _, name = snapshot.repository.partition("/")
    for other in sibling_names(name) if pair else ():
        sibling = snapshot_of(snapshot.path.parents[2], f"{owner}/{other}", "main")
        if sibling is not None and _is_checkpoint(sibling.path):
            found[_other(role)] = sibling
            break
    return {role: _checkpoint(found[role]) for role in sorted(found)}


def role_of(name: str) -> Role:
    """Which of the two a checkpoint is, by the name of its folder or repository."""
    return "reranker" if "rerank" in name.lower() else "embedder"


def sibling_names(name: str) -> Iterator[str]:
    """Names under which the other model of the pair may be found beside this one, likeliest first."""
    for word, other in (("Embedding", "Reranker"), ("Embedder", "Reranker"), ("Reranker", "Embedding")):
        for mine, theirs in ((word, other), (word.lower(), other.lower())):
            if mine in name:
                yield name.replace(mine, theirs)
    if "reranker" in name.lower():
        yield re.sub("reranker", "embedder", name, flags=re.IGNORECASE)


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / MANIFEST).exists()


def reference_of(name: str) -> Reference | None:
    """What a name means on the hub: a short name or an id, with "@revision" or without."""
    # Here, since most searches have a model that is on this machine already, or a bundle.
    from .hub import Reference

    short, at, revision = name.partition("@")
    return Reference.parse(NAMES.get(short.lower(), short) + at + revision)


def _from_hub(
    reference: Reference, *, pair: bool, offline: bool, progress: Progress | None = None
) -> dict[Role, Checkpoint]:
    """Find a pair in the cache of huggingface_hub, or download it. One name stands for both."""
    from .hub import Hub, Reference

    role = role_of(reference.repository)
    wanted = {role: reference}
    owner, _, name = reference.repository.partition("/")
    sibling = next(sibling_names(name), None) if pair else None
    if sibling is not None:
        # A commit belongs to one repository; a branch or tag may exist in both.
        revision = reference.revision if reference.may_move else None
        wanted[_other(role)] = Reference(f"{owner}/{sibling}", revision)
    hub = Hub.of_this_machine()
    found = replace(hub, offline=hub.offline or offline).fetch(wanted, needed=role, progress=progress)
    return {role: _checkpoint(snapshot) for role, snapshot in found.items()}


def _checkpoint(snapshot: Snapshot) -> Checkpoint:
    return Checkpoint(path=snapshot.path, name=snapshot.repository, revision=snapshot.commit)


def _other(role: Role) -> Role:
    return "reranker" if role == "embedder" else "embedder"


def snapshot_revision(snapshot: Path) -> str | None:
    """The hub keeps a snapshot in a folder named after its commit."""
    return snapshot.name if re.fullmatch(r"[0-9a-f]{40}", snapshot.name) else None


def _key(checkpoints: Mapping[Role, Checkpoint], precision: str) -> str:
    """Name of the cached bundle: what goes in and how it is made."""
    parts: dict[str, Any] = {role: _content_hash(checkpoint.path) for role, checkpoint in checkpoints.items()}
    parts |= {"exporter": EXPORTER, "recipe": RECIPE, "precision": precision}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{_slug(checkpoints)}-{precision}-{digest[:16]}"


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
    """Remove a damaged bundle from the cache."""
    import shutil

    doomed = working_name(folder)
    try:
        folder.rename(doomed)
    except OSError as error:
        raise BundleError(f"{folder}: is damaged and cannot be removed ({error}). Delete it.") from error
    shutil.rmtree(doomed, ignore_errors=True)


def _check_precision(bundle: Bundle, precision: str) -> None:
    for part in bundle.manifest.parts.values():
        if part.decoder_precision != precision:
            raise InputError(
                f"{bundle.path}: is a bundle of {part.decoder_precision} weights, not {precision}. "
                "Leave the precision out, or export another bundle."
            )
