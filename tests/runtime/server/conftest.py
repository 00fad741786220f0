"""What the server's tests share: a small real library indexed with qvl-tiny, clients, a server on a port."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.serve import bind
from qvl_local.runtime.server.serve import serving as serve_in_thread
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from qvl_local.runtime.world.demo import make_sample_library
from starlette.testclient import TestClient

PHOTOS, CLIPS = 24, 4


@dataclass(frozen=True, slots=True)
class Shelf:
    """An indexed library, the folder of its pictures, and one file in it that is none."""

    library: Path
    pictures: Path
    broken: Path


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers on a port of this machine."""

    url: str
    host: str
    port: int
    service: Service


Serving = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str) -> Shelf:
    """Never written to by a test: `shelf_copy` is for those that write."""
    root = tmp_path_factory.mktemp("served")
    pictures = root / "pictures"
    make_sample_library(pictures, photos=PHOTOS, clips=CLIPS, seed=3)
    broken = pictures / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    settings = IndexSettings(workers=WorkerSettings(2))
    with Library.open(root / "library", model=tiny_bundle, settings=settings) as library:
        report = library.index([pictures])
    assert (report.items, len(report.failed)) == (PHOTOS + CLIPS, 1)
    return Shelf(root / "library", pictures, broken)


@pytest.fixture
def shelf_copy(shelf: Shelf, tmp_path: Path) -> Shelf:
    """A library of the test's own over the same pictures, which must stay as they are."""
    shutil.copytree(shelf.library, tmp_path / "library")
    return replace(shelf, library=tmp_path / "library")


@pytest.fixture(scope="session")
def settings(shelf: Shelf) -> ServerSettings:
    return ServerSettings(library=shelf.library, port=0)


@pytest.fixture(scope="session")
def service(settings: ServerSettings) -> Iterator[Service]:
    """The shared service; models stay loaded from the first test that needs them on."""
    with Service.open(settings) as service:
        yield service


@pytest.fixture(scope="session")
def client(settings: ServerSettings, service: Service) -> Iterator[TestClient]:
    """The application without a socket, as a program on this machine would ask it."""
    with TestClient(build_app(settings, service), base_url="http://localhost:8377") as client:
        yield client


@contextmanager
def _serving(settings: ServerSettings) -> Iterator[Running]:
    with ExitStack() as stack:
        service = stack.enter_context(Service.open(settings))
        listener = stack.enter_context(bind(settings))
        host, port = listener.getsockname()[:2]
        url = stack.enter_context(serve_in_thread(settings, service, listener))
        yield Running(url, host, port, service)


@pytest.fixture(scope="session")
def serving() -> Serving:
    """Runs a real server for a block: `with serving(settings) as running`."""
    return _serving


@pytest.fixture(scope="session")
def server(settings: ServerSettings) -> Iterator[Running]:
    """A real server over the shared library."""
    with _serving(settings) as running:
        yield running
