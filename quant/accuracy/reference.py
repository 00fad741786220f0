"""The bundle that others are compared with: the one that is named, else fp32 of the same checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qvl_local.runtime.errors import InputError, ModelError, ModelNotFoundError
from qvl_local.runtime.model.bundle import Bundle, Part, Role
from qvl_local.runtime.model.bundle_cache import export_once
from qvl_local.runtime.model.checkpoints import TINY, Checkpoint, find_checkpoints
from qvl_local.runtime.model.storage import folder_named

PRECISION = "fp32"
_NAME_IT = "Name what to compare with: --against BUNDLE"

Progress = Callable[[str, float], None]


def choose_reference(
    bundles: Sequence[Bundle], *, named: Bundle | None = None, progress: Progress | None = None
) -> Bundle:
    """What these bundles are compared with: `named`, an fp32 one among them, or one made now.

    Raises:
        InputError: bundles of different checkpoints, and no reference named; or as `default_reference`.
    """
    if named is not None:
        return named
    first = bundles[0]
    for other in bundles[1:]:
        if not same_sources(first, other):
            raise InputError(f"{first.path} and {other.path}: were made of different checkpoints. {_NAME_IT}")
    for bundle in bundles:
        if all(_is_reference(part) for part in bundle.manifest.parts.values()):
            return bundle
    return default_reference(first, progress=progress)


def default_reference(bundle: Bundle, *, progress: Progress | None = None) -> Bundle:
    """fp32 of what `bundle` was made of, exported into the cache unless it is there.

    Raises:
        InputError: the checkpoints have changed since.
        ModelError: they are not to be found any more, or cannot be fetched or exported.
    """
    checkpoints = {
        role: _checkpoint(bundle, role, part, progress)
        for role, part in sorted(bundle.manifest.parts.items())
    }
    reference = export_once(checkpoints, precision=PRECISION, progress=progress)
    for role, part in bundle.manifest.parts.items():
        if reference.part(role).source.sha256 != part.source.sha256:
            raise InputError(
                f"{bundle.path}: its {role} was made of another version of {part.source.name} than the one "
                f"that is there now. {_NAME_IT}"
            )
    return reference


def same_sources(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles were made of the same checkpoints."""

    def sources(bundle: Bundle) -> dict[Role, str]:
        return {role: part.source.sha256 for role, part in bundle.manifest.parts.items()}

    return sources(one) == sources(other)


def is_tiny(bundle: Bundle) -> bool:
    """Whether a bundle was made of the pair that comes with the package, whose world the sample world is."""
    try:
        tiny = {role: found.path.resolve() for role, found in find_checkpoints(TINY).items()}
    except ModelNotFoundError:
        return False
    return all(
        part.source.name == _tiny_name(role) or Path(part.source.name).resolve() == tiny.get(role)
        for role, part in bundle.manifest.parts.items()
    )


def _is_reference(part: Part) -> bool:
    return part.vision_precision == part.decoder_precision == PRECISION


def _checkpoint(bundle: Bundle, role: Role, part: Part, progress: Progress | None) -> Checkpoint:
    """The checkpoint that a part was made of."""
    name = part.source.name
    model = TINY if name == _tiny_name(role) else name
    if part.source.revision is not None and "@" not in name and not folder_named(name).exists():
        model = f"{name}@{part.source.revision}"
    try:
        found = find_checkpoints(model, pair=False, progress=progress)
    except ModelError as error:
        raise ModelError(
            f"{bundle.path}: its {role} was made of {name}, which is needed again to compare with, but: "
            f"{error} {_NAME_IT}"
        ) from error
    for checkpoint in found.values():
        if checkpoint.name == name or str(checkpoint.path) == name:
            return checkpoint
    return found.get(role) or next(iter(found.values()))


def _tiny_name(role: Role) -> str:
    return f"{TINY}/{'embedding' if role == 'embedder' else 'reranker'}"
