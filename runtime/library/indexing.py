"""Bringing an open library up to date with its models: which space is filled, and when another one serves.

The walking, reading and writing of one run is the `Indexer`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StoppedError
from .indexer import Embed, Indexer, IndexSettings
from .previews import Previews
from .priority import lower_thread
from .records import IndexReport
from .renewal import is_filled, switch
from .running import identity_of
from .status import nothing_done
from .store import Store
from .survey import known_places
from .tally import IndexProgress

if TYPE_CHECKING:
    from ..model.embedder import Embedder
    from ..model.precedence import Precedence
    from .models import Models


def index_library(
    folder: Path,
    models: Models,
    paths: Sequence[str] | None,
    *,
    changes: bool,
    precedence: Precedence,
    settings: IndexSettings,
    progress: Callable[[IndexProgress], None] | None,
    stop: threading.Event | None,
) -> IndexReport:
    """Index `paths`, absolute, into the library in `folder`; None is all that it knows.

    With `changes`, something happened at `paths`, see `survey`. A library without vectors of these models
    gets a whole run instead, and is switched over to them when nothing is left that waits for some. Errors as
    for `Library.index`.
    """
    with models.use(counts=False):
        try:
            embedder = models.embedder(stop)
        except StoppedError:
            with Store.open(folder) as store:
                return nothing_done(store)
        identity = identity_of(embedder, models.running().model)
        with Store.open(folder, mode="write") as store:
            space = store.space(identity)
            if paths is None or not space.active:
                # A new space can only serve once it holds all that the old one does.
                named = () if paths is None or changes else paths
                paths, changes = tuple(dict.fromkeys((*named, *known_places(store, space)))), False
            left = 0 if space.active else store.counts().items - store.counts(space).items
            if left > 0 and progress is not None:
                progress(IndexProgress("renew", 0, left, 0))
            with Previews.open(folder, mode="write") as previews:
                report = Indexer(
                    store,
                    previews,
                    space,
                    embed=embed_behind(models, embedder, precedence, is_background=settings.is_background),
                    budget=embedder.budget,
                    settings=settings,
                    progress=progress,
                    stop=stop,
                ).run(paths, changes=changes)
            if not space.active and is_filled(store, space):
                switch(store, space)
    return report


def embed_behind(models: Models, embedder: Embedder, precedence: Precedence, *, is_background: bool) -> Embed:
    """How an indexing run embeds: behind searches, and in a thread that others go before."""
    behind = embedder.behind(precedence)
    is_lowered = not is_background

    def embed(inputs: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
        nonlocal is_lowered
        with models.first_run():
            if not is_lowered:
                embedder.load()  # first: the graphs' threads inherit what this thread has
                lower_thread()
                is_lowered = True
            return behind.embed(inputs, dims=behind.max_dims)

    return embed
