"""The models of an open library: loaded when they are needed, the reranker ahead, nobody waits in vain."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.errors import InputError, MediaError, ModelError, ModelLoadingError
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.models import Models
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.model.embedder import Embedder
from qvl_local.runtime.model.reranker import Reranker

PATIENCE_S = 20.0  # how long a load waits to be let go: a search that waits for it comes out after it


class SlowLoad:
    """A reranker's `load` that goes on only when it is let go, and then notes that it is done."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.order: list[str] = []

    def __call__(self, _reranker: Reranker) -> None:
        self.begun.set()
        self.go_on.wait(PATIENCE_S)
        self.order.append("loaded")


@pytest.fixture
def slow_load(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowLoad]:
    load = SlowLoad()
    monkeypatch.setattr(Reranker, "load", lambda reranker: load(reranker))
    yield load
    load.go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("loading the reranker"):
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str, media: Any) -> Path:
    root = tmp_path_factory.mktemp("models")
    media.photo(root / "album" / "red.jpg", (200, 30, 30))
    settings = IndexSettings(WorkerSettings(1))
    with Library.open(root / "library", model=tiny_bundle, settings=settings) as library:
        library.index([root / "album"])
    return root / "library"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"image": "gone.jpg"}, MediaError),
        ({"query": "red", "dims": 999}, InputError),
        ({"query": "red", "limit": 0}, InputError),
    ],
)
def test_a_search_that_cannot_be_loads_no_reranker(
    library_folder: Path, slow_load: SlowLoad, asked: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error), Library.open(library_folder) as library:
        library.search(**asked)
    assert not slow_load.begun.is_set()


def test_an_error_does_not_wait_for_the_reranker(
    library_folder: Path, slow_load: SlowLoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        assert slow_load.begun.wait(PATIENCE_S)
        raise KeyboardInterrupt

    monkeypatch.setattr(Embedder, "embed", interrupted)
    with pytest.raises(KeyboardInterrupt), Library.open(library_folder) as library:
        library.search("red")
    slow_load.order.append("told")
    assert slow_load.order == ["told"]


def test_closing_in_peace_waits_for_the_reranker(library_folder: Path, slow_load: SlowLoad) -> None:
    library = Library.open(library_folder)
    library.find("red")
    assert slow_load.begun.wait(PATIENCE_S)
    threading.Timer(0.2, slow_load.go_on.set).start()
    library.close()
    slow_load.order.append("closed")
    assert slow_load.order == ["loaded", "closed"]


def test_whatever_goes_wrong_while_loading_is_told_once(
    library_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_reranker: Reranker) -> None:
        raise MemoryError("no more")

    # pytest turns an exception that a thread does not catch into a failure.
    monkeypatch.setattr(Reranker, "load", broken)
    with Library.open(library_folder) as library:
        assert library.find("red").result().hits


def test_a_library_can_be_closed_from_many_threads_while_it_loads(
    library_folder: Path, slow_load: SlowLoad
) -> None:
    failures: list[BaseException] = []

    def close() -> None:
        try:
            library.close()
        except BaseException as error:
            failures.append(error)

    library = Library.open(library_folder)
    library.find("red")
    closers = [threading.Thread(target=close) for _ in range(8)]
    for thread in closers:
        thread.start()
    slow_load.go_on.set()
    for thread in closers:
        thread.join()
    assert failures == []
    library.close()
    assert library.search("red", rerank=False).hits  # it opens again when it is used again
    library.close()


def test_nothing_is_loaded_for_models_that_were_closed(library_folder: Path, slow_load: SlowLoad) -> None:
    with Library.open(library_folder) as library:
        models = library._models.now
    models.load_reranker_ahead()
    assert not slow_load.begun.is_set()


def test_a_fetch_for_models_that_were_closed_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    steps: list[str] = []
    models: Models

    def tell(step: str, _fraction: float) -> None:
        steps.append(step)
        models.close(wait=False)

    with Library.open(tmp_path / "library", model="tiny", create=True) as library:
        models = Models(library._models.running, progress=tell)
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "other"))
    models._load_reranker()  # in this thread
    assert len(steps) == 1
    assert not list((tmp_path / "other").rglob("*.onnx"))


def test_the_command_leaves_at_once_what_still_loads(library_folder: Path) -> None:
    """A real process: its exit would wait for any thread that it had left behind."""
    script = (
        "import sys, threading\n"
        "from qvl_local.desktop import cli\n"
        "def never(_): threading.Event().wait()\n"
        "from qvl_local.runtime.model.reranker import Reranker\n"
        "from qvl_local.runtime.model.embedder import Embedder\n"
        "Reranker.load = never\n"
        "def interrupted(*_, **__): raise KeyboardInterrupt\n"
        "Embedder.embed = interrupted\n"
        f"sys.argv = ['qvl-local', 'search', 'red', '--library', {str(library_folder)!r}]\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 130, done.stderr
    assert "Stopped by Ctrl-C" in done.stderr


def test_models_are_let_go_when_nobody_uses_them_and_come_back(library_folder: Path) -> None:
    with Library.open(library_folder) as library:
        assert library.model_state().state == "unloaded"
        assert not library.release_models()
        first = library.search("red").hits
        assert library.model_state().state == "ready"
        assert not library.release_models(idle_s=3600)
        with library.using_models():
            assert not library.release_models()
        graphs = library._models.now._embedder
        assert graphs is not None
        assert library.release_models()
        assert library.model_state().state == "unloaded"
        assert library.search("red").hits == first
        assert library.model_state().state == "ready"


def test_looking_for_changes_where_there_are_none_keeps_no_model(library_folder: Path) -> None:
    with Library.open(library_folder) as library:
        library.search("a red picture")
        used_at = library._models.now._used_at
        library.index()
        assert library._models.now._used_at == used_at
        library.search("another red picture", rerank=False)
        assert library._models.now._used_at > used_at


def test_nobody_waits_for_a_model_that_is_being_fetched(
    tmp_path: Path, library_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, go_on = threading.Event(), threading.Event()

    def slow_open(_kind: type[Embedder], _model: str, *, progress: Any, **_: Any) -> None:
        progress("downloading", 0.25)
        opens.set()
        go_on.wait(PATIENCE_S)
        raise ModelError("the network went away")

    with Library.open(library_folder) as library:
        monkeypatch.setattr(Embedder, "open", classmethod(slow_open))
        errors: list[Exception] = []

        def fetch() -> None:
            try:
                library._models.now.embedder()
            except ModelError as error:
                errors.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        assert opens.wait(PATIENCE_S)
        state = library.model_state()
        assert (state.state, state.step, state.fraction) == ("loading", "downloading", 0.25)
        with pytest.raises(ModelLoadingError, match=r"downloading, 25%"):
            library.search("red")
        go_on.set()
        thread.join(PATIENCE_S)
        assert len(errors) == 1
        state = library.model_state()
        assert (state.state, state.error) == ("failed", "the network went away")
