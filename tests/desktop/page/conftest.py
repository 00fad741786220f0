"""The page in a real browser, on a real server, over a small real library."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from qvl_local.runtime import Library
from qvl_local.runtime.server.serve import bind
from qvl_local.runtime.server.serve import serving as serve_in_thread
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from qvl_local.runtime.world.demo import SampleItem, make_sample_library

sys.path.insert(0, str(Path(__file__).parents[3]))
from benchmarks.chromium import CHROMIUM, FLAGS

PAGE = Path(__file__).parents[3] / "desktop" / "page"
PATIENCE_MS = 60_000
"""No test is timed: this only ends one that would never end."""

BROKEN = "broken holiday.jpg"


@dataclass(frozen=True, slots=True)
class Album:
    """Pictures on disk. `more`: a folder that no library knows yet. `copies`: pairs that are nearly equal."""

    pictures: Path
    more: Path
    items: tuple[SampleItem, ...]
    copies: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers, and its parts."""

    url: str
    service: Service

    def get(self, path: str, **params: Any) -> Any:
        """What the server says to a program."""
        answer = httpx.get(self.url + path, params=params, timeout=60)
        answer.raise_for_status()
        return answer.json()


@dataclass(slots=True)
class Watched:
    """A page, and all that went wrong in it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    root = tmp_path_factory.mktemp("album")
    pictures, more = root / "Pictures", root / "More pictures"
    items = make_sample_library(pictures, photos=60, clips=12, seed=1)
    photos = [item.path for item in items if item.path.suffix.lower() == ".jpg"]
    (pictures / "Copies").mkdir()
    copies = []
    for path in photos[:2]:
        small = pictures / "Copies" / f"{path.stem} small.jpg"
        with Image.open(path) as picture:
            exif = picture.getexif()
            picture.resize((picture.width * 3 // 4, picture.height * 3 // 4)).save(
                small, quality=85, exif=exif
            )
        copies.append((path.name, small.name))
    (pictures / BROKEN).write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    more.mkdir()
    for i, path in enumerate(photos[5:10]):
        with Image.open(path) as picture:
            picture.crop((0, picture.height // (2 + i), picture.width, picture.height)).save(
                more / f"wide {i}.jpg"
            )
    return Album(pictures, more, tuple(items), tuple(copies))


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory, album: Album) -> Path:
    """A library of the album's pictures; `indexed_copy` is for tests that change it."""
    folder = tmp_path_factory.mktemp("shelf") / "library"
    with Library.open(folder, model="tiny") as library:
        report = library.index([album.pictures])
    assert len(report.failed) == 1
    return folder


@pytest.fixture
def indexed_copy(indexed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(indexed, tmp_path / "library")


Serving = Callable[..., AbstractContextManager[Served]]


@contextmanager
def _serving(library: Path, *, port: int = 0, token: str | None = None) -> Iterator[Served]:
    settings = ServerSettings(library=library, model="tiny", page=PAGE, port=port, token=token)
    with ExitStack() as stack:
        service = stack.enter_context(Service.open(settings))
        listener = stack.enter_context(bind(settings))
        service.start()
        url = stack.enter_context(serve_in_thread(settings, service, listener))
        yield Served(url, service)


@pytest.fixture(scope="session")
def serving() -> Serving:
    """Runs a server for a block: `with serving(library) as served`."""
    return _serving


@pytest.fixture(scope="session")
def served(indexed: Path) -> Iterator[Served]:
    """One server for all tests that change nothing."""
    with _serving(indexed) as served:
        yield served


@pytest.fixture(scope="session")
def moment(served: Served) -> tuple[str, dict[str, Any]]:
    """A query, and its hit in a video that does not begin where the video does."""
    for words in (
        "a cat",
        "a dog",
        "snow",
        "at night",
        "a train",
        "balloons",
        "a city",
        "a forest",
        "a room",
    ):
        for hit in served.get("api/search", q=words, kind="video", limit=200)["results"]:
            if hit["start_s"] > 1:
                return words, hit
    raise AssertionError("no video was found at a later moment")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("neither Chromium nor Chrome is installed")
    # Not for the whole session: Playwright's loop would be in the way of tests that run their own.
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


Visit = Callable[..., AbstractContextManager[Watched]]


@contextmanager
def _visit(
    browser: Browser, url: str, fragment: str = "", *, expected: tuple[str, ...] = (), **options: Any
) -> Iterator[Watched]:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(PATIENCE_MS)
    watched = Watched(context.new_page(), expected=expected)

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(
            word in message.text for word in watched.expected
        ):
            watched.problems.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((url, "blob:" + url)):
            watched.elsewhere.append(request.url)

    watched.page.on("console", said)
    watched.page.on("pageerror", lambda error: watched.problems.append(str(error)))
    context.on("request", asked)
    try:
        watched.page.goto(url + fragment)
        yield watched
    finally:
        context.close()
    # Violations of the Content-Security-Policy and of Trusted Types are told on the console, too.
    assert watched.problems == []
    assert watched.elsewhere == []


@pytest.fixture
def visit(browser: Browser, served: Served) -> Visit:
    """Opens the page for a block, and afterwards holds it to what no page may do.

    `with visit("#q=dogs") as watched`; `url`: of another server; `expected`: words of what may be said on the
    console; further options as for a Playwright context.
    """

    def visiting(
        fragment: str = "", *, url: str = served.url, **options: Any
    ) -> AbstractContextManager[Watched]:
        return _visit(browser, url, fragment, **options)

    return visiting


@pytest.fixture
def page(visit: Visit) -> Iterator[Page]:
    """The page of the shared server, as somebody finds it who has just opened it."""
    with visit() as watched:
        watched.page.locator(".tile").first.wait_for()
        yield watched.page
