"""Downloads from a fake hub on loopback: whole, resumed, checked, refused with a remedy, and then offline.

`FakeHub` speaks the few endpoints that huggingface_hub asks: a repository's listing, HEAD and GET of a file,
byte ranges, the redirect of large files to another address. What it cannot show is Xet storage, and how the
real hub behaves under load.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import reset_sessions
from qvl_local.runtime import Embedder
from qvl_local.runtime.errors import ModelError, ModelNotFoundError
from qvl_local.runtime.model import bundle_cache, download_meter, hub_download
from qvl_local.runtime.model.checkpoints import find_checkpoints
from qvl_local.runtime.model.hub import Hub
from qvl_local.runtime.model.hub_listing import HubFile, Reference, choose_files
from qvl_local.runtime.model.resolve import resolve
from qvl_local.runtime.model.snapshot import lacking

EMBEDDER, RERANKER = "Qwen/Qwen3-VL-Embedding-2B", "Qwen/Qwen3-VL-Reranker-2B"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = "fedcba9876543210fedcba9876543210fedcba98"
WEIGHTS = "model.safetensors"
CHUNK = 16 << 10


class FakeHub:
    """Repositories as {name: {commit: {file: content}}} and {name: {branch: commit}}."""

    def __init__(self) -> None:
        self.contents: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.gated: set[str] = set()
        self.cut_after: dict[str, list[int]] = {}
        self.stall_after: dict[str, int] = {}
        self.lies: Counter[str] = Counter()
        self.asked: list[tuple[str, str, str | None]] = []
        self.tokens: set[str | None] = set()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def publish(
        self, name: str, files: dict[str, bytes], *, commit: str = COMMIT, branch: str = "main"
    ) -> None:
        self.contents.setdefault(name, {})[commit] = files
        self.branches.setdefault(name, {})[branch] = commit

    def fetched(self, file: str) -> list[str | None]:
        """The byte ranges with which a large file was fetched; None is all of it."""
        digest = next(
            sha256(files[file])
            for commits in self.contents.values()
            for files in commits.values()
            if file in files
        )
        return [asked for method, path, asked in self.asked if method == "GET" and path == f"/cdn/{digest}"]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                fake._answer(self, body=False)

            def do_GET(self) -> None:
                fake._answer(self, body=True)

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        self.asked.append((request.command, path, request.headers["Range"]))
        self.tokens.add(request.headers["Authorization"])
        parts = path.strip("/").split("/")
        if parts[0] == "cdn":
            self._send_large(request, parts[1])
            return
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[:2])
        if name not in self.contents:
            self._refuse(request, 404, "RepoNotFound")
        elif name in self.gated and request.headers["Authorization"] is None:
            self._refuse(request, 401, "GatedRepo")
        elif api:
            self._list(request, name, parts[5] if len(parts) > 4 else "main")
        else:
            self._send_file(request, name, parts[3], "/".join(parts[4:]), body=body)

    def _list(self, request: BaseHTTPRequestHandler, name: str, revision: str) -> None:
        commit = self.branches[name].get(revision, revision)
        if commit not in self.contents[name]:
            self._refuse(request, 404, "RevisionNotFound")
            return
        siblings = []
        for file, content in self.contents[name][commit].items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_hash(content)}
            if is_large(file):
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        answer = json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode()
        self._send(request, 200, {"Content-Type": "application/json"}, answer)

    def _send_file(
        self, request: BaseHTTPRequestHandler, name: str, commit: str, file: str, *, body: bool
    ) -> None:
        content = self.contents[name][commit][file]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_hash(content)}"'}
        if is_large(file):
            headers["Location"] = f"{self.url}/cdn/{sha256(content)}"
            headers |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            self._send(request, 302, headers, b"")
        elif body:
            self._send(request, 200, headers, content)
        else:
            self._send(request, 200, headers | {"Content-Length": str(len(content))}, b"")

    def _send_large(self, request: BaseHTTPRequestHandler, digest: str) -> None:
        file, content = next(
            (file, content)
            for commits in self.contents.values()
            for files in commits.values()
            for file, content in files.items()
            if sha256(content) == digest
        )
        if self.lies[file]:
            self.lies[file] -= 1
            content = bytes(len(content))
        first = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        sent = content[first:]
        headers = {"Content-Length": str(len(sent))}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if file in self.stall_after:
            self._send(request, 200, headers, sent[: self.stall_after[file]])
            request.wfile.flush()
            while file in self.stall_after and not self._closed.wait(0.02):
                pass
            request.close_connection = True
            return
        cuts = self.cut_after.get(file)
        if cuts:
            sent = sent[: cuts.pop(0)]
            request.close_connection = True
        self._send(request, 206 if first else 200, headers, sent)

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        self._send(request, status, {"X-Error-Code": code, "X-Error-Message": "no"}, b"")

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        request.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body)


def is_large(file: str) -> bool:
    return file.endswith(".safetensors") or file == "tokenizer.json"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def repository(seed: int = 0, *, shards: int = 1) -> dict[str, bytes]:
    """What a repository of these models holds, the weights mere bytes: nothing here reads them."""
    files: dict[str, Any] = {
        "config.json": {"model_type": "qwen3_vl", "seed": seed},
        "preprocessor_config.json": {"patch_size": 16},
        "chat_template.json": {"chat_template": "{{ messages }}"},
        "tokenizer.json": {"version": "1.0"},
        "1_Pooling/config.json": {"pooling_mode_lasttoken": True},
        "additional_chat_templates/reranker.jinja": "{{ query }}",
        "README.md": "words",
        "pytorch_model.bin": "another format",
        "scripts/example.py": "code",
        "onnx/model.safetensors": "not of the checkpoint",
    }
    names = [WEIGHTS]
    if shards > 1:
        names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
        files["model.safetensors.index.json"] = {
            "weight_map": {f"t{i}": name for i, name in enumerate(names)}
        }
    made = {
        name: (content if isinstance(content, str) else json.dumps(content)).encode()
        for name, content in files.items()
    }
    block = hashlib.sha512(b"%d" % seed).digest()
    return made | {name: block * 2048 + name.encode() for name in names}  # 128 KiB each


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    # What a broken connection leaves on the disk comes in pieces of this size.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(hub_download, "_RETRY_AFTER_S", 0.0)
    reset_sessions()
    fake = FakeHub()
    yield fake
    reset_sessions()
    fake.close()


@pytest.fixture
def hub(fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """This machine's view of it; nothing is in the cache yet."""
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return Hub(fake_hub.url, tmp_path / "cache", offline=False)


