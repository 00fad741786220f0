"""Reranking over HTTP: requests as Jina's, Cohere's and vLLM's clients send them, against `Reranker`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qvl_local.runtime import Reranker
from qvl_local.runtime.server.service import Service
from starlette.testclient import TestClient

ROOT = Path(__file__).resolve().parents[3]
QUERY = "two dogs on a beach"
DOCUMENTS = ["a cat on a sofa", "two dogs on a beach at night", "a boat", "狗 🐕", "a cat on a sofa"]


@pytest.fixture(scope="module")
def reranker(service: Service) -> Reranker:
    return service.reranker()


@pytest.fixture(scope="module")
def photo(media: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.photo(tmp_path_factory.mktemp("judged") / "a.png", (30, 60, 200), size=(300, 170), seed=3)


@pytest.fixture(scope="module")
def film(media: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.video(tmp_path_factory.mktemp("judged") / "a.mp4")


def data_uri(path: Path, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.fixture
def rerank(client: TestClient) -> Callable[..., dict[str, Any]]:
    """The answer to a request."""

    def rerank(path: str = "/v1/rerank", **body: Any) -> dict[str, Any]:
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        scores = [one["relevance_score"] for one in found["results"]]
        assert scores == sorted(scores, reverse=True)
        return found

    return rerank


def scores_by_index(answer: dict[str, Any]) -> list[float]:
    return [one["relevance_score"] for one in sorted(answer["results"], key=lambda one: one["index"])]


def same(given: list[float], expected: Any) -> bool:
    return bool(np.abs(np.asarray(given) - np.asarray(expected, np.float64)).max() <= 1e-6)


def test_scores_are_the_rerankers(rerank: Any, reranker: Reranker) -> None:
    answer = rerank(query=QUERY, documents=DOCUMENTS, model="tiny")
    texts = [{"text": text} for text in DOCUMENTS]
    assert same(scores_by_index(answer), reranker.score({"text": QUERY}, texts))
    tokens = sum(reranker.judge({"text": QUERY}, texts).tokens)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert answer["model"] == "tiny/reranker"


def test_equal_scores_stay_in_the_order_of_their_documents(rerank: Any) -> None:
    places = [one["index"] for one in rerank(query=QUERY, documents=DOCUMENTS)["results"]]
    assert places.index(0) < places.index(4)


@pytest.mark.parametrize(("path", "version"), [("/v1/rerank", "1"), ("/rerank", "1"), ("/v2/rerank", "2")])
def test_what_coheres_clients_read(rerank: Any, path: str, version: str) -> None:
    # The fields that cohere.Client (version 1) and cohere.ClientV2 send and read.
    old = {"return_documents": True, "max_chunks_per_doc": 10}
    new = {"max_tokens_per_doc": 4096, "priority": 0}
    asked = {"model": "tiny/reranker", "query": QUERY, "documents": DOCUMENTS, "top_n": 2}
    answer = rerank(path, **asked, **(new if version == "2" else old))
    assert len(answer["results"]) == 2
    assert isinstance(answer["id"], str)
    assert answer["meta"]["api_version"] == {"version": version}
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    for one in answer["results"]:
        assert 0 <= one["relevance_score"] <= 1
        if version == "1":
            assert one["document"] == {"text": DOCUMENTS[one["index"]]}
        else:
            assert "document" not in one


def test_what_jinas_clients_read(rerank: Any, photo: Path) -> None:
    documents = [{"text": "two dogs"}, {"image": data_uri(photo)}]
    answer = rerank(model="tiny", query=QUERY, documents=documents, top_n=5, return_documents=True)
    assert answer["object"] == "list"
    assert answer["usage"]["total_tokens"] > 0
    assert [one["document"] for one in answer["results"]] == [
        documents[one["index"]] for one in answer["results"]
    ]


def test_pictures_and_films_as_vllm_takes_them(
    rerank: Any, reranker: Reranker, photo: Path, film: Path
) -> None:
    image = {"type": "image_url", "image_url": {"url": data_uri(photo)}}
    video = {"type": "video_url", "video_url": {"url": data_uri(film, "video/mp4")}}
    words = {"type": "text", "text": "a place"}
    answer = rerank(
        query={"content": [words, image]},
        documents=[{"content": [image]}, {"content": [video, words]}, {"text": "a place"}, "a place"],
    )
    expected = reranker.score(
        {"text": "a place", "image": photo},
        [{"image": photo}, {"video": film, "text": "a place"}, {"text": "a place"}, {"text": "a place"}],
    )
    assert same(scores_by_index(answer), expected)


def test_an_instruction_changes_what_is_relevant(rerank: Any, reranker: Reranker) -> None:
    texts = [{"text": text} for text in DOCUMENTS]
    expected = reranker.score({"text": QUERY}, texts, instruction="Find a cat")
    for body in (
        {"query": QUERY, "instruction": "Find a cat"},
        {"query": {"text": QUERY, "instruction": "Find a cat"}},
    ):
        assert same(scores_by_index(rerank(documents=DOCUMENTS, **body)), expected)
    assert not same(scores_by_index(rerank(query=QUERY, documents=DOCUMENTS)), expected)


def test_documents_are_cut_to_so_many_tokens(rerank: Any, reranker: Reranker) -> None:
    long = "two dogs on a beach, " * 200
    answer = rerank(query=QUERY, documents=[long, "two dogs"], max_tokens_per_doc=2)
    assert same(scores_by_index(answer), reranker.score({"text": QUERY}, [{"text": "two dogs"}] * 2))
    assert len(set(scores_by_index(answer))) == 1


def test_many_documents_keep_their_places(rerank: Any, reranker: Reranker) -> None:
    texts = [f"picture number {i} of a dog" for i in range(70)]
    answer = rerank(query=QUERY, documents=texts)
    expected = reranker.score({"text": QUERY}, [{"text": text} for text in texts])
    assert same(scores_by_index(answer), expected)


def test_a_text_that_is_none_is_given_back_whole(client: TestClient) -> None:
    body = {"query": "a\ud83d", "documents": ["b\ud83d"], "return_documents": True}
    headers = {"content-type": "application/json"}
    answer = client.post("/rerank", content=json.dumps(body), headers=headers)
    assert answer.status_code == 200
    assert answer.json()["results"][0]["document"] == {"text": "b\ud83d"}


@pytest.mark.parametrize("detail", ["1e999", "[" * 900 + "]" * 900])
def test_what_json_cannot_give_back_is_refused(client: TestClient, photo: Path, detail: str) -> None:
    image = f'{{"url": "{data_uri(photo)}", "detail": {detail}}}'
    body = f'{{"query": "a", "documents": [{{"image_url": {image}}}], "return_documents": true}}'
    answer = client.post("/rerank", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "documents[0].image_url.detail"


@pytest.mark.parametrize(
    ("body", "part", "words"),
    [
        ({"documents": ["a"]}, "query", "required"),
        ({"query": "a"}, "documents", "required"),
        ({"query": "", "documents": ["a"]}, "query", "is empty"),
        ({"query": ["a"], "documents": ["a"]}, "query", "not a list"),
        ({"query": "a", "documents": []}, "documents", "at least one"),
        ({"query": "a", "documents": "a"}, "documents", "at least one"),
        ({"query": "a", "documents": {"text": "a"}}, "documents", "at least one"),
        ({"query": "a", "documents": ["a", ""]}, "documents[1]", "is empty"),
        ({"query": "a", "documents": [["a"]]}, "documents[0]", "not a list"),
        ({"query": "a", "documents": [{"title": "a"}]}, "documents[0]", "'title' is unknown"),
        ({"query": "a", "documents": [{"text": "a", "instruction": "b"}]}, "documents[0]", "no instruction"),
        ({"query": "a", "documents": [{"image": "AAAA"}]}, "documents[0].image", "zeros"),
        ({"query": {"image": "http://x.org/a"}, "documents": ["a"]}, "query.image", "--allow-remote-urls"),
        ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n", "1"),
        ({"query": "a", "documents": ["a"], "top_n": True}, "top_n", "integer"),
        ({"query": "a", "documents": ["a"], "max_tokens_per_doc": 0}, "max_tokens_per_doc", "1"),
        ({"query": "a", "documents": ["a"], "return_documents": 1}, "return_documents", "boolean"),
        ({"query": "a", "documents": ["a"], "model": "tiny/embedding"}, "model", "/v1/embeddings"),
        ({"query": "a", "documents": ["a"], "rank_fields": ["text"]}, "rank_fields", "unknown field"),
        ({"query": "a", "documents": ["a"] * 1001}, "documents", "1,000"),
        (
            {"query": {"text": "a", "instruction": "b"}, "documents": ["a"], "instruction": "c"},
            "instruction",
            "holds one already",
        ),
    ],
)
def test_what_is_wrong_is_named(client: TestClient, body: dict[str, Any], part: str, words: str) -> None:
    for path in ("/v1/rerank", "/rerank", "/v2/rerank"):
        answer = client.post(path, json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["type"]) == (400, part, "invalid_request_error")
        assert words in error["message"]


def test_the_documented_example_has_the_form_of_an_answer(rerank: Callable[..., dict[str, Any]]) -> None:
    section = (ROOT / "docs" / "api.md").read_text("utf-8").partition("\n## Reranking\n")[2]
    asked = section.partition("-d '")[2].partition("'\n```")[0]
    documented = json.loads(section.partition("```json\n")[2].partition("\n```")[0])
    answer = rerank(**json.loads(asked))
    assert form(answer) == form(documented)
    assert max(one["relevance_score"] for one in answer["results"]) < 0.001  # as is said beside it


def form(value: Any) -> Any:
    """Names and types, and how many there are of each."""
    if isinstance(value, dict):
        return {name: form(one) for name, one in value.items()}
    return [form(one) for one in value] if isinstance(value, list) else type(value)
