"""qvl-local runtime: everything that happens after export, without torch.

The public names are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .library.library import Library
    from .model.embedder import Embedder
    from .model.reranker import Reranker

__all__ = ["Embedder", "Library", "Reranker"]

_HOMES = {
    "Embedder": ".model.embedder",
    "Library": ".library.library",
    "Reranker": ".model.reranker",
}


def __getattr__(name: str) -> object:
    """Import a public name from its home module the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