def offline(hub: Hub) -> Hub:
    return Hub(hub.endpoint, hub.cache, offline=True)


def test_a_pair_is_downloaded_once_and_only_what_is_needed(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish(EMBEDDER, repository(1))
    fake_hub.publish(RERANKER, repository(2), commit=LATER)
    told: list[tuple[str, float]] = []
    wanted = {"embedder": Reference(EMBEDDER), "reranker": Reference(RERANKER)}
    found = hub.fetch(wanted, needed="embedder", progress=lambda step, part: told.append((step, part)))
    assert {role: (one.repository, one.commit) for role, one in found.items()} == {
        "embedder": (EMBEDDER, COMMIT),
        "reranker": (RERANKER, LATER),
    }
    for role, seed in (("embedder", 1), ("reranker", 2)):
        files = {
            file.relative_to(found[role].path).as_posix(): file.read_bytes()
            for file in found[role].path.rglob("*")
            if file.is_file()
        }
        published = repository(seed)
        for unneeded in ("README.md", "pytorch_model.bin", "scripts/example.py", "onnx/model.safetensors"):
            del published[unneeded]
        assert files == published
    assert told[0][0] == f"asking the hub for {EMBEDDER}"
    assert any(step.startswith(f"downloading {RERANKER}") and " of 2" in step for step, _ in told)
    assert told[-1][1] == 1.0

    fake_hub.asked.clear()
    assert hub.fetch(wanted, needed="embedder") == found
    assert fake_hub.asked == []  # what is here is used without asking anyone
    assert offline(hub).fetch(wanted, needed="reranker") == found


def test_shards_follow_their_index(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository(shards=3))
    folder = hub.fetch({"embedder": Reference("a/b")}, needed="embedder")["embedder"].path
    assert len(list(folder.glob("model-*-of-00003.safetensors"))) == 3
    assert lacking(folder) == []


def test_weights_that_are_there_twice_are_fetched_once() -> None:
    files = [HubFile(name, 1, "") for name in (*repository(), *repository(shards=2))]
    names = [file.name for file in choose_files(files)]
    assert names[-1] == WEIGHTS
    assert sum(name.endswith(".safetensors") for name in names) == 1
    assert "model.safetensors.index.json" not in names


# ---- interruptions ----


def test_a_connection_that_breaks_is_taken_up_where_it_broke(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository())
    fake_hub.cut_after[WEIGHTS] = [3 * CHUNK, CHUNK]
    folder = hub.fetch({"embedder": Reference("a/b")}, needed="embedder")["embedder"].path
    assert (folder / WEIGHTS).read_bytes() == repository()[WEIGHTS]
    assert fake_hub.fetched(WEIGHTS) == [None, f"bytes={3 * CHUNK}-", f"bytes={4 * CHUNK}-"]


def test_a_later_run_goes_on_where_a_dead_one_stopped(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository())
    fake_hub.cut_after[WEIGHTS] = [5 * CHUNK, 0]
    with pytest.raises(ModelError, match=r"81\.9 kB of it are kept: the next attempt goes on from there"):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder")
    assert hub.held(Reference("a/b")) is None
    with pytest.raises(
        ModelError, match=r"not downloaded|only partly downloaded \(model\.safetensors missing"
    ):
        offline(hub).fetch({"embedder": Reference("a/b")}, needed="embedder")
    fake_hub.asked.clear()
    folder = hub.fetch({"embedder": Reference("a/b")}, needed="embedder")["embedder"].path
    assert fake_hub.fetched(WEIGHTS) == [f"bytes={5 * CHUNK}-"]
    assert (folder / WEIGHTS).read_bytes() == repository()[WEIGHTS]


def test_a_partial_file_larger_than_the_whole_is_begun_again(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository())
    blobs = hub.cache / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(repository()[WEIGHTS])}.incomplete").write_bytes(bytes(1 << 20))
    folder = hub.fetch({"embedder": Reference("a/b")}, needed="embedder")["embedder"].path
    assert (folder / WEIGHTS).read_bytes() == repository()[WEIGHTS]


