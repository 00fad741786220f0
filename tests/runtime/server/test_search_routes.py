"""Searching over HTTP: words, pictures, likeness, filters, two steps on one stream, cancelling, refusals."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from qvl_local.runtime.errors import ModelMemoryError, StoppedError
from qvl_local.runtime.library.no_match import NO_MATCH_BELOW
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.limits import Gate
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from starlette.testclient import TestClient

FIELDS = {
    *("id", "rank", "path", "name", "kind", "score", "embedding_score", "reranker_score", "start_s", "end_s"),
    *("taken_at", "width", "height", "duration_s", "companions"),
}


def search(client: TestClient, **asked: Any) -> dict[str, Any]:
    answer = client.get("/api/search", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(found: dict[str, Any]) -> list[int]:
    return [hit["id"] for hit in found["results"]]


def events(client: TestClient, **asked: Any) -> Iterator[tuple[str, Any]]:
    with client.stream("GET", "/api/events", params=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    for block in text.split("\n\n"):
        if block:
            name, data = block.split("\n")
            yield name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def refusal(client: TestClient, status: int, **asked: Any) -> str:
    answer = client.get("/api/search", params=asked)
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def test_a_search_by_words_has_every_field_and_is_in_order(client: TestClient) -> None:
    found = search(client, q="a dog at night", limit=7)
    assert found["query"] == "a dog at night"
    assert found["reranked"] is True
    assert set(found["timings_ms"]) == {"load", "embed", "search", "rerank"}
    hits = found["results"]
    assert all(set(hit) == FIELDS for hit in hits)
    assert [hit["rank"] for hit in hits] == list(range(1, 8))
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= hit["reranker_score"] <= 1 for hit in hits)


def test_query_is_another_name_of_q_and_the_body_takes_the_same(client: TestClient) -> None:
    by_q = search(client, q="two cats", rerank="false")
    assert ids(by_q) == ids(search(client, query="two cats", rerank="false"))
    answer = client.post("/api/search", json={"q": "two cats", "rerank": False})
    assert ids(answer.json()) == ids(by_q)
    assert by_q["reranked"] is False
    assert all(hit["reranker_score"] is None for hit in by_q["results"])


def test_the_order_is_that_of_the_library(client: TestClient, service: Service) -> None:
    expected = [hit.media_id for hit in service.library.search("a boat", limit=9).hits]
    assert ids(search(client, q="a boat", limit=9)) == expected


def test_a_video_is_found_with_its_moment_and_its_length(client: TestClient) -> None:
    found = search(client, q="a dog", kind="video", rerank="false")
    assert found["results"]
    for hit in found["results"]:
        assert hit["kind"] == "video"
        assert 0 <= hit["start_s"] < hit["end_s"] <= hit["duration_s"] + 0.2


def test_filters_choose_among_what(client: TestClient, service: Service) -> None:
    folder = str(service.library.folders()[0].id)
    everything = search(client, q="a dog", limit=100, rerank="false")["results"]
    assert len(search(client, q="a dog", limit=100, rerank="false", under=folder)["results"]) == len(
        everything
    )
    years = sorted({hit["taken_at"][:4] for hit in everything})
    of_one = search(
        client, q="a dog", limit=100, rerank="false", after=years[0], before=str(int(years[0]) + 1)
    )
    assert {hit["taken_at"][:4] for hit in of_one["results"]} == {years[0]}
    assert 0 < len(of_one["results"]) < len(everything) or len(years) == 1
    assert search(client, q="a dog", rerank="false", camera="no such camera")["results"] == []
    assert search(client, q="a dog", rerank="false", under="77")["results"] == []
    around = search(client, q="a dog", limit=100, rerank="false", near="0,0,20000")["results"]
    assert len(around) == len(everything)
    assert search(client, q="a dog", rerank="false", near="89,0,1")["results"] == []


def test_several_cameras_mean_any_of_them(client: TestClient, service: Service) -> None:
    cameras = sorted(
        {str(item.camera) for i in range(1, 29) if (item := service.library.media(i)) and item.camera}
    )
    assert len(cameras) > 1
    counts = [
        len(search(client, q="x", limit=100, rerank="false", camera=name)["results"]) for name in cameras[:2]
    ]
    both = search(client, q="x", limit=100, rerank="false", camera=cameras[:2])
    assert len(both["results"]) == sum(counts)


def test_like_an_item_leaves_it_out_and_needs_no_reranker(client: TestClient) -> None:
    wanted = ids(search(client, q="a dog", rerank="false"))[0]
    found = search(client, like=wanted, limit=5)
    assert wanted not in ids(found)
    assert (found["reranked"], found["query"], len(found["results"])) == (False, None, 5)
    assert ids(client.get(f"/api/similar/{wanted}", params={"limit": 5}).json()) == ids(found)


def test_words_are_added_to_what_an_item_is_like(client: TestClient) -> None:
    wanted = ids(search(client, q="a dog", rerank="false", kind="photo"))[0]
    plain, at_night = (
        search(client, like=wanted, limit=27, rerank="false", **more) for more in ({}, {"q": "at night"})
    )
    assert at_night["query"] == "at night"
    assert wanted not in ids(at_night)
    assert ids(at_night) != ids(plain)
    video = ids(search(client, q="a dog", rerank="false", kind="video"))[0]
    assert video not in ids(search(client, like=video, q="at night", limit=3))


def test_two_steps_come_on_one_stream(client: TestClient) -> None:
    said = list(events(client, q="a red car", limit=6))
    assert [name for name, _ in said] == ["found", "reranked", "done"]
    assert ids(said[0][1]) == ids(search(client, q="a red car", limit=6, rerank="false"))
    assert ids(said[1][1]) == ids(search(client, q="a red car", limit=6))
    assert (said[0][1]["reranked"], said[1][1]["reranked"]) == (False, True)


def test_words_too_long_for_an_address_come_in_a_body(client: TestClient) -> None:
    words = "海" * 1_900
    assert client.get("/api/events", params={"q": words}).status_code == 414
    assert "event: found" in client.post("/api/events", json={"q": words, "rerank": False}).text
    answer = client.post("/api/events", json={"q": "a dog", "limit": 6})
    assert answer.headers["content-type"].startswith("text/event-stream")
    named = [line.removeprefix("event: ") for line in answer.text.split("\n") if line.startswith("event: ")]
    assert named == ["found", "reranked", "done"]
    whole = client.post("/api/search", json={"q": "a dog", "limit": 6})
    steps = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    assert ids(json.loads(steps[1])) == ids(whole.json())
    video = ids(search(client, q="a dog", kind="video", rerank="false"))[0]
    in_body = client.post(f"/api/moments/{video}", json={"q": "a dog"}).json()
    assert in_body == client.get(f"/api/moments/{video}", params={"q": "a dog"}).json()
    assert client.post("/api/events", json={}).status_code == 400


def test_a_stream_without_a_second_step_is_done_after_the_first(client: TestClient) -> None:
    assert [name for name, _ in events(client, q="a car", rerank="false")] == ["found", "done"]


def test_a_picture_is_held_and_searched_by(client: TestClient, service: Service) -> None:
    target = ids(search(client, q="a dog", kind="photo", rerank="false"))[0]
    item = service.library.media(target)
    assert item is not None
    with open(item.path, "rb") as file:  # noqa: PTH123
        content = file.read()
    raw = client.post("/api/picture", content=content, headers={"content-type": "image/jpeg"})
    form = client.post("/api/picture", files={"file": ("any.jpg", content, "image/jpeg")})
    assert (raw.status_code, form.status_code) == (200, 200), raw.text + form.text
    assert raw.json()["picture"] != form.json()["picture"]
    assert ids(search(client, picture=raw.json()["picture"], rerank="false"))[0] == target
    encoded = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    answer = client.post("/api/search", json={"image": encoded, "rerank": False})
    assert ids(answer.json())[0] == target
    both = search(client, picture=raw.json()["picture"], q="at night")
    assert (both["reranked"], both["query"]) == (True, "at night")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture at all",
        b"\xff\xd8\xff\xe0 not a picture",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_picture_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/api/picture", content=content)
    assert answer.status_code in (400, 422), answer.text
    assert "/" not in answer.json()["error"]["message"], "no path of ours"


def test_a_decompression_bomb_is_refused(client: TestClient) -> None:
    buffer = BytesIO()
    Image.fromarray(np.zeros((16_000, 16_000), np.uint8)).save(buffer, "PNG")
    answer = client.post("/api/picture", content=buffer.getvalue())
    assert answer.status_code == 422
    assert "16000x16000 pixels are more than the limit" in answer.json()["error"]["message"]


def test_refusals_say_what_is_wrong_and_not_what_was_asked(client: TestClient) -> None:
    assert "empty" in refusal(client, 400)
    assert "no item 99999" in refusal(client, 404, like=99_999)
    assert "not held" in refusal(client, 404, picture="nothing")
    assert "no folder" in refusal(client, 400, q="x", under="../..")
    assert "not a date" in refusal(client, 400, q="x", after="yesterday")
    assert "near" in refusal(client, 400, q="x", near="home")
    assert refusal(client, 400, q="x", limit=10_001).startswith("limit:")
    assert refusal(client, 400, q="secret words", limt=3).startswith("limt:")
    assert "secret" not in refusal(client, 400, q="secret words", kind="film")


def test_ten_thousand_hits_may_be_asked_for(client: TestClient) -> None:
    assert len(search(client, q="x", limit=10_000, rerank="false")["results"]) == 28


def test_what_a_client_writes_is_never_sql(client: TestClient, service: Service) -> None:
    before = service.library.status().counts
    for text in ("x' OR 1=1 --", '"; DROP TABLE media; --', "%", "*", "x\x00y", "NEAR(a b)", "\u202e"):
        everything = {"q": text, "rerank": "false"}
        assert client.get("/api/search", params=everything).status_code == 200
        assert search(client, **everything, camera=text)["results"] == []
        assert client.get("/api/search", params=everything | {"under": text}).status_code == 400
        assert client.get("/api/search", params=everything | {"after": text}).status_code == 400
        assert client.get("/api/search", params={"like": text}).status_code == 400
        assert client.get("/api/search", params={"picture": text}).status_code == 404
    half = client.post(
        "/api/search", content=b'{"q": "\\ud83d dog"}', headers={"content-type": "application/json"}
    )
    assert half.status_code in (200, 400), half.text
    assert service.library.status().counts == before


def test_a_search_whose_client_goes_ends_before_its_next_step(server: Any) -> None:
    gate, began, free = Gate("closer looks", running=1, waiting=4), threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        assert free.wait(60)

    def looks() -> int:
        rendered: str = server.service.metrics.render()
        line = re.search(r'qvl_search_seconds_count\{step="rerank"\} (\d+)', rendered)
        return int(line[1]) if line else 0

    kept, server.service.reranks = server.service.reranks, gate
    try:
        before = looks()
        gate.submit(hold)
        assert began.wait(60)
        with httpx.stream(
            "GET", f"{server.url}api/events", params={"q": "a dog"}, timeout=60, trust_env=False
        ) as answer:
            assert next(answer.iter_lines()) == "event: found"
        for _ in range(600):
            if gate.taken == 1:
                break
            time.sleep(0.05)
        assert gate.taken == 1, "the second step waited, and does not any more"
    finally:
        free.set()
        gate.close()
        server.service.reranks = kept
    assert looks() == before


def test_a_closer_look_ends_in_the_middle_when_its_client_goes(server: Any, monkeypatch: Any) -> None:
    library = server.service.library
    rerank, begun, outcomes = library.rerank, threading.Event(), []

    def watched(found: Any, *, stop: Any) -> Any:
        begun.set()
        for _ in range(1200):
            if stop.is_set:
                break
            time.sleep(0.05)
        try:
            return rerank(found, stop=stop)
        except StoppedError as error:
            outcomes.append(error)
            raise

    monkeypatch.setattr(library, "rerank", watched)
    with httpx.stream(
        "GET", f"{server.url}api/events", params={"q": "a dog"}, timeout=90, trust_env=False
    ) as answer:
        assert next(answer.iter_lines()) == "event: found"
        assert begun.wait(60)
    for _ in range(1200):
        if outcomes and not server.service.reranks.taken:
            break
        time.sleep(0.05)
    assert len(outcomes) == 1
    monkeypatch.undo()
    assert httpx.get(f"{server.url}api/search", params={"q": "a dog"}, timeout=90, trust_env=False).json()[
        "reranked"
    ]


def test_an_empty_library_has_no_hits_and_needs_no_model(tmp_path: Path) -> None:
    settings = ServerSettings(library=tmp_path / "library", model="a-model-that-is-not-there")
    with (
        Service.open(settings) as service,
        TestClient(build_app(settings, service), base_url="http://localhost") as client,
    ):
        found = search(client, q="a dog")
        assert (found["results"], found["reranked"], found["no_good_match"]) == ([], False, False)
        assert [name for name, _ in events(client, q="a dog")] == ["found", "done"]


def test_a_second_step_that_fails_is_said(client: TestClient, service: Service, monkeypatch: Any) -> None:
    def fail(*_: Any, stop: Any) -> None:
        raise ModelMemoryError("There is not enough memory.")

    monkeypatch.setattr(service.library, "rerank", fail)
    said = list(events(client, q="a dog"))
    assert [name for name, _ in said] == ["found", "failed", "done"]
    assert said[1][1] == {"error": {"type": "ModelMemoryError", "message": "There is not enough memory."}}
    assert client.get("/api/search", params={"q": "a dog"}).headers["retry-after"] == "1"


def test_no_good_match_is_what_the_reranker_says(
    client: TestClient, service: Service, monkeypatch: Any
) -> None:
    rerank = service.library.rerank

    def judged(probability: float) -> Any:
        def judge(found: Any, *, stop: Any) -> Any:
            result = rerank(found)
            hits = tuple(replace(hit, reranker_score=probability) for hit in result.hits)
            return replace(result, hits=hits)

        return judge

    for probability, is_none in ((NO_MATCH_BELOW - 0.01, True), (NO_MATCH_BELOW, False)):
        monkeypatch.setattr(service.library, "rerank", judged(probability))
        assert search(client, q="a dog")["no_good_match"] is is_none
        assert search(client, q="a dog", rerank="false")["no_good_match"] is False
