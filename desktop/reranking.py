"""The slow step of a search in the terminal: told when it takes long, and given up at Ctrl-C."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from .console import note
from .text import count

if TYPE_CHECKING:
    from qvl_local.runtime import Library
    from qvl_local.runtime.library.records import SearchResult
    from qvl_local.runtime.library.search import Found

# `tiny` takes less than a second, the 2B model on two cores some twenty for each photo.
PATIENCE_S = 5.0
# Some systems notice Ctrl-C between two waits alone.
_LOOK_EVERY_S = 0.5


def rerank(library: Library, found: Found, *, may_stop: bool) -> SearchResult:
    """`Library.rerank`, with a word on stderr once it has taken `PATIENCE_S` seconds.

    From then on Ctrl-C gives the embedder's order instead, where a person waits for it (`may_stop`).

    Raises:
        KeyboardInterrupt: Ctrl-C before that, or where `may_stop` is false.
        QvlError: as `Library.rerank`.
    """
    from qvl_local.runtime.model.session import Interruption

    stop = Interruption()
    thread = ThreadPoolExecutor(1, thread_name_prefix="reranking")
    reading = thread.submit(library.rerank, found, stop=stop)
    thread.shutdown(wait=False)
    is_told = False
    try:
        wait([reading], timeout=PATIENCE_S)
        if not reading.done():
            best = count(min(found.top, len(found.candidates)), "hit")
            rest = "Ctrl-C shows them as they are now" if may_stop else "--no-rerank leaves that out"
            is_told = True
            note(f"The reranker reads the best {best} once more, which takes a while here. {rest}.")
        while not reading.done():
            wait([reading], timeout=_LOOK_EVERY_S)
        return reading.result()
    except KeyboardInterrupt:
        stop.set(final=True)
        is_answer = is_told and may_stop
        if is_answer:
            note("Not reranked: this is the embedder's order.")
        wait([reading])  # it uses the library, which will be closed; a second Ctrl-C does not wait
        if is_answer:
            return found.result()
        raise
