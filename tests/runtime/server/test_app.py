"""The application as a whole: the main routes answer, and nothing else does."""

from __future__ import annotations

import http.client
import json
from typing import Any

from starlette.testclient import TestClient


def test_a_search_finds_by_words(client: TestClient) -> None:
    answer = client.get("/api/search", params={"q": "a dog at night", "limit": 5})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (len(found["results"]), found["reranked"]) == (5, True)
    assert client.get(f"/thumb/{found['results'][0]['id']}").headers["content-type"] == "image/jpeg"


def test_a_real_server_answers_on_its_port(server: Any) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["status"]) == (200, "ok")
    connection.close()


def test_what_is_not_there_is_a_404_of_the_usual_form(client: TestClient) -> None:
    answer = client.get("/nothing")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFoundError")
