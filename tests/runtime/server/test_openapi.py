"""The description of the routes: that it is whole, and that the routes keep to it whatever they are sent."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from jsonschema import Draft202012Validator
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.server import file_manager
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.events import Broker
from qvl_local.runtime.server.openapi import DescribedApp
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.testclient import TestClient

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
OURS = {"search", "library", "files", "programs", "system"}


@pytest.fixture(scope="module")
def app(shelf: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The application over a library of its own: some routes change it. Nothing is indexed in it.

    Of the shelf it has a few items only, since the reranker reads all that a search finds.
    """
    library = tmp_path_factory.mktemp("described") / "library"
    shutil.copytree(shelf.library, library)
    settings = ServerSettings(library=library, port=0)
    with Service.open(settings) as service:
        items = service.library.browse().items
        photos, videos = ([item.id for item in items if item.kind == kind] for kind in ("photo", "video"))
        with Store.open(library, mode="write") as store:
            store.remove([*photos[2:], *videos[1:]])
        yield build_app(settings, service)


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        answer = client.get("/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every operation by its name, such as `POST /v1/rerank`."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


# The description is whole


def test_every_route_is_there(app: FastAPI, operations: dict[str, dict[str, Any]]) -> None:
    assert isinstance(app, DescribedApp)
    for name in (
        "POST /v1/embeddings",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "POST /v1/rerank",
        "POST /rerank",
        "POST /v2/rerank",
        "GET /api/search",
        "GET /thumb/{media_id}",
        "GET /health",
        "GET /metrics",
    ):
        assert name in operations


def test_every_route_says_what_it_does(operations: dict[str, dict[str, Any]]) -> None:
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    for name, operation in operations.items():
        assert operation["description"].strip(), name
        assert set(operation["tags"]) <= OURS, name
        assert operation["tags"], name
        # FastAPI's own names are those of Python's functions.
        automatic = operation["summary"].casefold().replace(" ", "_")
        assert not operation["operationId"].startswith(automatic), name
        assert 8 < len(operation["summary"]) < 100, name
        assert not operation["summary"].endswith("."), name


def test_every_answer_has_a_schema(operations: dict[str, dict[str, Any]]) -> None:
    for name, operation in operations.items():
        good = {status: one for status, one in operation["responses"].items() if status.startswith("2")}
        assert good, name
        for status, response in good.items():
            if status == "204":
                assert "content" not in response, name
                continue
            assert response["content"], name
            for kind, content in response["content"].items():
                assert content.get("schema"), f"{name}: {status} {kind}"


def test_every_failure_is_described(operations: dict[str, dict[str, Any]]) -> None:
    for name, operation in operations.items():
        path = name.partition(" ")[2]
        form = "Program" if path.startswith(("/v1/", "/rerank", "/v2/")) else ""
        assert operation["responses"]["400"] == {"$ref": f"#/components/responses/{form}BadRequest"}
        assert operation["responses"]["503"] == {"$ref": f"#/components/responses/{form}Unavailable"}
        if path not in ("/health", "/api/session"):
            assert operation["responses"]["401"] == {"$ref": f"#/components/responses/{form}Unauthorized"}
        assert ("404" in operation["responses"]) >= ("{" in path), name


def test_references_lead_somewhere_and_schemas_are_schemas(document: dict[str, Any]) -> None:
    for reference in _references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert "$defs" not in schema, name
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_examples_are_what_the_schemas_say(document: dict[str, Any], app: FastAPI) -> None:
    checked = 0
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        for path, methods in document["paths"].items():
            content = methods.get("post", {}).get("requestBody", {}).get("content", {})
            for example in content.get("application/json", {}).get("examples", {}).values():
                schema = content["application/json"]["schema"]
                Draft202012Validator({**document, **schema}).validate(example["value"])
                answer = client.post(path, json=example["value"])
                # The pictures of the examples are too short to be pictures.
                assert answer.status_code == 200 or "data:" in str(example["value"]), answer.text
                checked += 1
    assert checked >= 6


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "$ref":
                yield one
            else:
                yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


# The routes keep to it


@pytest.fixture
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own events never end; here they do after the first."""
    stream = Broker.stream

    async def first_only(self: Broker, **options: Any) -> AsyncIterator[bytes]:
        async for piece in stream(self, **options):
            yield piece
            if piece.startswith(b"event:"):
                return

    monkeypatch.setattr(Broker, "stream", first_only)


@pytest.mark.usefixtures("short_streams")
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_sent_the_description_holds(
    app: FastAPI, mode: GenerationMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_manager, "show", lambda path: None)  # opens a window
    loaded = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "localhost"})
    tried = 0
    for found in loaded.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not _takes_anything(operation):
            continue

        @settings(
            max_examples=12 if mode is GenerationMode.POSITIVE else 6,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def call(case: schemathesis.Case) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(headers={"Host": "localhost"}, checks=CHECKS, timeout=60)

        with suppress(Unsatisfiable):  # an operation of which nothing can be wrong
            call()
    assert tried > 100


def _takes_anything(operation: Any) -> bool:
    return any((operation.path_parameters.items, operation.query.items, operation.body.items))


@pytest.mark.usefixtures("short_streams")
def test_events_are_what_is_said_of_them(app: FastAPI, operations: dict[str, dict[str, Any]]) -> None:
    described = operations["GET /api/events"]["responses"]
    assert list(described["200"]["content"]) == ["text/event-stream"]
    assert operations["POST /api/events"]["responses"].keys() >= {"200", "400", "404", "409", "415", "503"}
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        news = client.get("/api/events")
        assert (news.status_code, news.headers["content-type"].partition(";")[0]) == (
            200,
            "text/event-stream",
        )
        assert "event: status\n" in news.text
        for answer in (client.get("/api/events?q=a"), client.post("/api/events", json={"q": "a"})):
            assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
            assert answer.text.startswith("event: found\n")
