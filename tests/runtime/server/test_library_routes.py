"""Folders, status, indexing and failures over HTTP, on a real library of the test's own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.library import devices, scanner
from qvl_local.runtime.library.store import Store
from qvl_local.runtime.server import file_manager
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.folders import checked_folder
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings
from starlette.testclient import TestClient

PATIENCE_S = 120.0


@pytest.fixture
def album(tmp_path: Path, media: Any) -> Path:
    media.photo(tmp_path / "album" / "red.jpg", (200, 30, 30))
    media.photo(tmp_path / "album" / "sub" / "blue.jpg", (30, 30, 200), seed=1)
    (tmp_path / "album" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    return tmp_path / "album"


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str
) -> Iterator[tuple[TestClient, Service]]:
    """One started service for all tests; changes settle sooner than for people."""
    library = tmp_path_factory.mktemp("routes") / "library"
    settings = ServerSettings(library=library, model=tiny_bundle, port=0)
    with Service.open(settings) as service:
        service.watch._look_s = service.watch._settling.quiet_s = 0.2
        service.start()
        with TestClient(
            build_app(settings, service), base_url="http://localhost:8377", client=("127.0.0.1", 5)
        ) as client:
            yield client, service


@pytest.fixture
def served(running: tuple[TestClient, Service]) -> Iterator[tuple[TestClient, Service]]:
    """The service over an empty library, which it is again afterwards."""
    yield running
    _, service = running
    service.jobs.stop()
    for folder in service.library.folders():
        service.jobs.remove_folder(folder.id)
    until(lambda: not service.watch._roots and not service.watch._settling)
    service.jobs.stop()
    until(service.jobs.is_idle)
    assert service.library.folders() == ()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def add(served: tuple[TestClient, Service], folder: Path) -> None:
    client, service = served
    answer = client.post("/api/folders", json={"path": str(folder)})
    assert (answer.status_code, answer.json()) == (202, {"path": str(folder)})
    listed = client.get("/api/folders").json()["folders"]
    assert str(folder) in [one["path"] for one in listed]  # at once
    until(service.jobs.is_idle)


def test_a_folder_is_added_listed_and_removed(served: tuple[TestClient, Service], album: Path) -> None:
    client, service = served
    add(served, album)
    (folder,) = client.get("/api/folders").json()["folders"]
    assert (folder["name"], folder["path"], folder["items"]) == ("album", str(album), 2)
    assert (folder["available"], folder["note"]) == (True, None)
    status = client.get("/api/status").json()
    assert (status["items"], status["photos"], status["failed"]) == (2, 2, 1)
    assert status["indexing"]["state"] == "idle"
    assert status["model"]["state"] == "ready"
    assert client.delete(f"/api/folders/{folder['id']}").json() == {"removed": 2}
    assert client.get("/api/folders").json() == {"folders": []}
    assert client.delete(f"/api/folders/{folder['id']}").status_code == 404
    assert sorted(path.name for path in album.iterdir()) == ["broken.jpg", "red.jpg", "sub"]
    until(lambda: client.get("/api/status").json()["items"] == 0)
    assert service.jobs.is_idle()


def test_what_cannot_be_searched_is_listed_by_name(served: tuple[TestClient, Service], album: Path) -> None:
    client, _ = served
    add(served, album)
    (failure,) = client.get("/api/failures").json()["failures"]
    assert (failure["name"], failure["path"]) == ("broken.jpg", str(album / "broken.jpg"))
    assert failure["error"]


def test_what_happens_in_a_folder_is_followed(
    served: tuple[TestClient, Service], album: Path, media: Any
) -> None:
    client, service = served
    add(served, album)

    def names() -> set[str]:
        found = service.library.search("a photo", limit=50, rerank=False).hits
        return {Path(hit.path).name for hit in found}

    until(lambda: client.get("/api/status").json()["watching"])
    # Whether the system has begun to tell is not to be seen; something that happens again and again will be.
    number = 0

    def is_followed() -> bool:
        nonlocal number
        number += 1
        media.photo(album / f"probe{number}.jpg", (90, 5 * number % 255, 90), seed=1000 + number)
        time.sleep(0.5)
        return any(name.startswith("probe") for name in names())

    until(is_followed)
    shutil.move(album / "red.jpg", album / "sub" / "moved.jpg")
    until(lambda: "moved.jpg" in names() and "red.jpg" not in names())
    (album / "sub" / "moved.jpg").unlink()
    until(lambda: "moved.jpg" not in names())
    (album / ".qvlignore").write_text("sub/\n")
    until(lambda: "blue.jpg" not in names())


def test_a_folder_that_is_away_is_said_and_kept(served: tuple[TestClient, Service], album: Path) -> None:
    client, _ = served
    add(served, album)
    album.rename(album.with_name("away"))
    until(lambda: not client.get("/api/folders").json()["folders"][0]["available"])
    (folder,) = client.get("/api/folders").json()["folders"]
    assert "disk" in folder["note"]
    assert folder["items"] == 2


class PretendedDisk:
    """Stands in for mounting, which only root may do: a folder that is said to lie on a device of its own."""

    def __init__(self, folder: Path, aside: Path) -> None:
        self.folder = folder
        self._aside = aside
        self._is_mounted = True

    def device_of(self, path: str) -> int:
        device = Path(path).stat().st_dev
        return -1 if self._is_mounted and Path(path).is_relative_to(self.folder) else device

    def unplug(self) -> None:
        self._is_mounted = False
        self.folder.rename(self._aside)
        self.folder.mkdir()

    def plug(self) -> None:
        self.folder.rmdir()
        self._aside.rename(self.folder)
        self._is_mounted = True


def test_a_disk_below_a_folder_comes_and_goes(
    served: tuple[TestClient, Service], album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = served
    disk = PretendedDisk(album / "sub", tmp_path / "aside")
    for module in (devices, scanner):
        monkeypatch.setattr(module, "device_of", disk.device_of)

    def note() -> Any:
        return client.get("/api/folders").json()["folders"][0]["note"]

    add(served, album)
    until(lambda: str(disk.folder) in service.watch._roots)
    disk.unplug()
    until(lambda: note() is not None)
    assert note() == "The disk at sub is not connected. What is known of the files there is kept."
    disk.plug()
    until(lambda: note() is None)
    until(service.jobs.is_idle)
    assert client.get("/api/status").json()["items"] == 2


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "Give the path"),
        ("  ", "Give the path"),
        ("relative/folder", "whole path"),
        ("/", "whole computer"),
        ("/no/such/folder", "no such folder"),
        ("{album}/red.jpg", "this is a file"),
        ("/proc/self", "belongs to the system"),
        ("{library}", "keeps what it knows"),
        ("/tmp/\0x", "not the path"),
        ("x" * 5000, "not the path"),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused_in_plain_words(
    served: tuple[TestClient, Service], album: Path, path: str, says: str
) -> None:
    client, service = served
    asked = path.format(album=album, library=service.library.path)
    answer = client.post("/api/folders", json={"path": asked})
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]
    assert service.jobs.is_idle()
    assert service.library.folders() == ()


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: str) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refused)  # the tests may run as root, whom nothing is refused
    with pytest.raises(Exception, match="may not be read"):
        checked_folder(str(tmp_path), library=tmp_path / "library", known=[])


def test_nested_and_repeated_folders(served: tuple[TestClient, Service], album: Path) -> None:
    client, service = served
    add(served, album / "sub")
    inside = client.post("/api/folders", json={"path": str(album / "sub" / ".." / "sub")})
    assert inside.status_code == 202  # the same again: it is looked at again
    add(served, album)  # around it
    until(service.jobs.is_idle)
    folders = client.get("/api/folders").json()["folders"]
    assert [(folder["name"], folder["items"]) for folder in folders] == [("sub", 1), ("album", 1)]
    (album / "other").mkdir()
    answer = client.post("/api/folders", json={"path": str(album / "other")})
    assert answer.status_code == 400
    assert "searched already" in answer.json()["error"]["message"]
    (sub, around) = folders
    assert client.delete(f"/api/folders/{around['id']}").json() == {"removed": 1}
    assert [folder["id"] for folder in client.get("/api/folders").json()["folders"]] == [sub["id"]]


def test_a_folder_is_chosen_without_typing(
    served: tuple[TestClient, Service], album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = served
    monkeypatch.setenv("HOME", str(album.parent))
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: album.parent))
    (album / ".hidden").mkdir()
    places = client.get("/api/places").json()["places"]
    (home,) = [place for place in places if place["kind"] == "home"]
    below = client.get(f"/api/places/{home['id']}").json()["places"]
    (chosen,) = [place for place in below if place["name"] == "album"]
    assert [place["name"] for place in client.get(f"/api/places/{chosen['id']}").json()["places"]] == ["sub"]
    answer = client.post("/api/folders", json={"place": chosen["id"]})
    assert (answer.status_code, answer.json()["path"]) == (202, str(album))
    until(service.jobs.is_idle)
    assert len(client.get("/api/folders").json()["folders"]) == 1
    assert client.get("/api/places/unknown").status_code == 404
    assert client.post("/api/folders", json={"place": "unknown"}).status_code == 404
    assert client.post("/api/folders", json={"place": chosen["id"], "path": "/tmp"}).status_code == 400


def test_indexing_is_paused_and_goes_on(served: tuple[TestClient, Service], album: Path) -> None:
    client, service = served
    answer = client.post("/api/index", json={"action": "pause"})
    assert (answer.status_code, answer.json()["state"]) == (200, "paused")
    client.post("/api/folders", json={"path": str(album)})
    assert client.get("/api/status").json()["indexing"]["state"] == "paused"
    client.post("/api/index", json={"action": "resume"})
    until(lambda: client.get("/api/status").json()["items"] == 2)
    for action in ("stop", "start"):
        assert client.post("/api/index", json={"action": action}).status_code == 200
    until(service.jobs.is_idle)
    assert client.post("/api/index", json={"action": "explode"}).status_code == 400


def test_a_library_that_another_process_indexes_is_said(
    served: tuple[TestClient, Service], album: Path
) -> None:
    client, service = served
    until(service.jobs.is_idle)
    with Store.open(service.library.path, mode="write"):
        client.post("/api/folders", json={"path": str(album)})
        until(lambda: client.get("/api/status").json()["indexing"]["error"] is not None)
        indexing = client.get("/api/status").json()["indexing"]
        assert "is indexing into this library" in indexing["error"]
        assert indexing["retry_s"] > 0


def test_what_another_process_indexes_shows(served: tuple[TestClient, Service], album: Path) -> None:
    client, service = served
    add(served, album)
    before = client.get("/api/status").json()
    with Store.open(service.library.path, mode="write") as store:
        (hit,) = service.library.search("red", limit=1, rerank=False).hits
        store.remove([hit.media_id])
    after = client.get("/api/status").json()
    assert after["generation"] > before["generation"]
    assert (before["items"], after["items"]) == (2, 1)


def test_a_file_is_shown_by_its_id_only_to_who_sits_here(
    served: tuple[TestClient, Service], album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = served
    add(served, album)
    shown: list[str] = []
    monkeypatch.setattr(file_manager, "show", shown.append)
    hit = service.library.search("red", limit=1, rerank=False).hits[0]
    assert client.post("/api/open", json={"id": hit.media_id}).status_code == 204
    assert shown == [hit.path]
    assert client.post("/api/open", json={"id": 999_999}).status_code == 404
    Path(hit.path).unlink()
    assert client.post("/api/open", json={"id": hit.media_id}).status_code in (404,)
    assert client.post("/api/open", json={"path": "/etc/passwd"}).status_code == 400
    with TestClient(client.app, base_url="http://localhost:8377", client=("192.0.2.7", 5)) as stranger:
        assert stranger.post("/api/open", json={"id": hit.media_id}).status_code == 403
    remote = replace(service.settings, host="0.0.0.0", token="a token of twenty letters")
    monkeypatch.setattr(service, "settings", remote)
    assert client.post("/api/open", json={"id": hit.media_id}).status_code == 403
    assert len(shown) == 1


def test_other_sites_can_neither_add_nor_index_nor_open(
    served: tuple[TestClient, Service], album: Path
) -> None:
    client, service = served
    for path, body in (
        ("/api/folders", {"path": str(album)}),
        ("/api/index", {"action": "stop"}),
        ("/api/open", {"id": 1}),
    ):
        answer = client.post(path, json=body, headers={"Origin": "http://evil.example"})
        assert answer.status_code == 403, path
    assert service.library.folders() == ()
