"""Models are let go when nobody has used them for a while, and come back when they are needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.server.keeper import Keeper, return_memory

PATIENCE_S = 60.0


@pytest.fixture
def library(shelf_copy: object) -> Iterator[Library]:
    with Library.open(shelf_copy.library, create=False) as library:  # type: ignore[attr-defined]
        yield library


def until_unloaded(library: Library) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while library.model_state().state != "unloaded":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_idle_models_are_unloaded_and_come_back(library: Library) -> None:
    keeper = Keeper(library, ttl_s=0.2)
    keeper.open()
    try:
        first = library.search("a dog", limit=3).hits
        until_unloaded(library)
        assert library._models.now._embedder is None
        assert library.search("a dog", limit=3).hits == first
        until_unloaded(library)
    finally:
        keeper.close()


def test_models_in_use_are_kept(library: Library) -> None:
    keeper = Keeper(library, ttl_s=0.05)
    keeper.open()
    try:
        with library.using_models():
            vectors = library.embedder().embed([{"text": "a dog"}])
            time.sleep(0.5)
            assert library._models.now._embedder is not None
            assert library.embedder().embed([{"text": "a dog"}]).shape == vectors.shape
        until_unloaded(library)
    finally:
        keeper.close()


def test_searches_never_meet_a_model_that_goes(library: Library) -> None:
    """Unloading as often as it can, under searches from several threads."""
    expected = library.search("a dog", limit=3).hits
    errors: list[Exception] = []
    stop = threading.Event()

    def search(number: int) -> None:
        try:
            for turn in range(3):
                library.search(f"a cat {number} {turn}", limit=3, rerank=False)
            assert library.search("a dog", limit=3).hits == expected
        except Exception as error:
            errors.append(error)

    def release() -> None:
        while not stop.is_set():
            library.release_models()

    releasing = threading.Thread(target=release)
    releasing.start()
    searching = [threading.Thread(target=search, args=(number,)) for number in range(3)]
    for thread in searching:
        thread.start()
    for thread in searching:
        thread.join()
    stop.set()
    releasing.join()
    assert errors == []


def test_without_a_time_limit_models_stay(library: Library) -> None:
    keeper = Keeper(library, ttl_s=0)
    keeper.open()
    library.search("a dog", limit=1)
    keeper.close()
    assert library.model_state().state == "ready"


def test_returning_memory_is_harmless() -> None:
    return_memory()
