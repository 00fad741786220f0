"""Searches go first: work in the background waits for them, ends its run for them, and still gets on."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.runtime import Embedder
from qvl_local.runtime.errors import ModelError, StoppedError
from qvl_local.runtime.model.ort_session import OrtSession
from qvl_local.runtime.model.precedence import LONGEST_WAIT_S, SHORTEST_WAIT_S, Precedence
from qvl_local.runtime.model.session import Array, Interruption

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def embedder(tiny_bundle: str) -> Embedder:
    return Embedder.open(tiny_bundle)


@pytest.fixture(scope="module")
def photos() -> list[dict[str, NDArray[np.uint8]]]:
    pixels = np.random.default_rng(3)
    return [{"image": pixels.integers(0, 255, (96, 128, 3), dtype=np.uint8)} for _ in range(3)]


def test_vectors_are_the_same_behind_searches(
    embedder: Embedder, photos: list[dict[str, NDArray[np.uint8]]]
) -> None:
    behind = embedder.behind(Precedence())
    assert behind.space == embedder.space
    assert np.array_equal(behind.embed(photos), embedder.embed(photos))


def test_work_waits_until_the_search_is_over(
    embedder: Embedder, photos: list[dict[str, NDArray[np.uint8]]]
) -> None:
    precedence = Precedence(quiet_s=0.0, longest_wait_s=PATIENCE_S)
    order: list[str] = []

    def work() -> None:
        embedder.behind(precedence).embed(photos)
        order.append("embedded")

    with precedence.searching():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(0.3)
        order.append("searched")
    thread.join(PATIENCE_S)
    assert order == ["searched", "embedded"]
    assert not precedence.is_searching


def test_a_run_ends_when_a_search_begins_and_is_made_again(
    embedder: Embedder,
    photos: list[dict[str, NDArray[np.uint8]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    precedence = Precedence(quiet_s=0.0, longest_wait_s=PATIENCE_S)
    begun, outcomes = threading.Event(), []
    run_until = OrtSession.run_until

    def held(
        session: OrtSession, interruption: Interruption, feeds: Mapping[str, Array]
    ) -> dict[str, NDArray[np.float32]] | None:
        if not begun.is_set():
            begun.set()
            for _ in range(6000):  # until the search has told the run, as it may in the middle of one
                if interruption.is_set:
                    break
                time.sleep(0.01)
        outputs = run_until(session, interruption, feeds)
        outcomes.append(outputs is not None)
        return outputs

    monkeypatch.setattr(OrtSession, "run_until", held)
    vectors: list[NDArray[np.float32]] = []
    thread = threading.Thread(target=lambda: vectors.append(embedder.behind(precedence).embed(photos)))
    thread.start()
    assert begun.wait(PATIENCE_S)
    with precedence.searching():
        pass
    thread.join(PATIENCE_S)
    assert outcomes[0] is False
    assert outcomes[1:] == [True] * (len(outcomes) - 1)
    assert np.array_equal(vectors[0], embedder.embed(photos))


def test_work_gets_on_under_searches_without_end(
    embedder: Embedder, photos: list[dict[str, NDArray[np.uint8]]]
) -> None:
    precedence = Precedence(longest_wait_s=0.05)
    with precedence.searching():
        assert np.array_equal(embedder.behind(precedence).embed(photos), embedder.embed(photos))


def test_the_longer_a_run_takes_the_longer_it_waits_under_searches_without_end() -> None:
    precedence = Precedence(longest_wait_s=0.0)
    with precedence.searching():
        assert not precedence.give_way()
        precedence.took(1e-6)
        began = time.monotonic()
        assert not precedence.give_way(since=began - SHORTEST_WAIT_S)
        assert not precedence.give_way(since=began - LONGEST_WAIT_S)
        precedence.took(60.0)
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        assert not precedence.give_way(since=began - SHORTEST_WAIT_S, stop=stop)
        assert stop.is_set()


def test_a_run_that_is_dropped_is_not_made_again(
    embedder: Embedder, photos: list[dict[str, NDArray[np.uint8]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    precedence = Precedence()
    run_until = OrtSession.run_until

    def dropped(
        session: OrtSession, interruption: Interruption, feeds: Mapping[str, Array]
    ) -> dict[str, NDArray[np.float32]] | None:
        precedence.drop()
        return run_until(session, interruption, feeds)

    behind = embedder.behind(precedence)
    precedence.drop()  # nothing is on its way
    assert behind.embed(photos).shape == (3, embedder.dims)
    monkeypatch.setattr(OrtSession, "run_until", dropped)
    with pytest.raises(StoppedError):
        behind.embed(photos)


def test_work_that_is_ended_waits_for_nothing(
    embedder: Embedder, photos: list[dict[str, NDArray[np.uint8]]]
) -> None:
    precedence = Precedence(longest_wait_s=PATIENCE_S)
    threading.Timer(0.2, precedence.end).start()
    with precedence.searching(), pytest.raises(StoppedError):
        embedder.behind(precedence).embed(photos)
    with pytest.raises(StoppedError):
        embedder.behind(precedence).embed(photos)


def test_waiting_ends_when_the_work_is_stopped() -> None:
    precedence, stop = Precedence(longest_wait_s=PATIENCE_S), threading.Event()
    stop.set()
    with precedence.searching():
        assert not precedence.give_way(stop=stop)


def test_an_error_of_a_run_that_nobody_ended_is_an_error(embedder: Embedder) -> None:
    session = embedder._loaded.engine.decoder()
    assert isinstance(session, OrtSession)
    with pytest.raises(ModelError, match="failed to run"):
        session.run_until(Interruption(), {name: np.zeros(0, np.float32) for name in session._inputs})
