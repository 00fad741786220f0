"""A server asked for another model: the old one serves until everything is embedded anew."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.server.service import Query, Service
from qvl_local.runtime.server.settings import ServerSettings

PATIENCE_S = 120.0


@pytest.fixture
def other(tiny_bundle: str, tmp_path: Path) -> str:
    """A bundle that looks at smaller pictures, and so is another model for a library."""
    shutil.copytree(tiny_bundle, tmp_path / "other")
    pixels = tmp_path / "other" / "preprocessor_config.json"
    pixels.write_text(pixels.read_text(encoding="utf-8").replace("16384", "12288"), encoding="utf-8")
    return str(tmp_path / "other")


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: str, media: Any) -> ServerSettings:
    for number in range(4):
        media.photo(tmp_path / "album" / f"{number}.jpg", (50 * number, 90, 60), seed=number)
    with Library.open(tmp_path / "library", model=tiny_bundle) as library:
        library.index([tmp_path / "album"])
    return ServerSettings(library=tmp_path / "library", port=0)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def found(service: Service, text: str) -> int:
    return len(service.find(Query(text=text, rerank=False)).result().hits)


def test_the_old_model_serves_until_the_new_one_can(
    settings: ServerSettings, tiny_bundle: str, other: str
) -> None:
    with Service.open(replace(settings, model=other)) as service:
        assert service.renewal is not None
        service.jobs.pause()
        service.start()
        service.jobs.pause()
        assert found(service, "red") == 4
        assert service.board.status()["model"]["name"] == tiny_bundle
        service.jobs.resume()
        until(service.jobs.is_idle)
        assert service.library.status().model == other
        assert found(service, "blue") == 4
        assert found(service, "red") == 4  # and not by the vector that the old model made of it
        assert service.board.status()["model"]["name"] == other
    with Service.open(replace(settings, model=other)) as service:
        assert service.renewal is None
    with Service.open(settings) as service:
        assert (service.renewal, service.library.model) == (None, other)


def test_a_library_that_another_process_gave_another_model_is_still_searched(
    settings: ServerSettings, other: str
) -> None:
    with Service.open(settings) as service:
        assert found(service, "red") == 4
        with Library.open(settings.library, model=other) as library:
            library.index()
        assert found(service, "red") == 4
        assert service.library.model == other


def test_a_model_that_cannot_be_had_leaves_the_old_one_serving(
    settings: ServerSettings, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with Service.open(replace(settings, model=str(tmp_path / "empty"))) as service:
        service.start()
        until(lambda: service.jobs.state().error is not None)
        assert service.board.status()["model"]["state"] == "failed"
        assert found(service, "red") == 4
