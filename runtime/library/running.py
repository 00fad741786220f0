"""How a library's models are run: what its caller asked for, and what it remembers of its vectors.

Backend and precision make the vectors, as the model does. A library is searched and kept up to date with
those that its vectors were made with, on whatever machine it is, until others are asked for by name.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LibraryError
from ..model.bundle import MANIFEST, precision_name
from .records import Space, SpaceIdentity
from .roots import absolute

if TYPE_CHECKING:
    from ..model.backends import BackendName
    from ..model.embedder import Embedder
    from ..model.ort_providers import Device
    from .store import Store

DEFAULT_MODEL = "tiny"

_TORCH = "torch"


@dataclass(frozen=True, slots=True)
class Running:
    """A model and how it is run; fields as in `PairModel.open`."""

    model: str
    backend: BackendName
    device: Device
    precision: str | None
    brief: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller of `Library.open` asked for; None is what the library remembers, else the default."""

    model: str | None = None
    backend: BackendName | None = None
    device: Device = "cpu"
    precision: str | None = None
    brief: bool = False

    def running(self, space: Space | None) -> Running:
        """What to open for a library whose active space is `space`."""
        default: BackendName = "onnx"
        if space is None or self.model not in (None, space.identity.bundle):
            model, backend = self.model or DEFAULT_MODEL, self.backend or default
            return Running(model, backend, self.device, self.precision, self.brief)
        model = space.identity.bundle
        precision: str | None
        backend, precision = _remembered(space.identity)
        # Another backend has precisions of its own, and a bundle folder has the one that it was made with.
        if self.backend not in (None, backend) or (Path(model) / MANIFEST).is_file():
            precision = None
        precision = self.precision or precision
        return Running(model, self.backend or backend, self.device, precision, self.brief)

    def options(self) -> Iterator[str]:
        """The command line's options that ask for the same, but for the model."""
        if self.backend is not None:
            yield from ("--backend", self.backend)
        if self.device != "cpu":
            yield from ("--device", self.device)
        if self.precision is not None:
            yield from ("--precision", self.precision)


def lasting_name(model: str | Path) -> str:
    """A model's name as the library remembers it: folders by their whole path, wherever one stands later."""
    folder = absolute(model)
    return folder if str(model) != DEFAULT_MODEL and Path(folder).is_dir() else str(model)


def identity_of(embedder: Embedder, model: str) -> SpaceIdentity:
    """The vector space of an embedder; `model` is its name."""
    space = embedder.space
    # What torch makes of a checkpoint is told apart, and remembered, by this word. TensorRT and ONNX Runtime
    # run the same graphs, and their vectors may meet.
    engine = f"{_TORCH} " if embedder.bundle.manifest.flavour == _TORCH else ""
    return SpaceIdentity(
        bundle=model,
        revision=space["bundle"],
        precision=engine + space["precision"],
        dims=embedder.max_dims,
        pixels=json.dumps(space["pixels"], sort_keys=True),
        template=space["template"],
    )


def _remembered(identity: SpaceIdentity) -> tuple[BackendName, str]:
    """Backend and precision of a space's vectors. A precision goes by what it makes of the decoder."""
    engine, _, formats = identity.precision.rpartition(" ")
    decoder = formats.partition("/")[0]
    return ("torch", decoder) if engine == _TORCH else ("onnx", precision_name(decoder))


def check_comparable(store: Store, asked: Asked, wanted: SpaceIdentity) -> None:
    """Refuse a model whose vectors are of another space than those that the library is searched by.

    Raises:
        LibraryError: it says how they differ, and the command that embeds the library anew.
    """
    space = store.active_space()
    if space is None or replace(wanted, bundle=space.identity.bundle) == space.identity:
        return
    raise _not_comparable(store, space, asked, wanted)


def check_names(store: Store, asked: Asked, space: Space) -> None:
    """Refuse by its name alone a model of which a library has no vectors: before it is downloaded.

    Raises:
        LibraryError: as `check_comparable`, which looks at what the names stand for.
    """
    has = space.identity
    if asked.model is None or asked.model == has.bundle:
        return
    from ..model.checkpoints import surely_differ

    if surely_differ(has.bundle, asked.model):
        raise _not_comparable(store, space, asked, replace(has, bundle=asked.model))


def _not_comparable(store: Store, space: Space, asked: Asked, wanted: SpaceIdentity) -> LibraryError:
    """What to say of a library that is searched by `space`, and not by `wanted`."""
    has, remedy = space.identity, "Index"
    if has.bundle != wanted.bundle:
        which = f"was indexed with the model {has.bundle}, not {wanted.bundle}"
    elif has.precision != wanted.precision and (asked.backend, asked.precision) != (None, None):
        which = f"was indexed with {has.bundle} as {has.precision}, not as {wanted.precision}"
        remedy = "Leave --backend and --precision out, or index"
    else:
        which = f"was indexed with another version of the model {has.bundle}, or other settings"
    return LibraryError(
        f"{store.folder}: the library {which}; their vectors cannot be compared. "
        f"{remedy} all of it again with this one: {_command_to_index(store, space, asked, wanted.bundle)}"
    )


def _command_to_index(store: Store, space: Space, asked: Asked, model: str) -> str:
    """The command that embeds the library anew with `model`: any one place brings all the others."""
    from .survey import known_places

    places = known_places(store, space)
    there = next((path for path in places if Path(path).exists()), places[0] if places else "PATH")
    words = ("qvl-local", "index", there, "--model", model, "--library", str(store.folder))
    return shlex.join((*words, *asked.options()))
