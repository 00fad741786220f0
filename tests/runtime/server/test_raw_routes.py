"""Raw files over HTTP: the original as it is, and a JPEG for browsers, which show none."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime import Library
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from starlette.testclient import TestClient

RED = (200, 30, 30)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str, media: Any) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("raw")
    media.raw(folder / "pictures" / "a.nef", RED, size=(1280, 960))
    with Library.open(folder / "library", model=tiny_bundle) as library:
        assert library.index([folder / "pictures"]).failed == ()
    settings = ServerSettings(library=folder / "library")
    with (
        Service.open(settings) as service,
        TestClient(build_app(settings, service), base_url="http://localhost") as client,
    ):
        yield client


def test_a_browser_is_shown_the_preview(client: TestClient) -> None:
    answer = client.get("/file/1", params={"as": "jpeg"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("JPEG", (1200, 900))
        assert np.allclose(np.asarray(image).reshape(-1, 3).mean(axis=0), RED, atol=8)
    with Image.open(BytesIO(client.get("/thumb/1", params={"w": 640}).content)) as image:
        assert image.size == (640, 480)


def test_the_original_is_given_out_as_a_raw_file(client: TestClient) -> None:
    answer = client.get("/file/1")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/x-dcraw")
    assert answer.content[:4] == b"II*\0"
    assert answer.headers["x-content-type-options"] == "nosniff"
    item = client.get("/api/media/1").json()
    assert (item["kind"], item["width"], item["height"]) == ("photo", 1280, 960)
