"""The seam between a model and what runs it: ONNX Runtime on a bundle, a registered backend on a checkpoint.

A backend is found through the entry point group "qvl_local.backends" by its name, so that the runtime never
imports one: "torch" lives in the quantization package and needs an extra.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ModelError
from .bundle import Bundle, Role
from .ort_session import SessionOptions
from .resolve import Checkpoint
from .session import Session

BackendName = Literal["onnx", "torch"]
BACKENDS: tuple[str, ...] = get_args(BackendName)
GROUP = "qvl_local.backends"


class Rows(Protocol):
    """The token embedding table, in memory or mapped: rows [vocabulary, H] by number."""

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """int64 [n] -> floating [n, H]."""
        ...


class Engine(Protocol):
    """One model of the pair, ready to run. Sessions load when they are first asked for; safe between threads.

    `bundle` says what it is; for a checkpoint that is run as it lies, it describes that folder and is in no
    file. `head` is float32 [H], W_yes - W_no, for a reranker.
    """

    @property
    def bundle(self) -> Bundle:
        """What runs: sources, precisions, where its small files are."""
        ...

    @property
    def table(self) -> Rows:
        """The token embeddings."""
        ...

    @property
    def head(self) -> NDArray[np.float32] | None:
        """The reranker's yes/no head; None for an embedder."""
        ...

    def vision(self) -> Session:
        """The vision tower."""
        ...

    def decoder(self) -> Session:
        """The decoder."""
        ...

    def unload(self) -> None:
        """Free the memory of both; the next use loads them again."""
        ...


class Backend(Protocol):
    """What an entry point of the group is: it opens one checkpoint."""

    def __call__(
        self, checkpoint: Checkpoint, role: Role, *, precision: str | None, options: SessionOptions
    ) -> Engine:
        """Open a checkpoint; weights may load later.

        Raises:
            InputError: a precision that this backend does not have.
            MissingExtraError: a library that it needs is not installed.
            ModelError: the device cannot be had, or the checkpoint cannot be used.
        """
        ...


def check_backend(name: str) -> None:
    """Raise InputError for a backend that does not exist."""
    if name not in BACKENDS:
        raise InputError(f"Unknown backend {name!r}. Use {' or '.join(BACKENDS)}.")


def load_backend(name: str) -> Backend:
    """The registered backend of this name.

    Raises:
        ModelError: this installation does not register it.
    """
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=name):
        backend: Backend = point.load()
        return backend
    raise ModelError(
        f"The backend {name} is not registered. "
        "Install qvl-local again: pip install --force-reinstall qvl-local"
    )