# ---- hashes ----


def test_what_arrives_damaged_is_fetched_again(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository())
    fake_hub.lies[WEIGHTS] = 1
    folder = hub.fetch({"embedder": Reference("a/b")}, needed="embedder")["embedder"].path
    assert fake_hub.fetched(WEIGHTS) == [None, None]
    assert (folder / WEIGHTS).read_bytes() == repository()[WEIGHTS]


def test_what_arrives_damaged_twice_is_thrown_away(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository())
    fake_hub.lies[WEIGHTS] = 2
    with pytest.raises(ModelError, match=r"a/b: model\.safetensors arrived twice with other content"):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder")
    assert hub.held(Reference("a/b")) is None
    assert not list((hub.cache / "models--a--b").rglob(sha256(repository()[WEIGHTS])))


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_copy_that_was_harmed_later_is_named(fake_hub: FakeHub, hub: Hub, name: str) -> None:
    fake_hub.publish("a/b", repository())
    folder = hub.fetch({"embedder": Reference("a/b")}, needed="embedder")["embedder"].path
    blob = (folder / name).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError, match=rf"{name} is damaged.*Delete it and try again with a network"):
        offline(hub).fetch({"embedder": Reference("a/b")}, needed="embedder")
    (folder / name).unlink()
    blob.unlink()
    hub.fetch({"embedder": Reference("a/b")}, needed="embedder")
    assert (folder / name).read_bytes() == repository()[name]


