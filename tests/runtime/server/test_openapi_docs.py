"""docs/api.md: every route has an example, and the examples do what the page says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from qvl_local.runtime.server import file_manager
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.openai_routes import EmbeddingRequest
from qvl_local.runtime.server.rerank_routes import RerankRequest
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import DEFAULT_PORT, ServerSettings
from starlette.testclient import TestClient

URL = f"http://127.0.0.1:{DEFAULT_PORT}"
PAGE = Path(__file__).parents[3] / "docs" / "api.md"
# What an example says that is the reader's to fill in, or not the same on every machine.
OPEN_ENDED = ("/api/places/PLACE", "/api/folders", "/api/folders/7")


@dataclass(frozen=True)
class Example:
    method: str
    address: str
    headers: dict[str, str]
    body: str | None

    @property
    def path(self) -> str:
        return urlsplit(self.address).path


# The ids of a photo and of a video on the page.
PHOTO, VIDEO = "1201", "1203"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def examples() -> Iterator[Example]:
    for block in blocks("sh"):
        for command in re.split(r"^(?=curl )", block, flags=re.MULTILINE):
            if command.startswith("curl "):
                yield parsed(shlex.split(command)[1:])


def parsed(words: list[str]) -> Example:
    method, body, headers, address = None, None, {}, ""
    rest = iter(words)
    for word in rest:
        if word in ("-d", "--data-binary"):
            body = next(rest)
        elif word == "-X":
            method = next(rest)
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word in ("-o", "-c"):
            next(rest)
        elif not word.startswith("-"):
            address = word
    return Example(method or ("GET" if body is None else "POST"), address, headers, body)


@pytest.fixture(scope="module")
def app(shelf: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    library = tmp_path_factory.mktemp("documented") / "library"
    shutil.copytree(shelf.library, library)
    settings = ServerSettings(library=library, port=0)
    with Service.open(settings) as service:
        yield build_app(settings, service)


def test_every_route_has_an_example(app: FastAPI) -> None:
    shown = {(one.method, one.path) for one in examples()}
    for path, methods in app.openapi()["paths"].items():
        pattern = re.compile(re.sub(r"\{\w+\}", r"[^?]+", path))
        for method in methods:
            assert any(m == method.upper() and pattern.fullmatch(p) for m, p in shown), f"{method} {path}"


def test_every_example_works(
    app: FastAPI, media: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_manager, "show", lambda path: None)  # opens a window
    dog = media.photo(tmp_path / "dog.jpg").read_bytes()
    count = 0
    with TestClient(app, base_url=URL, client=("127.0.0.1", 1)) as client:
        ids = {
            PHOTO: client.get("/api/items?kind=photo").json()["items"][0]["id"],
            VIDEO: client.get("/api/items?kind=video").json()["items"][0]["id"],
        }
        for one in examples():
            address, content = _with(ids, one.address), _with(ids, one.body or "").encode()
            if content == b"@dog.jpg":
                content = dog
            answer = client.request(one.method, address, headers=one.headers, content=content)
            if one.path in OPEN_ENDED and one.method != "GET":
                assert answer.status_code in (202, 400, 404), (one, answer.text)
            elif one.path in OPEN_ENDED[:1]:
                assert answer.status_code == 404, (one, answer.text)
            else:
                assert answer.status_code in (200, 204), (one, answer.text)
            count += 1
    assert count > 25


def test_the_answers_shown_have_the_fields_of_real_ones(app: FastAPI) -> None:
    shown = [json.loads(block) for block in blocks("json")]
    with TestClient(app, base_url=URL, client=("127.0.0.1", 1)) as client:
        embedded = client.post("/v1/embeddings", json={"input": ["a"]}).json()
        reranked = client.post(
            "/v1/rerank", json={"query": "a", "documents": ["b"], "return_documents": True}
        ).json()
        refused = client.post("/v1/embeddings", json={"input": [""]}).json()
    for given, real in zip(shown, (embedded, reranked, refused), strict=True):
        assert _fields(given) == _fields(real)


def test_every_field_is_in_the_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for kind in (EmbeddingRequest, RerankRequest):
        for name in kind.model_fields:
            assert f"`{name}" in page, name


def _with(ids: dict[str, int], text: str) -> str:
    for shown, real in ids.items():
        text = re.sub(rf"\b{shown}\b", str(real), text)
    return text


def _fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _fields(one) for name, one in value.items()}
    if isinstance(value, list):
        return _fields(value[0]) if value and isinstance(value[0], dict) else "list"
    return None
