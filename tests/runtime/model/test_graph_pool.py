"""Graphs that two models name are loaded once, and freed when neither uses them."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import Recipe
from qvl_local.runtime.errors import BundleError
from qvl_local.runtime.model.bundle import open_bundle
from qvl_local.runtime.model.checkpoints import find_checkpoints
from qvl_local.runtime.model.embedder import Embedder
from qvl_local.runtime.model.graph_pool import Lease
from qvl_local.runtime.model.ort_engine import OrtEngine, SwitchedSession
from qvl_local.runtime.model.ort_session import SessionOptions
from qvl_local.runtime.model.reranker import Reranker
from qvl_local.runtime.model.session import Session

OPTIONS = SessionOptions(threads=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """qvl-tiny on one decoder."""
    folder = tmp_path_factory.mktemp("pool") / "bundle"
    export_bundle(find_checkpoints("tiny"), folder, recipe=Recipe.of("int8"), layout="shared")
    return folder


def inner(session: Session) -> Session:
    """The session behind a switch."""
    assert isinstance(session, SwitchedSession)
    return session._session


def test_both_models_of_a_bundle_share_both_sessions(shared: Path) -> None:
    bundle = open_bundle(shared)
    embedder, reranker = (OrtEngine(bundle, role, OPTIONS) for role in ("embedder", "reranker"))
    assert embedder.vision() is reranker.vision()
    assert inner(embedder.decoder()) is inner(reranker.decoder())


def test_models_opened_apart_share_too(shared: Path) -> None:
    embedder, reranker = Embedder.open(shared, threads=1), Reranker.open(shared, threads=1)
    before = embedder.embed([{"text": "two dogs"}])
    scores = reranker.score({"text": "two dogs"}, [{"text": "two dogs on a beach"}])
    engines = embedder._loaded.engine, reranker._loaded.engine
    assert inner(engines[0].decoder()) is inner(engines[1].decoder())
    # Neither left its mark on the other.
    assert (embedder.embed([{"text": "two dogs"}]) == before).all()
    assert (reranker.score({"text": "two dogs"}, [{"text": "two dogs on a beach"}]) == scores).all()


def test_a_graph_stays_while_one_model_uses_it(shared: Path) -> None:
    path = shared / "onnx" / "decoder_int8.onnx"
    first, second = Lease(path, OPTIONS), Lease(path, OPTIONS)
    session = first()
    assert second() is session
    first.drop()
    assert second() is session
    second.drop()
    alive = weakref.ref(session)
    del session
    gc.collect()
    assert alive() is None
    assert first() is second()


def test_a_forgotten_model_frees_its_graph(shared: Path) -> None:
    lease = Lease(shared / "onnx" / "decoder_int8.onnx", OPTIONS)
    alive = weakref.ref(lease())
    del lease
    gc.collect()
    assert alive() is None


def test_unloading_one_model_that_alone_was_used_frees_the_graph(shared: Path) -> None:
    path = shared / "onnx" / "decoder_int8.onnx"
    first, second = Lease(path, OPTIONS), Lease(path, OPTIONS)
    alive = weakref.ref(first())
    first.drop()
    gc.collect()
    assert alive() is None
    second.drop()  # it never was loaded


def test_other_options_are_another_session(shared: Path) -> None:
    path = shared / "onnx" / "decoder_int8.onnx"
    one, other = Lease(path, OPTIONS), Lease(path, SessionOptions(threads=2))
    assert one() is not other()


def test_a_file_that_was_replaced_is_another_graph(shared: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shared / "onnx", tmp_path / "onnx"))
    path = folder / "decoder_int8.onnx"
    old = Lease(path, OPTIONS)
    session = old()
    shutil.copyfile(path, tmp_path / "new")
    (tmp_path / "new").replace(path)
    assert Lease(path, OPTIONS)() is not session
    assert old() is session


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone\.onnx: cannot be read"):
        Lease(tmp_path / "gone.onnx", OPTIONS)()


def test_threads_load_a_graph_once(shared: Path, thread_results: Callable[..., list[object]]) -> None:
    lease = Lease(shared / "onnx" / "decoder_int8.onnx", OPTIONS)
    assert len({id(session) for session in thread_results(lease, 4)}) == 1


@pytest.fixture
def thread_results() -> Callable[..., list[object]]:
    from concurrent.futures import ThreadPoolExecutor

    def run(call: Callable[[], object], count: int) -> list[object]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: call(), range(count)))

    return run