# ---- revisions ----


def test_a_branch_is_asked_for_a_copy_is_not_and_a_commit_stays(fake_hub: FakeHub, hub: Hub) -> None:
    def commit(reference: Reference) -> str:
        return hub.fetch({"embedder": reference}, needed="embedder")["embedder"].commit

    fake_hub.publish("a/b", repository(1))
    assert commit(Reference("a/b")) == COMMIT
    fake_hub.publish("a/b", repository(2), commit=LATER)
    assert commit(Reference("a/b")) == COMMIT
    assert commit(Reference("a/b", "main")) == LATER
    assert commit(Reference("a/b")) == LATER
    assert commit(Reference("a/b", COMMIT)) == COMMIT
    assert commit(Reference("a/b")) == LATER
    fake_hub.publish("a/b", repository(3), commit="a" * 40, branch="v1.0")
    assert commit(Reference("a/b", "v1.0")) == "a" * 40
    fake_hub.asked.clear()
    assert offline(hub).fetch({"embedder": Reference("a/b", "v1.0")}, needed="embedder")[
        "embedder"
    ].commit == ("a" * 40)
    assert fake_hub.asked == []


@pytest.mark.parametrize(
    ("text", "repository_name", "revision"),
    [
        ("a/b", "a/b", None),
        ("a/b@main", "a/b", "main"),
        ("Qwen/Qwen2.5-VL@refs/pr/1", "Qwen/Qwen2.5-VL", "refs/pr/1"),
    ],
)
def test_references_are_read(text: str, repository_name: str, revision: str | None) -> None:
    assert Reference.parse(text) == Reference(repository_name, revision)


@pytest.mark.parametrize("text", ["", "a", "a/b/c", "a/b@", "a/b@../../x", "a/b@-x", "a/b@x@y", "../b"])
def test_other_texts_are_no_references(text: str) -> None:
    assert Reference.parse(text) is None


# ---- refusals ----


def test_an_unknown_repository_and_revision_are_named(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository())
    with pytest.raises(
        ModelNotFoundError, match=r"x/y: neither a folder here nor a repository .*hf auth login"
    ):
        hub.fetch({"embedder": Reference("x/y")}, needed="embedder")
    with pytest.raises(ModelNotFoundError, match=r"a/b@v9: the repository has no branch, tag or commit"):
        hub.fetch({"embedder": Reference("a/b", "v9")}, needed="embedder")


def test_a_gated_repository_says_where_to_consent_and_opens_to_a_token(
    fake_hub: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.publish("a/b", repository())
    fake_hub.gated.add("a/b")
    with pytest.raises(
        ModelError, match=rf"consent to their terms\. Give it at {hub.endpoint}/a/b, .*HF_TOKEN"
    ):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.fetch({"embedder": Reference("a/b")}, needed="embedder")
    assert "Bearer hf_secret" in fake_hub.tokens


def test_a_missing_sibling_leaves_one_and_is_not_asked_for_again_at_once(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish(EMBEDDER, repository())
    wanted = {"embedder": Reference(EMBEDDER), "reranker": Reference(RERANKER)}
    assert set(hub.fetch(wanted, needed="embedder")) == {"embedder"}
    fake_hub.asked.clear()
    assert set(hub.fetch(wanted, needed="embedder")) == {"embedder"}
    assert fake_hub.asked == []
    with pytest.raises(ModelNotFoundError):
        hub.fetch(wanted, needed="reranker")


def test_a_disk_that_is_too_small_is_found_out_before(
    fake_hub: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    fake_hub.publish("a/b", repository())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9, 100_000))
    message = r"a/b: 131\.\d kB are to be downloaded, but .*cache has 100\.0 kB free\. .*HF_HOME=/some/folder"
    with pytest.raises(ModelError, match=message):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder")
    assert not any(path.startswith("/cdn/") for _, path, _ in fake_hub.asked)


def test_a_disk_without_room_for_the_export_is_found_out_before(
    fake_hub: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "exports"))
    usage = type(shutil.disk_usage("/"))
    fake_hub.publish("a/b", repository())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**10, 10**10, 10**9))
    message = (
        r"a/b: 131\.\d kB are to be downloaded, and their export takes another 1\.0 GB "
        r"\(1\.0 GB together\), but .*exports has 1\.0 GB free\. Nothing was downloaded\. "
        r".*QVL_CACHE_DIR=/some/folder"
    )
    with pytest.raises(ModelError, match=message):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder", export_bytes=lambda: 10**9)
    assert not any(path.startswith("/cdn/") for _, path, _ in fake_hub.asked)
    assert hub.fetch({"embedder": Reference("a/b")}, needed="embedder", export_bytes=lambda: 10**8)


