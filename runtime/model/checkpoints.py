"""From what a user names to checkpoint folders: a short name, a Hugging Face id, or a folder; one is a pair.

What is not on this machine is fetched by `hub`. Nothing is exported here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelNotFoundError
from .bundle import MANIFEST, Role
from .progress import Progress
from .snapshot import Snapshot, snapshot_at, snapshot_of
from .storage import folder_named

if TYPE_CHECKING:
    from .hub_listing import Reference

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


def find_checkpoints(
    model: str | Path,
    *,
    pair: bool = True,
    offline: bool = False,
    progress: Progress | None = None,
    export_bytes: Callable[[], int] | None = None,
) -> dict[Role, Checkpoint]:
    """The checkpoint folders that a name stands for: a pair, or the one that there is.

    Args:
        model: "tiny", "2b", "8b", a Hugging Face id, each of the last three with "@revision" or without, or
            the folder of a checkpoint, of a pair, or of a repository in the cache of huggingface_hub.
        pair: look for the sibling of what is named, too.
        offline: take what is here and ask no network.
        progress: told a step's name and its fraction done, in [0, 1].
        export_bytes: see `Hub.fetch`.

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
        return _from_hub(reference, pair=pair, offline=offline, progress=progress, export_bytes=export_bytes)
    known = ", ".join([TINY, *NAMES])
    raise ModelNotFoundError(
        f"{name}: no such model. Give {known}, a Hugging Face id (such as {NAMES['2b']}), a checkpoint "
        "folder or a bundle folder."
    )


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
    from .hub_listing import Reference

    short, at, revision = name.partition("@")
    return Reference.parse(NAMES.get(short.lower(), short) + at + revision)


def surely_differ(one: str, other: str) -> bool:
    """Whether two names mean models that cannot be the same, as `tiny` and `2b`. Opens nothing."""
    first, second = _well_known(one), _well_known(other)
    return first is not None and second is not None and first != second


def _well_known(name: str) -> str | None:
    """The one model that a name means, whatever its revision; None where it may be any."""
    short = name.partition("@")[0]
    model = NAMES.get(short.lower(), short)
    return model if model in (TINY, *NAMES.values()) else None


def _from_hub(
    reference: Reference,
    *,
    pair: bool,
    offline: bool,
    progress: Progress | None = None,
    export_bytes: Callable[[], int] | None = None,
) -> dict[Role, Checkpoint]:
    """Find a pair in the cache of huggingface_hub, or download it. One name stands for both."""
    from .hub import Hub
    from .hub_listing import Reference

    role = role_of(reference.repository)
    wanted = {role: reference}
    owner, _, name = reference.repository.partition("/")
    sibling = next(sibling_names(name), None) if pair else None
    if sibling is not None:
        # A commit belongs to one repository; a branch or tag may exist in both.
        revision = reference.revision if reference.may_move else None
        wanted[_other(role)] = Reference(f"{owner}/{sibling}", revision)
    hub = Hub.of_this_machine()
    found = replace(hub, offline=hub.offline or offline).fetch(
        wanted, needed=role, progress=progress, export_bytes=export_bytes
    )
    return {role: _checkpoint(snapshot) for role, snapshot in found.items()}


def _checkpoint(snapshot: Snapshot) -> Checkpoint:
    return Checkpoint(path=snapshot.path, name=snapshot.repository, revision=snapshot.commit)


def _other(role: Role) -> Role:
    return "reranker" if role == "embedder" else "embedder"


def snapshot_revision(snapshot: Path) -> str | None:
    """The hub keeps a snapshot in a folder named after its commit."""
    return snapshot.name if re.fullmatch(r"[0-9a-f]{40}", snapshot.name) else None
