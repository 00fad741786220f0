"""A reranker that takes long, as a large model does on a CPU: what is said, and what Ctrl-C gives then."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from qvl_local.desktop import reranking
from qvl_local.runtime import Library
from qvl_local.runtime.errors import ModelError, StoppedError
from qvl_local.runtime.library.records import SearchResult
from qvl_local.runtime.library.search import Found
from qvl_local.runtime.model.session import Interruption

QUERY = "two dogs on a beach at night"
TOLD = "The reranker reads the best 20 hits once more, which takes a while here."


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Interruption]]:
    """A reranker that reads until it is stopped, and Ctrl-C as soon as it was said that it takes long."""
    stops: list[Interruption] = []
    ended = threading.Event()
    note = reranking.note

    def slow(_library: Library, _found: Found, *, stop: Interruption | None = None) -> SearchResult:
        assert stop is not None
        stops.append(stop)
        stop.on_set(ended.set)
        assert ended.wait(30)
        raise StoppedError("Nobody waits for this any more.")

    def told(text: str) -> None:
        note(text)
        if TOLD in text:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(reranking, "PATIENCE_S", 0.01)
    monkeypatch.setattr(reranking, "note", told)
    monkeypatch.setattr(Library, "rerank", slow)
    yield stops
    ended.set()


pytestmark = pytest.mark.skipif("os.name != 'posix'", reason="Windows sends Ctrl-C to whole consoles alone")


def test_ctrl_c_gives_the_embedders_order(cli: Any, stops: list[Interruption]) -> None:
    outcome = cli("search", QUERY)
    assert outcome.status == 0
    assert f"{TOLD} Ctrl-C shows them as they are now." in outcome.err
    assert "Not reranked: this is the embedder's order." in outcome.err
    assert [stop.is_final for stop in stops] == [True]

    table = outcome.out.splitlines()[:-1]  # the last line says how long it took
    assert len(table) == 1 + 20
    assert table == cli("search", QUERY, "--no-rerank").out.splitlines()[:-1]


@pytest.mark.parametrize("form", ["--json", "--files"])
def test_programs_get_the_whole_answer_or_none(form: str, cli: Any, stops: list[Interruption]) -> None:
    outcome = cli("search", QUERY, form)
    assert outcome.status == 130
    assert f"{TOLD} --no-rerank leaves that out." in outcome.err
    assert [stop.is_set for stop in stops] == [True]
    if form == "--json":
        assert json.loads(outcome.out)["error"]["type"] == "Interrupted"
    else:
        assert outcome.out == ""


def test_a_slow_reranker_is_waited_for(cli: Any, cli_json: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking, "PATIENCE_S", 0.0)
    outcome = cli("search", QUERY)
    assert outcome.status == 0
    assert TOLD in outcome.err
    assert "Not reranked" not in outcome.err
    assert all(one["reranker_score"] is not None for one in cli_json("search", QUERY)["results"])


def test_what_goes_wrong_in_it_is_told(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> SearchResult:
        raise ModelError("decoder.onnx: failed to run (a node). Look at it.")

    monkeypatch.setattr(Library, "rerank", broken)
    outcome = cli("search", QUERY)
    assert outcome.status == 1
    assert "Error: decoder.onnx: failed to run (a node). Look at it." in outcome.err
