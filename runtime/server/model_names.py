"""What a served model goes by: programs name it as they know it, by its short name or its id on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from ..errors import ModelNotFoundError, PartError
from ..model.bundle import MANIFEST, Role, open_bundle
from ..model.checkpoints import NAMES, TINY, find_checkpoints, reference_of, role_of, sibling_names

_TINY: dict[Role, str] = {"embedder": "tiny/embedding", "reranker": "tiny/reranker"}
_ROUTES: dict[Role, str] = {"embedder": "/v1/embeddings", "reranker": "/v1/rerank"}


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The id of one model of the pair, and the other names it answers to. None of them is a path."""

    role: Role
    id: str
    aliases: tuple[str, ...]

    def has(self, name: str) -> bool:
        """Whether it goes by a name, in capitals or not."""
        return name.casefold() in {one.casefold() for one in (self.id, *self.aliases)}


def names_of(model: str) -> tuple[ModelNames, ...]:
    """The names of the pair, or of the one that there is, of what was asked for as `model`.

    Reads a few files at most; nothing is downloaded or loaded.

    Raises:
        BundleError: it is a bundle, and damaged.
        ModelNotFoundError: there is nothing of that name.
    """
    sources = _sources(model)
    shared = [PurePath(model).name if _is_path(model) else model.partition("@")[0]]
    shared += [
        short for short, repository in NAMES.items() if repository.partition("@")[0] in sources.values()
    ]
    shared += [TINY] if sources == _TINY else []
    return tuple(_names(role, source, shared) for role, source in sorted(sources.items()))


def chosen(asked: str | None, role: Role, served: tuple[ModelNames, ...]) -> ModelNames:
    """The model of `role`, if it is what was asked for by name; None takes what there is.

    Raises:
        PartError: the name is that of the other model of the pair.
        ModelNotFoundError: nothing of that name is served.
    """
    mine = next((names for names in served if names.role == role), None)
    if mine is None:
        raise ModelNotFoundError(f"No {role} is served here. Start the server with a model that has one.")
    if asked is None or mine.has(asked):
        return mine
    if any(names.has(asked) for names in served):
        raise PartError("model", f"{ascii(asked)[1:-1]} answers at {_ROUTES[_other(role)]}, not here.")
    raise not_served(asked, served)


def not_served(asked: str, served: tuple[ModelNames, ...]) -> ModelNotFoundError:
    """The error that says which models there are instead."""
    known = ", ".join(names.id for names in served)
    return ModelNotFoundError(
        f"model {ascii(asked)[1:-1][:80]}: is not served here. Served: {known}. Name one of them."
    )


def _sources(model: str) -> dict[Role, str]:
    """Where each model of the pair came from: an id on the hub, or a folder."""
    folder = Path(model).expanduser()
    if model == TINY:
        return _TINY
    if (folder / MANIFEST).is_file():
        return {role: part.source.name for role, part in open_bundle(folder).manifest.parts.items()}
    if folder.is_dir():
        return {role: checkpoint.name for role, checkpoint in find_checkpoints(model, offline=True).items()}
    reference = reference_of(model)
    if reference is None:
        raise ModelNotFoundError(f"{PurePath(model).name}: there is no such model any more.")
    owner, _, name = reference.repository.partition("/")
    role = role_of(name)
    sibling = next(sibling_names(name), None)
    sources: dict[Role, str] = {role: reference.repository}
    return sources if sibling is None else {**sources, _other(role): f"{owner}/{sibling}"}


def _names(role: Role, source: str, shared: list[str]) -> ModelNames:
    is_path = _is_path(source)
    name = PurePath(source).name if is_path else source
    known = dict.fromkeys([*shared, PurePath(source).name])
    return ModelNames(role, name, tuple(alias for alias in known if alias != name))


def _is_path(name: str) -> bool:
    return PurePath(name).is_absolute() or name.startswith(("~", "."))


def _other(role: Role) -> Role:
    return "reranker" if role == "embedder" else "embedder"