def test_the_export_of_a_published_model_is_counted_before_its_download(
    fake_hub: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    for name in (EMBEDDER, RERANKER):
        fake_hub.publish(name, repository())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**10, 10**10, 2 * 10**9))
    monkeypatch.setattr(Hub, "of_this_machine", classmethod(lambda cls: hub))
    for model in ("2b", EMBEDDER, f"{EMBEDDER}@main"):
        with pytest.raises(ModelError, match=r"export takes another 2\.6 GB"):
            resolve(model, precision="int8")
    assert not any(path.startswith("/cdn/") for _, path, _ in fake_hub.asked)


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    fake_hub: FakeHub, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"where a folder should be")
    fake_hub.publish("a/b", repository())
    blocked = Hub(hub.endpoint, tmp_path / "file" / "cache", offline=False)
    with pytest.raises(ModelError) as caught:
        blocked.fetch({"embedder": Reference("a/b")}, needed="embedder")
    assert f"{tmp_path / 'file' / 'cache'} cannot be written (Not a directory)" in str(caught.value)
    assert "HF_HOME=/some/folder" in str(caught.value)
    assert "Errno" not in str(caught.value)


def test_a_repository_without_safetensors_is_no_checkpoint(fake_hub: FakeHub, hub: Hub) -> None:
    files = repository()
    fake_hub.publish("a/b", {name: files[name] for name in ("config.json", "pytorch_model.bin")})
    with pytest.raises(ModelNotFoundError, match="a/b: holds no safetensors weights"):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder")


def test_a_repository_without_a_tokenizer_is_no_checkpoint(fake_hub: FakeHub, hub: Hub) -> None:
    files = repository()
    del files["tokenizer.json"]
    fake_hub.publish("a/b", files)
    with pytest.raises(ModelNotFoundError, match=r"a/b: its repository lacks tokenizer\.json"):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder")


def test_no_network_is_an_error_or_the_copy_that_is_there(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository())
    unplugged = Hub("http://127.0.0.1:9", hub.cache, offline=False)  # the discard port: nobody listens
    with pytest.raises(ModelError) as caught:
        unplugged.fetch({"embedder": Reference("a/b", "main")}, needed="embedder")
    assert str(caught.value) == (
        "a/b@main: is not downloaded, and cannot be downloaded now: "
        "cannot reach http://127.0.0.1:9 (no network?). "
        "Check the network and try again; `tiny` needs no download."
    )
    assert caught.value.__cause__ is not None
    assert "127.0.0.1" in str(caught.value.__cause__.__cause__)  # the details are in the chain
    found = hub.fetch({"embedder": Reference("a/b")}, needed="embedder")
    assert unplugged.fetch({"embedder": Reference("a/b", "main")}, needed="embedder") == found


def test_offline_says_what_is_missing_and_what_to_do(hub: Hub) -> None:
    with pytest.raises(
        ModelError, match=r"a/b: is not downloaded, and HF_HUB_OFFLINE forbids downloads\. Unset"
    ):
        offline(hub).fetch({"embedder": Reference("a/b")}, needed="embedder")


