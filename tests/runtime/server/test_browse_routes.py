"""The routes of looking around, over a real library."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.errors import StoppedError
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.duplicate_search import DuplicateSearch
from qvl_local.runtime.server.service import Service
from starlette.testclient import TestClient


def test_items_come_by_date_a_page_at_a_time(client: TestClient) -> None:
    every = client.get("/api/items", params={"limit": 1000}).json()
    assert every["total"] == len(every["items"]) == 28
    dates = [item["taken_at"] for item in every["items"] if item["taken_at"]]
    assert dates == sorted(dates, reverse=True)
    page = client.get("/api/items", params={"offset": 5, "limit": 3}).json()
    assert page == {"total": 28, "items": every["items"][5:8]}
    oldest = client.get("/api/items", params={"order": "oldest", "limit": 1000}).json()["items"]
    assert [item["taken_at"] for item in oldest if item["taken_at"]] == sorted(dates)
    videos = client.get("/api/items", params={"kind": "video"}).json()
    assert (videos["total"], {item["kind"] for item in videos["items"]}) == (4, {"video"})
    assert all(item["duration_s"] > 0 and item["size"] > 0 for item in videos["items"])


@pytest.mark.parametrize(
    "asked",
    [
        {"order": "random"},
        {"offset": -1},
        {"limit": 10_001},
        {"under": "../etc"},
        {"under": "1.%%%"},
        {"near": "1,2"},
        {"near": "91,0,1"},
        {"after": "soon"},
        {"sort": "newest"},
    ],
)
def test_what_makes_no_sense_is_a_400(client: TestClient, asked: dict[str, Any]) -> None:
    answer = client.get("/api/items", params=asked)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "InputError")


def test_facets_count_what_items_lists(client: TestClient) -> None:
    found = client.get("/api/facets").json()
    assert (found["total"], found["kinds"]) == (28, {"photo": 24, "video": 4})
    assert sum(month["count"] for month in found["months"]) + found["undated"] == 28
    roots = [folder for folder in found["folders"] if folder["is_root"]]
    assert [root["count"] for root in roots] == [28]
    for folder in found["folders"]:
        assert client.get("/api/items", params={"under": folder["id"]}).json()["total"] == folder["count"]
    for camera in found["cameras"]:
        listed = client.get("/api/items", params={"camera": camera["name"]}).json()["total"]
        assert listed >= camera["count"] > 0


def test_places_have_names_and_are_filters(client: TestClient, monkeypatch: Any) -> None:
    found = client.get("/api/facets").json()
    named = [place for place in found["places"] if place["name"]]
    assert found["place_names"]
    assert named
    for place in named:
        assert client.get("/api/items", params={"place": place["name"]}).json()["total"] == place["count"]
        assert client.get(f"/api/media/{place['id']}").json()["place"] == place["name"]
    both = client.get("/api/items", params={"place": [place["name"] for place in named[:2]]}).json()["total"]
    assert both == sum(place["count"] for place in named[:2])

    monkeypatch.setattr("qvl_local.runtime.library.place_names.find_spec", lambda name: None)
    bare = client.get("/api/facets").json()
    assert not bare["place_names"]
    assert {place["name"] for place in bare["places"]} == {None}
    assert sum(place["count"] for place in bare["places"]) == sum(place["count"] for place in found["places"])
    assert client.get(f"/api/media/{named[0]['id']}").json()["place"] is None
    refused = client.get("/api/items", params={"place": "Lisbon"})
    assert refused.status_code == 501
    assert "qvl-local[places]" in refused.json()["error"]["message"]


def test_an_item_tells_everything(client: TestClient, shelf: Any) -> None:
    (video, *_) = client.get("/api/items", params={"kind": "video"}).json()["items"]
    told = client.get(f"/api/media/{video['id']}").json()
    assert told["path"].startswith(str(shelf.pictures))
    assert told["path"] == f"{told['folder']}/{told['name']}"
    assert {name: told[name] for name in video} == video
    assert told["segments"][0]["start_s"] == 0
    assert told["segments"][-1]["end_s"] == pytest.approx(told["duration_s"], abs=0.5)
    assert client.get("/api/media/999999").status_code == 404
    assert client.get("/api/media/x").status_code == 400


def test_moments_fit_as_well_as_the_search_says(client: TestClient) -> None:
    query = {"q": "a dog at night"}
    hit = client.get("/api/search", params={**query, "kind": "video", "rerank": False}).json()["results"][0]
    moments = client.get(f"/api/moments/{hit['id']}", params=query).json()["moments"]
    assert [moment["start_s"] for moment in moments] == sorted(moment["start_s"] for moment in moments)
    best = max(moments, key=lambda moment: float(moment["score"]))
    assert (best["start_s"], best["end_s"]) == (hit["start_s"], hit["end_s"])
    assert best["score"] == pytest.approx(hit["embedding_score"], abs=1e-3)
    itself = client.get(f"/api/moments/{hit['id']}", params={"like": hit["id"]}).json()["moments"]
    assert max(moment["score"] for moment in itself) > 0.7
    assert client.get(f"/api/moments/{hit['id']}").status_code == 400
    assert client.get("/api/moments/999999", params=query).status_code == 404


def test_duplicates_are_told_when_they_are_known(
    settings: Any, shelf_copy: Any, tmp_path: Path, tiny_bundle: str
) -> None:
    album = tmp_path / "twice"
    album.mkdir()
    photo = next(file for file in shelf_copy.pictures.rglob("*.jpg") if file != shelf_copy.broken)
    for name in ("a.jpg", "b.jpg"):
        shutil.copyfile(photo, album / name)
    with Library.open(shelf_copy.library, create=False) as library:
        library.index([album])
    own = replace(settings, library=shelf_copy.library)
    with (
        Service.open(own) as service,
        TestClient(build_app(own, service), base_url="http://localhost") as client,
    ):
        answer = client.get("/api/duplicates").json()
        while answer["state"] == "working":
            assert answer["groups"] == []
            answer = client.get("/api/duplicates").json()
        (group,) = (group for group in answer["groups"] if group["kind"] == "same")
        assert sorted(item["name"] for item in group["items"]) == sorted(["a.jpg", "b.jpg", photo.name])
        assert group["distance"] == 0
        assert client.get("/api/duplicates", params={"kind": "same"}).json()["total"] >= 1
        assert client.get("/api/duplicates", params={"limit": 0}).json()["groups"] == []
        assert client.get("/api/duplicates", params={"limit": 5000}).status_code == 400


def test_a_search_for_duplicates_ends_with_the_server(settings: Any, shelf_copy: Any) -> None:
    own = replace(settings, library=shelf_copy.library)
    with Service.open(own) as service:
        search = DuplicateSearch(service)
        service.stop()
        with pytest.raises(StoppedError):
            search.ask(wait_s=60)
