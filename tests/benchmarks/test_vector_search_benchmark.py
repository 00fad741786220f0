"""The benchmark of the vector search runs, and its record says what a reader needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_small_run_compares_every_method_and_cleans_up(tmp_path: Path) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    work.mkdir()
    command = [sys.executable, "-m", "benchmarks.vector_search", "--sizes", "400,600", "--dims", "64"]
    command += ["--queries", "8", "--workdir", str(work), "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(work.iterdir()) == []

    written = json.loads((results / "vector_search.json").read_text(encoding="utf-8"))
    machine = written["machine"]
    assert machine["cores"] >= 1
    assert machine["libraries"]["sqlite-vec"]
    assert [size["vectors"] for size in written["sizes"]] == [400, 600]
    for size in written["sizes"]:
        methods = {method["method"]: method for method in size["methods"]}
        assert list(methods) == [
            "qvl-local",
            "vec0 int8-64",
            "vec0 float-64",
            "numpy fp32",
            "faiss flat fp32",
        ]
        # Both search everything in fp32, as the oracle does.
        assert methods["numpy fp32"]["recall@100"] == methods["faiss flat fp32"]["recall@100"] == 1.0
        assert methods["qvl-local"]["recall@10"] > 0.9
        assert size["times_faster_than_vec0_int8"]["cpu"] > 0
        assert [entry["candidates"] for entry in size["filtered"]] == [
            max(1, int(part * size["vectors"])) for part in (0.5, 0.02, 0.002)
        ]