def test_who_listens_may_stop_a_download(fake_hub: FakeHub, hub: Hub) -> None:
    fake_hub.publish("a/b", repository())

    def stop(step: str, _fraction: float) -> None:
        if step.startswith("downloading"):
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder", progress=stop)


def test_who_listens_may_stop_in_the_middle_of_a_file(
    fake_hub: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_meter, "_EVERY_S", 0.02)
    fake_hub.publish("a/b", repository())
    fake_hub.stall_after[WEIGHTS] = 3 * CHUNK
    partial = hub.cache / "models--a--b" / "blobs" / f"{sha256(repository()[WEIGHTS])}.incomplete"

    def stop(_step: str, _fraction: float) -> None:
        if partial.is_file() and partial.stat().st_size == 3 * CHUNK:
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        hub.fetch({"embedder": Reference("a/b")}, needed="embedder", progress=stop)
    assert not [thread for thread in threading.enumerate() if thread.name == "download-meter"]
    fake_hub.stall_after.clear()
    assert hub.fetch({"embedder": Reference("a/b")}, needed="embedder")
    assert fake_hub.fetched(WEIGHTS) == [None, f"bytes={3 * CHUNK}-"]


# ---- a cache that another program filled ----


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("tokenizer.json", "tokenizer.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("model-00002-of-00003.safetensors", "model-00002-of-00003.safetensors"),
        ("model.safetensors.index.json", "model.safetensors"),
    ],
)
def test_a_partial_copy_of_another_program_is_not_taken_for_whole(hub: Hub, gone: str, named: str) -> None:
    fill_cache(hub.cache, "a/b", repository(shards=3))
    assert offline(hub).fetch({"embedder": Reference("a/b")}, needed="embedder")
    (hub.cache / "models--a--b" / "snapshots" / COMMIT / gone).unlink()
    with pytest.raises(ModelError, match=rf"a/b: is only partly downloaded \({named} missing\)"):
        offline(hub).fetch({"embedder": Reference("a/b")}, needed="embedder")


def test_a_repositorys_or_snapshots_folder_finds_the_pair(hub: Hub) -> None:
    fill_cache(hub.cache, EMBEDDER, repository(1))
    fill_cache(hub.cache, RERANKER, repository(2))
    for repository_name in (EMBEDDER, RERANKER):
        root = hub.cache / f"models--{repository_name.replace('/', '--')}"
        for folder in (root, root / "snapshots" / COMMIT):
            found = find_checkpoints(folder)
            assert {role: (one.name, one.revision) for role, one in found.items()} == {
                "embedder": (EMBEDDER, COMMIT),
                "reranker": (RERANKER, COMMIT),
            }
    assert list(find_checkpoints(root, pair=False)) == ["reranker"]


def fill_cache(cache: Path, name: str, files: dict[str, bytes]) -> None:
    """A Hugging Face cache as a download leaves it."""
    root = cache / f"models--{name.replace('/', '--')}"
    for file, content in files.items():
        blob = root / "blobs" / (sha256(content) if is_large(file) else git_hash(content))
        link = root / "snapshots" / COMMIT / file
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT, encoding="ascii")


