"""Who may ask: names of the server, other sites' pages, the token, and what browsers are told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from qvl_local import desktop
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.server.app import build_app
from qvl_local.runtime.server.security import Sessions, host_name, own_names
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.settings import ServerSettings, is_loopback
from starlette.testclient import TestClient

TOKEN = "a-token-of-the-tests-0123456789"
MEDIA = (
    "/api/search?q=dog&rerank=false",
    "/thumb/1",
    "/file/1",
    "/api/status",
    "/api/events?q=dog&rerank=false",
)


def open_settings(service: Service) -> ServerSettings:
    return ServerSettings(library=service.settings.library, host="0.0.0.0", token=TOKEN)


@pytest.fixture
def locked(service: Service) -> FastAPI:
    """The application as other machines would reach it."""
    return build_app(open_settings(service), service)


@pytest.fixture
def stranger(locked: FastAPI) -> Iterator[TestClient]:
    """Somebody on another machine, without the token."""
    with TestClient(locked, base_url="http://192.168.1.20:8377", client=("192.168.1.77", 40_000)) as client:
        yield client


# Names


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8377", "127.0.0.1:1", "[::1]", "[::1]:8377", "LOCALHOST:9"]
)
def test_the_servers_own_names_are_let_in(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8377",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "192.168.1.20",
        "localhost:8377:1",
        "localhost:x",
        "[::1",
        "[::1]x",
        "",
        "2130706433",
        "0.0.0.0",
    ],
)
def test_a_page_that_points_its_own_name_at_this_machine_is_turned_away(
    client: TestClient, host: str
) -> None:
    for address in ("/", "/health", *MEDIA):
        answer = client.get(address, headers={"host": host})
        assert (answer.status_code, answer.json()["error"]["type"]) == (421, "HostError")


def test_on_all_addresses_any_address_of_the_machine_is_its_name(locked: FastAPI) -> None:
    with TestClient(locked, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        for host, status in (("192.168.1.20:8377", 200), ("[fe80::1]", 200), ("evil.example", 421)):
            assert client.get("/api/status", headers={"host": host}).status_code == status


def test_names_that_the_owner_gave_are_let_in(service: Service) -> None:
    settings = ServerSettings(
        library=service.settings.library, host="10.1.2.3", token=TOKEN, allowed_hosts=("Pi.home",)
    )
    assert {"pi.home", "10.1.2.3", "localhost"} <= own_names(settings)
    assert "pi.home" not in own_names(service.settings)
    assert host_name("Pi.Home:80") == "pi.home"


# Other sites' pages


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9999", "http://localhost.evil.example"]
)
def test_other_sites_pages_change_nothing(client: TestClient, origin: str) -> None:
    for method, address, body in (
        ("POST", "/api/search", {"q": "dog"}),
        ("POST", "/api/index", {"action": "stop"}),
        ("POST", "/api/folders", {"path": "/"}),
        ("DELETE", "/api/folders/1", None),
        ("POST", "/api/open", {"id": 1}),
        ("POST", "/api/zip", {"ids": [1]}),
        ("POST", "/api/picture", None),
        ("POST", "/api/session", {"token": TOKEN}),
        ("POST", "/v1/embeddings", {"input": "dog"}),
        ("POST", "/v1/rerank", {"query": "dog", "documents": ["dog"]}),
    ):
        answer = client.request(method, address, json=body, headers={"origin": origin})
        assert answer.status_code == 403, address
        assert "OriginError" in answer.text


@pytest.mark.parametrize("address", MEDIA)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "unheard-of"])
def test_other_sites_pages_load_nothing(client: TestClient, address: str, site: str) -> None:
    loads = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert client.get(address, headers=loads).status_code == 403
    visits = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get(address, headers=visits).status_code == 403
    assert client.get(address, headers={"referer": "https://evil.example/"}).status_code == 403


def test_a_link_on_another_site_opens_the_page_and_a_frame_does_not(client: TestClient) -> None:
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=visit).status_code != 403
    assert client.get("/", headers=visit | {"sec-fetch-dest": "iframe"}).status_code == 403
    assert client.post("/", headers=visit).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "http://localhost:8377"}],
)
def test_the_page_and_programs_are_let_in(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/api/search", json={"q": "dog", "rerank": False}, headers=headers)
    assert answer.status_code == 200
    assert client.get(f"/thumb/{answer.json()['results'][0]['id']}", headers=headers).status_code == 200


def test_no_other_origin_is_ever_allowed(client: TestClient) -> None:
    preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answers = [
        client.options("/api/search", headers=preflight),
        client.options("/api/search"),
        client.get("/api/status", headers={"origin": "http://localhost:8377"}),
    ]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]


# The token


@pytest.mark.parametrize(
    "address", [*MEDIA, "/metrics", "/openapi.json", "/v1/models", "/api/folders", "/nothing"]
)
def test_without_the_token_there_is_nothing_to_see(stranger: TestClient, address: str) -> None:
    answer = stranger.get(address)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert stranger.get(address, headers={"authorization": "Bearer wrong"}).status_code == 401


@pytest.mark.parametrize("name", ["token", "access_token", "key", "authorization"])
def test_a_token_in_an_address_counts_for_nothing(stranger: TestClient, name: str) -> None:
    assert stranger.get("/api/status", params={name: TOKEN}).status_code == 401


def test_the_bearer_is_let_in(stranger: TestClient) -> None:
    for scheme in ("Bearer", "bearer"):
        answer = stranger.get("/api/status", headers={"authorization": f"{scheme} {TOKEN}"})
        assert answer.status_code == 200
    assert stranger.get("/api/status", headers={"authorization": f"Basic {TOKEN}"}).status_code == 401


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_do_not_get(stranger: TestClient) -> None:
    assert stranger.get("/health").status_code == 200
    assert stranger.post("/api/session", json={"token": "wrong"}).status_code == 401
    answer = stranger.post("/api/session", json={"token": TOKEN})
    assert (answer.status_code, answer.content) == (204, b"")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert stranger.get("/api/status").status_code == 200
    name, value = cookie.split(";")[0].split("=", 1)
    stranger.cookies.clear()
    forged = f"{int(value.split('.')[0]) + 1}.{value.split('.')[1]}"
    for wrong in (forged, "x", "1.1", value[:-1], f"{'9' * 40}.a", "\u0663.a"):
        headers = {"cookie": f"{name}={wrong}".encode()}
        assert stranger.get("/api/status", headers=headers).status_code == 401, wrong


def test_a_session_ends_with_its_time_and_with_its_token() -> None:
    sessions = Sessions(TOKEN)
    cookie = sessions.cookie(now=1_000.0)
    assert sessions.is_cookie(cookie, now=1_000.0 + 29 * 86_400)
    assert not sessions.is_cookie(cookie, now=1_000.0 + 31 * 86_400)
    assert not Sessions(TOKEN + "x").is_cookie(cookie, now=1_000.0)
    assert not Sessions(None).is_cookie(cookie, now=1_000.0)
    assert not Sessions(None).is_token("")


def test_who_guesses_has_to_wait(service: Service) -> None:
    app = build_app(open_settings(service), service)
    with TestClient(app, base_url="http://192.168.1.20", client=("192.168.1.66", 1)) as guesser:
        statuses = [
            guesser.get("/api/status", headers={"authorization": f"Bearer {i}"}).status_code
            for i in range(12)
        ]
        assert statuses == [401] * 10 + [429] * 2
        late = guesser.get("/api/status", headers={"authorization": f"Bearer {TOKEN}"})
        assert (late.status_code, int(late.headers["retry-after"]) > 0) == (429, True)
        assert guesser.post("/api/session", json={"token": TOKEN}).status_code == 429
    with TestClient(app, base_url="http://192.168.1.20", client=("192.168.1.67", 1)) as other:
        assert other.get("/api/status", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_another_address_than_loopback_needs_a_token(service: Service) -> None:
    library = service.settings.library
    for host in ("0.0.0.0", "::", "192.168.1.2", "", "my-laptop", "0"):
        with pytest.raises(InputError, match="token"):
            ServerSettings(library=library, host=host)
    with pytest.raises(InputError, match="guessed"):
        ServerSettings(library=library, host="0.0.0.0", token="short")
    assert ServerSettings(library=library).host == "127.0.0.1"
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"))


# What browsers are told


def test_every_response_tells_browsers_to_keep_to_themselves(client: TestClient) -> None:
    answers = [
        client.get("/"),
        client.get("/health"),
        client.get("/thumb/1"),
        client.get("/nothing"),
        client.get("/health", headers={"host": "evil.example"}),
        client.get("/thumb/1", headers={"sec-fetch-site": "cross-site"}),
        client.post("/api/search", content=b"{"),
    ]
    for answer in answers:
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "camera=()" in headers["permissions-policy"]
        assert re.match(r"default-src 'none'", headers["content-security-policy"])
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers
    assert client.get("/api/status").headers["cache-control"] == "no-store"


def test_the_page_may_run_its_own_scripts_only(service: Service) -> None:
    page = Path(next(iter(desktop.__path__))) / "page"
    settings = ServerSettings(library=service.settings.library, page=page)
    with TestClient(build_app(settings, service), base_url="http://localhost") as client:
        answer = client.get("/")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = dict(
            part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["script-src"] == "'self'"
        assert policy["connect-src"] == "'self'"
        assert policy["base-uri"] == "'none'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+\s*=|javascript:|\sstyle=", answer.text), (
            "nothing inline"
        )
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", answer.text), "nothing from elsewhere"
        for script in re.findall(r'(?:src|href)="([^"#]+)"', answer.text):
            assert client.get(script).status_code == 200, script


def test_the_page_makes_no_markup_of_text() -> None:
    """Names come from anywhere. Trusted Types make browsers enforce this as well."""
    scripts = sorted((Path(next(iter(desktop.__path__))) / "page").glob("*.js"))
    assert scripts
    makers = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
        r"|\beval\b|new Function|srcdoc"
    )
    for script in scripts:
        assert not re.search(makers, script.read_text(encoding="utf-8")), script.name


def test_the_description_of_the_api_is_there_and_loads_nothing(client: TestClient) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    description = client.get("/openapi.json").json()
    assert "/api/search" in description["paths"]
    assert "cdn" not in json.dumps(description).lower()


def test_websockets_are_refused(client: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/events"):
        pass


def test_the_framework_reports_to_nobody(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    app = build_app(service.settings, service)
    telemetry = getattr(app, "_native_telemetry", None)
    assert telemetry is None or not telemetry.enabled()
