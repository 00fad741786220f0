"""The benchmark of the page runs at toy size in a real browser, and times its steps in their order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_small_run_times_every_step(tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = [sys.executable, "-m", "benchmarks.page_latency", "--photos", "6", "--clips", "0"]
    command += ["--queries", "2", "--work", str(tmp_path / "work"), "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr

    written = json.loads((results / "page_latency.json").read_text(encoding="utf-8"))
    assert written["library"] == {"photos": 6, "videos": 0, "segments": 6}
    assert written["tiles_in_the_document"] == 6
    steps = [written[name] for name in ("first_results", "pictures", "reranked")]
    assert all(step["samples"] == 2 for step in steps)
    assert 0 < written["first_results"]["median_ms"] <= written["reranked"]["median_ms"]
    assert written["first_results"]["median_ms"] <= written["pictures"]["median_ms"]
    assert written["server"]["found"]["median_ms"] < written["server"]["reranked"]["median_ms"]
    assert isinstance(written["is_met"], bool)