# ---- the variables of huggingface_hub ----


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`find_checkpoints` in a process of its own, where variables are read anew."""

    def ask(model: str, **variables: str) -> dict[str, Any]:
        code = (
            "import sys, json\n"
            "from qvl_local.runtime.model.checkpoints import find_checkpoints\n"
            "from qvl_local.runtime.errors import QvlError\n"
            "steps = []\n"
            "try:\n"
            "    found = find_checkpoints(sys.argv[1], progress=lambda step, part: steps.append(step))\n"
            "    found = {role: [one.name, one.revision, str(one.path)] for role, one in found.items()}\n"
            "    print(json.dumps(found | {'steps': steps}))\n"
            "except QvlError as error:\n"
            "    print(json.dumps({'error': type(error).__name__, 'message': str(error)}))\n"
        )
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "QVL_"))}
        own = {"HF_HOME": str(tmp_path / "hf"), "QVL_CACHE_DIR": str(tmp_path / "own")}
        done = subprocess.run(
            [sys.executable, "-c", code, model],
            env=kept | own | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""  # no bars of another library over ours
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return ask


def test_endpoint_home_and_offline_mean_what_they_mean_everywhere(
    fake_hub: FakeHub, ask: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    fake_hub.publish(EMBEDDER, repository(1))
    fake_hub.publish(RERANKER, repository(2))
    refused = ask("2b", HF_ENDPOINT=fake_hub.url, HF_HUB_OFFLINE="1")
    assert refused["error"] == "ModelError"
    assert "HF_HUB_OFFLINE" in refused["message"]
    assert fake_hub.asked == []
    found = ask("2B@main", HF_ENDPOINT=fake_hub.url, HF_TOKEN="hf_mine")
    assert found["steps"][-1].startswith("downloading")
    assert "Bearer hf_mine" in fake_hub.tokens
    snapshots = tmp_path / "hf" / "hub" / "models--Qwen--Qwen3-VL-Embedding-2B" / "snapshots"
    assert found["embedder"] == [EMBEDDER, COMMIT, str(snapshots / COMMIT)]
    assert found["reranker"][:2] == [RERANKER, COMMIT]
    again = ask(RERANKER, HF_HUB_OFFLINE="1")
    assert again["embedder"] == found["embedder"]
    assert again["reranker"] == found["reranker"]


def test_a_checkpoint_from_the_hub_is_exported_and_embeds_as_the_same_one_on_the_disk(
    fake_hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_checkpoint: Callable[..., Path],
) -> None:
    folder = random_checkpoint(layers=2, vision_depth=2, deepstack=(1,))
    fake_hub.publish("someone/Tuned-Embedding", {file.name: file.read_bytes() for file in folder.iterdir()})
    here = Hub(fake_hub.url, tmp_path / "cache", offline=False)
    monkeypatch.setattr(Hub, "of_this_machine", lambda: here)
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "own"))
    told: list[str] = []
    embedder = Embedder.open("someone/Tuned-Embedding", progress=lambda step, _part: told.append(step))
    source = embedder.bundle.part("embedder").source
    assert (source.name, source.revision) == ("someone/Tuned-Embedding", COMMIT)
    assert told[0] == "asking the hub for someone/Tuned-Embedding"
    assert {"downloading", "reading", "writing", "checking", "finishing"} <= {
        step.partition(" ")[0] for step in told
    }
    texts = [{"text": "two dogs"}, {"text": "a red boat at night"}]
    assert np.array_equal(embedder.embed(texts), Embedder.open(folder).embed(texts))

    fake_hub.asked.clear()
    told.clear()
    assert Embedder.open("someone/Tuned-Embedding", progress=lambda step, _part: told.append(step)).max_dims
    assert fake_hub.asked == []
    assert told == []

    # With another recipe what was downloaded is exported anew, and the old export is told.
    recipes = shutil.copytree(bundle_cache._recipes(), tmp_path / "recipes")
    with (recipes / "fp32.toml").open("a", encoding="utf-8") as recipe:
        recipe.write("[tolerance]\nmax_abs_diff = 0.5\nmin_cosine = 0.5\n")
    monkeypatch.setattr(bundle_cache, "_recipes", lambda: recipes)
    anew = Embedder.open("someone/Tuned-Embedding", progress=lambda step, _part: told.append(step))
    assert anew.bundle.path != embedder.bundle.path
    assert fake_hub.asked == []
    assert [step for step in told if step.endswith(".") and str(embedder.bundle.path) in step] == told[:1]
    assert embedder.bundle.path in [old.folder for old in bundle_cache.outdated_bundles()]
    assert np.array_equal(anew.embed(texts), embedder.embed(texts))
