"""One rule for all routes: what is unknown is 404, what makes no sense 400, what is no JSON 415."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from starlette.testclient import TestClient

UNKNOWN = 2**40


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str) -> Iterator[TestClient]:
    """A library that holds nothing yet."""
    folder = tmp_path_factory.mktemp("empty")
    settings = ServerSettings(library=folder / "library", model=tiny_bundle, port=0)
    with Service.open(settings) as service:
        yield _client(settings, service)


def _client(settings: ServerSettings, service: Service) -> TestClient:
    return TestClient(build_app(settings, service), base_url="http://localhost:8377", client=("127.0.0.1", 5))


@pytest.fixture(params=["full", "empty"])
def anybody(request: pytest.FixtureRequest, service: Service, empty: TestClient) -> TestClient:
    return empty if request.param == "empty" else _client(service.settings, service)


def by_id(client: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    """Every request that names an item or a folder by its id: method, address with `{}`, body with `{}`."""
    found = []
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path" and parameter["schema"].get("type") == "integer":
                    address = path.replace("{" + parameter["name"] + "}", "{}")
                    found.append((method.upper(), address, {"q": "a"} if method == "post" else {}))
    found += [("GET", "/api/search?like={}", {}), ("GET", "/api/events?like={}", {})]
    found += [("POST", address, {"like": "{}"}) for address in ("/api/search", "/api/events")]
    found += [("POST", "/api/zip", {"ids": ["{}"]}), ("POST", "/api/open", {"id": "{}"})]
    return found


def ask(client: TestClient, method: str, address: str, body: dict[str, Any], media_id: Any) -> Any:
    filled = {
        name: [media_id] if isinstance(value, list) else media_id if value == "{}" else value
        for name, value in body.items()
    }
    return client.request(method, address.format(media_id), json=filled or None)


def test_what_is_unknown_is_404_everywhere(anybody: TestClient) -> None:
    requests = by_id(anybody)
    assert {address for _, address, _ in requests} >= {"/api/similar/{}", "/api/moments/{}", "/file/{}"}
    for method, address, body in requests:
        answer = ask(anybody, method, address, body, UNKNOWN)
        assert (answer.status_code, method, address) == (404, method, address)
        assert answer.json()["error"]["type"] == "NotFoundError", address


@pytest.mark.parametrize("wrong", ["abc", -1, 2**63])
def test_what_is_no_id_is_400_everywhere(anybody: TestClient, wrong: Any) -> None:
    for method, address, body in by_id(anybody):
        answer = ask(anybody, method, address, body, wrong)
        assert (answer.status_code, method, address) == (400, method, address)
        assert answer.json()["error"]["type"] == "InputError", address


def test_an_item_that_could_not_be_read_is_like_nothing(service: Service) -> None:
    client = _client(service.settings, service)
    (failure,) = client.get("/api/failures").json()["failures"]
    for address in (f"/api/similar/{failure['id']}", f"/api/search?like={failure['id']}"):
        answer = client.get(address)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFoundError")
        assert failure["error"] in answer.json()["error"]["message"]


def test_nothing_to_look_for_and_senseless_filters_are_400_in_an_empty_library_too(
    anybody: TestClient,
) -> None:
    for address in ("/api/search", "/api/search?q=+", "/api/search?q=a&under=abc", "/api/search?q=a&after=x"):
        answer = anybody.get(address)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "InputError"), address
    assert anybody.get("/api/search?q=a&limit=1&rerank=false").status_code == 200


def test_a_body_of_another_type_is_415_and_one_that_is_broken_400(anybody: TestClient) -> None:
    for address in ("/api/search", "/api/zip", "/api/folders", "/v1/embeddings", "/v1/rerank"):
        for kind in ("application/x-www-form-urlencoded", "text/plain"):
            answer = anybody.post(address, content=b"q=a", headers={"content-type": kind})
            assert answer.status_code == 415, address
            assert "Content-Type: application/json" in answer.json()["error"]["message"]
        broken = anybody.post(address, content=b"{", headers={"content-type": "application/json"})
        assert (broken.status_code, broken.json()["error"]["message"]) == (
            400,
            "The request's body is not JSON.",
        )


def test_another_method_hears_of_all_that_the_address_takes(anybody: TestClient) -> None:
    for address, allowed in (
        ("/api/search", "GET, POST"),
        ("/api/folders", "GET, POST"),
        ("/thumb/1", "GET, HEAD"),
        ("/api/zip", "POST"),
    ):
        answer = anybody.put(address)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.json()["error"]["type"] == "MethodError"


def test_an_address_is_the_one_that_is_described_or_none(anybody: TestClient) -> None:
    for address in ("/api/search/", "/v1/models/", "/nothing"):
        assert anybody.get(address, follow_redirects=False).status_code == 404
