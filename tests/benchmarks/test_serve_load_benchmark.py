"""The load benchmark runs at toy size on a real server, and its record says what a reader needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_small_run_measures_every_part(tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = [sys.executable, "-m", "benchmarks.serve_load", "--photos", "6", "--clips", "0"]
    command += ["--rounds", "1", "--searches", "4", "--seconds", "0", "--patterns", "four", "--files", "600"]
    command += ["--items", "300", "--asks", "3", "--requests", "40"]
    command += ["--work", str(tmp_path / "work"), "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr

    written = json.loads((results / "serve_load.json").read_text(encoding="utf-8"))
    assert written["machine"]["cores"] >= 1
    indexing, size, memory = written["indexing"], written["size"], written["memory"]
    assert indexing["library"]["photos"] == 6
    assert list(indexing["patterns"]) == ["four", "four, reranked"]
    for name, pattern in indexing["patterns"].items():
        for what in ("idle", "indexing"):
            assert indexing[what][name]["samples"] == 4
            assert indexing[what][name]["searches_per_s"] > 0
        assert indexing["idle"][name]["items_indexed"] == 0
        assert indexing["p95_ratio"][name] > 0
        assert pattern["clients"] == 4
    for answers in (size["by_words, width of tiny"], size["by_likeness, 2048 dimensions"]):
        assert answers["search, 20 hits"]["samples"] == 3
        assert answers["first_ms"]["search, 200 hits"] > 0
    assert sum(memory["requests"].values()) == 40
    assert list(memory["resident_mb"]) == [str(number) for number in range(2, 41, 2)]
    assert memory["is_met"] == (memory["growth"] <= 0.05)
    assert not (tmp_path / "work" / "more").exists()


def test_a_part_alone_keeps_the_figures_of_the_others(tmp_path: Path) -> None:
    earlier = {"indexing": {"p95_ratio": {"one": 1.5}}, "memory": {"growth": 9}}
    (tmp_path / "serve_load.json").write_text(json.dumps(earlier), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.serve_load", "--parts", "memory", "--requests", "20"]
    command += ["--photos", "3", "--clips", "0", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "serve_load.json").read_text(encoding="utf-8"))
    assert written["indexing"] == earlier["indexing"]
    assert written["memory"]["growth"] != 9
