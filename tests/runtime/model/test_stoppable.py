"""Ending a model's work in the middle: nothing changes until it is wished, then nothing more is computed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from qvl_local.runtime import Reranker
from qvl_local.runtime.errors import StoppedError
from qvl_local.runtime.model.session import Interruption

DOCUMENTS = [{"text": f"{count} dogs on a beach"} for count in ("two", "three", "no")]


@pytest.fixture(scope="module")
def reranker(tiny_bundle: str) -> Reranker:
    return Reranker.open(tiny_bundle)


def test_scores_are_the_same_as_long_as_nobody_stops(reranker: Reranker) -> None:
    stoppable = reranker.until(Interruption())
    query = {"text": "dogs"}
    np.testing.assert_array_equal(stoppable.logits(query, DOCUMENTS), reranker.logits(query, DOCUMENTS))


def test_what_is_stopped_before_never_runs_and_the_model_stays_usable(reranker: Reranker) -> None:
    stop = Interruption()
    stop.set()
    with pytest.raises(StoppedError):
        reranker.until(stop).logits({"text": "dogs"}, DOCUMENTS)
    assert np.isfinite(reranker.logits({"text": "dogs"}, DOCUMENTS)).all()


def test_a_stop_from_another_thread_ends_the_work(reranker: Reranker) -> None:
    stop, begun = Interruption(), threading.Event()
    stoppable = reranker.until(stop)

    def wish() -> None:
        begun.wait(60)
        stop.set()

    def work_on() -> None:
        while True:
            stoppable.logits({"text": "dogs"}, DOCUMENTS)
            begun.set()

    thread = threading.Thread(target=wish)
    thread.start()
    with pytest.raises(StoppedError):
        work_on()
    thread.join()
