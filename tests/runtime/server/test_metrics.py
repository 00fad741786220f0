"""Counts and times as Prometheus reads them, and what they must not tell."""

from __future__ import annotations

import re
from typing import Any

from qvl_local.runtime.server.metrics import Metrics, resident_bytes
from starlette.testclient import TestClient

_SAMPLE = re.compile(
    r'[a-z_]+(\{[a-z_]+="(?:[^"\\\n]|\\.)*"(,[a-z_]+="(?:[^"\\\n]|\\.)*")*\})? (-?\d+(\.\d+)?(e-?\d+)?|\+Inf)'
)


def parsed(text: str) -> dict[str, float]:
    """Every sample by its name and labels; fails for a line that Prometheus would not read."""
    samples: dict[str, float] = {}
    kinds: dict[str, str] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            assert _SAMPLE.fullmatch(line), line
            name = re.split(r"[{ ]", line)[0]
            assert re.sub(r"_(bucket|sum|count)$", "", name) in kinds or name in kinds, line
            key, _, value = line.rpartition(" ")
            assert key not in samples
            samples[key] = float(value)
    return samples


def test_counters_histograms_and_gauges() -> None:
    metrics = Metrics()
    metrics.count("a_total", "Things.", kind="x")
    metrics.count("a_total", "Things.", by=2, kind='q"uo\\te\n')
    for seconds in (0.001, 0.3, 99.0):
        metrics.observe("b_seconds", "Times.", seconds, step="y")
    metrics.gauge("c", "One.", lambda: 3.5)
    metrics.gauge("d", "Several.", lambda: {(("kind", "x"),): 1.0})
    metrics.gauge("e", "Unknown here.", lambda: None)
    samples = parsed(metrics.render())
    assert samples['a_total{kind="x"}'] == 1
    assert samples['a_total{kind="q\\"uo\\\\te\\n"}'] == 2
    assert samples['b_seconds_bucket{step="y",le="0.005"}'] == 1
    assert samples['b_seconds_bucket{step="y",le="0.5"}'] == 2
    assert samples['b_seconds_bucket{step="y",le="60"}'] == 2
    assert samples['b_seconds_bucket{step="y",le="+Inf"}'] == samples['b_seconds_count{step="y"}'] == 3
    assert samples['b_seconds_sum{step="y"}'] == 99.301
    assert (samples["c"], samples['d{kind="x"}']) == (3.5, 1)
    assert "e" not in samples


def test_a_server_tells_how_it_is_doing(client: TestClient) -> None:
    def read() -> dict[str, float]:
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "my-secret" not in answer.text
        return parsed(answer.text)

    before = read()
    client.get("/api/search", params={"q": "my-secret words"})
    client.get("/api/search", params={"q": "my-secret words", "camera": "my-secret"})
    client.get("/my-secret-path")
    client.get("/health", headers={"host": "my-secret.example"})
    after = read()

    def grown(key: str) -> float:
        return after[key] - before.get(key, 0)

    assert grown('qvl_requests_total{route="/api/search",status="200"}') == 2
    assert grown('qvl_requests_total{route="(none)",status="404"}') == 1
    assert grown('qvl_requests_total{route="(none)",status="421"}') == 1
    assert grown('qvl_request_seconds_count{route="/api/search"}') == 2
    assert grown('qvl_search_seconds_count{step="find"}') == 2
    assert grown('qvl_search_seconds_count{step="rerank"}') == 1, "nothing to look at in the other"
    assert after["qvl_searches_running"] == 0
    assert after["qvl_resident_bytes"] > 10e6
    assert after['qvl_items{kind="photo"}'] == 24
    assert after['qvl_model{state="ready"}'] == 1
    assert after['qvl_indexing{state="idle"}'] == 1
    assert {"qvl_indexing_done", "qvl_failed_files", "qvl_listeners"} <= set(after)


def test_memory_is_known_here() -> None:
    held = resident_bytes()
    assert held is not None
    assert 1e6 < held < 1e12


def test_health_needs_no_library(client: TestClient, service: Any) -> None:
    assert client.get("/health").json() == {
        "status": "ok",
        "version": client.get("/api/status").json()["version"],
    }
