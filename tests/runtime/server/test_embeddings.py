"""Embeddings over HTTP: what OpenAI's own client gets and what Jina's and vLLM's send, against `Embedder`."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import openai
import pytest
from numpy.typing import NDArray
from openai.types import CreateEmbeddingResponse
from qvl_local.runtime import Embedder
from qvl_local.runtime.errors import ModelMemoryError
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.limits import OverloadedError
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from starlette.testclient import TestClient

TEXTS = ["two dogs on a beach at night", "a", "狗 🐕", "a boat under the moon, far away"]


@pytest.fixture(scope="module")
def api(server: Any) -> Iterator[openai.OpenAI]:
    """The official client, which knows nothing but an address."""
    with openai.OpenAI(base_url=f"{server.url.rstrip('/')}/v1", api_key="none", max_retries=0) as api:
        yield api


@pytest.fixture(scope="module")
def embedder(service: Service) -> Embedder:
    return service.embedder()


@pytest.fixture(scope="module")
def photo(media: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.photo(tmp_path_factory.mktemp("sent") / "a.png", (30, 60, 200), size=(300, 170), seed=3)


@pytest.fixture(scope="module")
def film(media: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenes = (((200, 30, 30), 2.0), ((20, 160, 60), 2.0))
    return media.video(tmp_path_factory.mktemp("sent") / "a.mp4", scenes)


def data_uri(path: Path, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def close(given: Any, expected: NDArray[np.float32]) -> bool:
    return bool(np.abs(np.asarray(given, np.float64) - expected).max() <= 1e-6)


@pytest.fixture
def embed(client: TestClient) -> Callable[..., list[list[float]]]:
    """The vectors of a request."""

    def embed(**body: Any) -> list[list[float]]:
        answer = client.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        assert [one["index"] for one in data] == list(range(len(data)))
        return [one["embedding"] for one in data]

    return embed


@pytest.fixture
def refusal(client: TestClient) -> Callable[..., tuple[int, str | None, str]]:
    """Status, the part at fault, and the message of a refused request."""

    def refusal(path: str = "/v1/embeddings", **body: Any) -> tuple[int, str | None, str]:
        content = json.dumps(body)  # escapes, also what is no text at all
        answer = client.post(path, content=content, headers={"content-type": "application/json"})
        error = answer.json()["error"]
        assert error["type"] in ("invalid_request_error", "server_error")
        assert error["code"]
        return answer.status_code, error["param"], error["message"]

    return refusal


# OpenAI's client


@pytest.mark.parametrize("form", [openai.omit, "float", "base64"])
def test_the_official_client_gets_the_embedders_vectors(
    api: openai.OpenAI, embedder: Embedder, form: Any
) -> None:
    answer = api.embeddings.create(model="tiny", input=TEXTS, encoding_format=form)
    expected = embedder.embed([{"text": text} for text in TEXTS])
    given = [one.embedding for one in answer.data]
    if form == "base64":  # asked for by name, the client leaves them as they came
        given = [np.frombuffer(base64.b64decode(str(one)), "<f4") for one in given]
    assert close(given, expected)
    assert [one.index for one in answer.data] == [0, 1, 2, 3]
    assert answer.model == "tiny/embedding"


def test_no_bit_is_lost_in_writing_numbers(client: TestClient) -> None:
    def first(form: str) -> Any:
        body = {"input": TEXTS[0], "encoding_format": form}
        return client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]

    exact = np.frombuffer(base64.b64decode(first("base64")), "<f4")
    assert np.array_equal(np.asarray(first("float"), np.float32), exact)


def test_usage_counts_what_the_model_read(api: openai.OpenAI, embedder: Embedder) -> None:
    answer = api.embeddings.create(model="tiny", input=TEXTS)
    tokens = sum(embedder.embed_counted([{"text": text} for text in TEXTS]).tokens)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


def test_dimensions_are_leading_components_of_unit_length(api: openai.OpenAI, embedder: Embedder) -> None:
    answer = api.embeddings.create(model="tiny", input=TEXTS[0], dimensions=64)
    assert close([answer.data[0].embedding], embedder.embed([{"text": TEXTS[0]}], dims=64))
    assert len(answer.data[0].embedding) == 64


def test_the_clients_own_errors(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny/embedding"):
        api.embeddings.create(model="text-embedding-3-small", input="a")
    with pytest.raises(openai.BadRequestError) as caught:
        api.embeddings.create(model="tiny", input="a", dimensions=4096)
    assert (caught.value.param, caught.value.type) == ("dimensions", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="token ids"):
        api.embeddings.create(model="tiny", input=[[1, 2], [3]])
    with pytest.raises(openai.BadRequestError, match="is empty"):
        api.embeddings.create(model="tiny", input="")


def test_the_client_lists_the_models_and_finds_each(api: openai.OpenAI) -> None:
    models = list(api.models.list())
    assert [model.id for model in models] == ["tiny/embedding", "tiny/reranker"]
    assert all(api.models.retrieve(model.id) == model for model in models)
    assert api.models.retrieve("tiny").id == "tiny/embedding"
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("gpt-4")
    for name in ("tiny", "tiny/embedding", "Embedding"):
        assert api.embeddings.create(model=name, input="a").data


def test_the_client_signs_in_with_its_api_key(settings: Any, serving: Any) -> None:
    secret = "a token that is long enough"
    with serving(replace(settings, token=secret)) as running:
        address = f"{running.url.rstrip('/')}/v1"
        with openai.OpenAI(base_url=address, api_key=secret, max_retries=0) as api:
            assert api.embeddings.create(model="tiny", input="a", dimensions=4).data
        with (
            openai.OpenAI(base_url=address, api_key="another", max_retries=0) as api,
            pytest.raises(openai.AuthenticationError),
        ):
            api.embeddings.create(model="tiny", input="a")


def test_vllms_way_of_asking_the_official_client(api: openai.OpenAI, embedder: Embedder, photo: Path) -> None:
    address = {"url": data_uri(photo)}
    answer = api.post(
        "/embeddings",
        cast_to=CreateEmbeddingResponse,
        body={
            "model": "tiny",
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Find the same place"}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": address},
                        {"type": "text", "text": "at night"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": ""}]},
            ],
            "encoding_format": "float",
            "continue_final_message": True,
            "add_special_tokens": True,
        },
    )
    expected = {"image": photo, "text": "at night", "instruction": "Find the same place"}
    assert close([answer.data[0].embedding], embedder.embed([expected]))


# Pictures and films


def test_parts_are_inputs_of_their_own(embed: Any, embedder: Embedder, photo: Path, film: Path) -> None:
    given = embed(
        input=[
            {"text": "two dogs"},
            {"image": data_uri(photo)},
            {"image": base64.b64encode(photo.read_bytes()).decode()},
            {"video": data_uri(film, "video/mp4")},
            {"type": "video_url", "video_url": {"url": data_uri(film, "video/mp4")}},
            "two dogs",
        ]
    )
    words, picture, clip = {"text": "two dogs"}, {"image": photo}, {"video": film}
    assert close(given, embedder.embed([words, picture, picture, clip, clip, words]))


def test_several_parts_are_one_input(embed: Any, embedder: Embedder, photo: Path, film: Path) -> None:
    image, video = data_uri(photo), data_uri(film, "video/mp4")
    expected = embedder.embed([{"image": photo, "text": ["like", "this"]}])
    for one in (
        {"content": [{"text": "like"}, {"image": image}, "this"]},
        {"image": image, "text": ["like", "this"]},
        {
            "content": [
                {"type": "text", "text": "like"},
                {"type": "image_url", "image_url": {"url": image, "detail": "low"}},
                {"type": "text", "text": "this"},
                {"type": "text", "text": ""},
            ]
        },
    ):
        assert close(embed(input=one), expected)
        assert close(embed(input=[one]), expected)
    both = embed(input=[{"content": [{"video": video}, {"image": image}]}])
    assert close(both, embedder.embed([{"image": photo, "video": film}]))


def test_a_film_is_looked_at_as_asked(embed: Any, embedder: Embedder, film: Path) -> None:
    video = data_uri(film, "video/mp4")
    given = embed(
        input=[
            {"video": video, "fps": 4, "max_frames": 6},
            {"content": [{"type": "video", "video": video}], "max_frames": 2},
        ]
    )
    expected = embedder.embed(
        [{"video": film, "fps": 4.0, "max_frames": 6}, {"video": film, "max_frames": 2}]
    )
    assert close(given, expected)
    assert not close(given[:1], expected[1:])


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.heic", "a.gif", "a.bmp", "a.tiff"])
def test_every_format_of_picture(
    embed: Any, embedder: Embedder, media: Any, tmp_path: Path, name: str
) -> None:
    file = media.photo(tmp_path / name, (200, 180, 20), size=(90, 70), seed=1)
    assert close(embed(input={"image": data_uri(file, "image/any")}), embedder.embed([{"image": file}]))


def test_instructions(embed: Any, embedder: Embedder) -> None:
    given = embed(
        input=["two dogs", {"text": "two dogs", "instruction": "Find a place"}], instruction="Find an animal"
    )
    expected = [{"text": "two dogs", "instruction": f"Find {what}"} for what in ("an animal", "a place")]
    assert close(given, embedder.embed(expected))
    said = [{"role": "system", "content": "Find a place"}, {"role": "user", "content": "two dogs"}]
    assert close(embed(messages=said), embedder.embed(expected[1:]))


def test_many_inputs_keep_their_order(embed: Any, embedder: Embedder) -> None:
    texts = [f"picture number {i} " + "of a dog " * (i % 7) for i in range(100)]
    assert close(embed(input=texts, dimensions=32), embedder.embed([{"text": t} for t in texts], dims=32))


def test_forms_of_vectors_that_jina_names(client: TestClient) -> None:
    def first(**body: Any) -> Any:
        asked = {"model": "tiny", "input": ["a"], "dimensions": 8, "normalized": True, "truncate": True}
        return client.post("/v1/embeddings", json={**asked, **body}).json()["data"][0]["embedding"]

    decoded = np.frombuffer(base64.b64decode(first(embedding_type="base64")), "<f4")
    assert close(decoded, np.asarray(first(), np.float32))
    assert client.post("/v1/embeddings", json={"input": "a", "embedding_type": "binary"}).status_code == 400


# Refusals


@pytest.mark.parametrize(
    ("body", "part", "words"),
    [
        ({}, None, "either input or messages"),
        ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, None, "either input or messages"),
        ({"input": []}, "input", "is empty"),
        ({"input": ["a", ""]}, "input[1]", "is empty"),
        ({"input": {"text": ""}}, "input", "is empty"),
        ({"input": {}}, "input", "neither text nor image nor video"),
        ({"input": 7}, "input", "not a number"),
        ({"input": [None]}, "input[0]", "not null"),
        ({"input": [True]}, "input[0]", "not true or false"),
        ({"input": [1, 2, 3]}, "input", "token ids"),
        ({"input": [{"image": 5}]}, "input[0].image", "not a number"),
        ({"input": [{"image": ""}]}, "input[0].image", "not an empty text"),
        ({"input": [{"text": 5}]}, "input[0].text", "not a number"),
        ({"input": [{"text": ["a", 5]}]}, "input[0].text[1]", "not a number"),
        ({"input": [{"picture": "x"}]}, "input[0]", "'picture' is unknown"),
        ({"input": [{"content": [{"image": "*"}]}]}, "input[0].content[0].image", "nor base64"),
        ({"input": [{"content": "a", "text": "b"}]}, "input[0]", "'text' is unknown"),
        ({"input": {"type": "text", "image": "x"}}, "input", "as its type says"),
        ({"input": {"image_url": {"uri": "x"}}}, "input.image_url", "'uri' is unknown"),
        ({"input": {"image": "data:image/png,abc"}}, "input.image", "base64"),
        ({"input": {"image": "data:image/png;base64,*"}}, "input.image", "broken"),
        ({"input": {"image": "data:image/png;base64,"}}, "input.image", "empty"),
        ({"input": {"image": "https://example.org/a.png"}}, "input.image", "--allow-remote-urls"),
        ({"input": {"video": "HTTP://example.org/a.mp4"}}, "input.video", "--allow-remote-urls"),
        ({"input": {"image": "file:///etc/passwd"}}, "input.image", "--allow-local-paths"),
        ({"input": {"image": "/etc/passwd"}}, "input.image", "nor base64"),
        ({"input": {"image": "ftp://example.org/a.png"}}, "input.image", "nor base64"),
        ({"input": {"text": "a", "fps": 0}}, "input.fps", "above 0"),
        ({"input": {"text": "a", "max_frames": 65}}, "input.max_frames", "from 1 to 64"),
        ({"input": {"text": "a", "max_frames": True}}, "input.max_frames", "from 1 to 64"),
        ({"input": {"text": "a", "instruction": 5}}, "input.instruction", "not a number"),
        ({"messages": []}, "messages", "list of messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]", '"content"'),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0]", "Leave it out"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "are empty"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]", "not a number"),
        ({"input": "a", "dimensions": 0}, "dimensions", "1"),
        ({"input": "a", "dimensions": 257}, "dimensions", "from 1 to 256"),
        ({"input": "a", "dimensions": "8"}, "dimensions", "integer"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "encoding_format": "float", "embedding_type": "base64"}, "embedding_type", "another"),
        ({"input": "a", "normalized": False}, "normalized", "True"),
        ({"input": "a", "instructions": "typo"}, "instructions", "unknown field"),
        ({"input": "a", "model": "tiny/reranker"}, "model", "/v1/rerank"),
        ({"input": "a" * 200_001}, "input", "200,000"),
        ({"input": ["a" * 150_000] * 30}, "input", "4,000,000"),
        ({"input": ["a"] * 2049}, "input", "2,048"),
        ({"input": {"image": ["AAAA"] * 65}}, "input", "more than 64"),
        ({"input": [{"image": ["AAAA"] * 60}] * 9}, "input", "512"),
    ],
)
def test_what_is_wrong_is_named(refusal: Any, body: dict[str, Any], part: str | None, words: str) -> None:
    status, param, message = refusal(**body)
    assert (status, param) == (400, part), message
    assert words in message
    assert part is None or message.startswith(f"{part}: ")


def test_an_unknown_model_is_not_found(refusal: Any) -> None:
    for path, rest in (
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ):
        status, _, message = refusal(path, model="gpt-4", **rest)
        assert status == 404
        assert "tiny/embedding, tiny/reranker" in message


def test_null_is_as_good_as_absent(embed: Any) -> None:
    assert embed(input="a", messages=None, dimensions=None, user=None, something_else=None)


def test_what_is_no_text_passes_and_does_not_break_the_answer(client: TestClient) -> None:
    def post(**body: Any) -> httpx.Response:
        headers = {"content-type": "application/json"}
        answer: Any = client.post("/v1/embeddings", content=json.dumps(body), headers=headers)
        return answer

    assert post(input="half a pair: \ud83d").status_code == 200
    assert post(input={"image": "\ud83d"}).status_code == 400
    assert post(input={"\ud83d": 1}).status_code == 400
    assert post(input="a", model="\ud83d").status_code == 400
    assert post(**{"input": "a", "\ud83d": 1}).status_code == 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"a"', b"\xff\xfe", b"[" * 100_000, b'{"input": NaN}', b"9" * 5000]
)
def test_what_is_no_json_object_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]


def test_other_types_of_content_are_refused(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/v1/embeddings", content=b'{"input": "a"}', headers={"content-type": kind})
        assert answer.status_code == 415
        assert "Content-Type: application/json" in answer.json()["error"]["message"]


# What the machine does not give


def test_a_device_that_is_not_there_is_said(settings: ServerSettings) -> None:
    wanted = replace(settings, device="cuda")
    with (
        Service.open(wanted) as service,
        TestClient(build_app(wanted, service), base_url="http://localhost:8377") as client,
    ):
        answer = client.post("/v1/embeddings", json={"input": "a"})
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert answer.status_code == 200
        return
    assert answer.status_code == 503
    assert "this onnxruntime has no CUDA" in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "server_error"


def test_memory_that_does_not_suffice_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise ModelMemoryError("the batch does not fit into memory")

    monkeypatch.setattr(Embedder, "embed_counted", full)
    answer = client.post("/v1/embeddings", json={"input": "a"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_full_queue_tells_when_to_come_again(api: openai.OpenAI, server: Any) -> None:
    gate = server.service.programs
    free = threading.Event()
    held = []
    with suppress(OverloadedError):
        while True:
            held.append(gate.submit(free.wait))
    try:
        with pytest.raises(openai.InternalServerError) as caught:
            api.embeddings.create(model="tiny", input="a")
    finally:
        free.set()
        for one in held:
            one.result()
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert api.embeddings.create(model="tiny", input="a").data


def test_work_ends_when_the_client_goes(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    has_begun, may_go_on = threading.Event(), threading.Event()
    real = Embedder.embed_counted

    def slow(self: Embedder, inputs: Any, **options: Any) -> Any:
        batches.append(len(inputs))
        has_begun.set()
        may_go_on.wait(60)
        return real(self, inputs, **options)

    monkeypatch.setattr(Embedder, "embed_counted", slow)
    body = json.dumps({"input": ["a"] * 1000}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        assert has_begun.wait(60)
    gate = server.service.programs
    _until(lambda: 'route="/v1/embeddings",status="499"' in server.service.metrics.render())
    may_go_on.set()
    _until(lambda: gate.taken == 0)
    assert len(batches) == 1


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
