"""The benchmark for GPUs measures the same thing on every side; here on a CPU, with qvl-tiny."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The script as `python -m` runs it, from the root of the repository."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        name = "benchmarks.gpu_latency"
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        import benchmarks.gpu_latency_peer  # noqa: F401 - loaded while the root is on the path

        yield module
        for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "benchmarks"]:
            del sys.modules[loaded]


def test_every_side_computes_the_same(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "DOCUMENTS", 3)
    pair = tmp_path / "pair"
    for name in ("embedding", "reranker"):
        shutil.copytree(ROOT / "models" / "tiny" / name, pair / name)
    reference, ours = (
        benchmark.measure(engine, pair, device="cpu", tokens=6, runs=1)
        for engine in ("reference-bf16", "torch-bf16")
    )
    assert np.dot(reference["vector"], ours["vector"]) >= 0.999
    assert len(ours["scores"]) == 3
    assert np.abs(np.subtract(reference["scores"], ours["scores"])).max() <= 0.05
    for measured in (reference, ours):
        assert measured["load_s"] > 0
        assert all(measured[task]["median_ms"] > 0 for task in ("text", "photo", "rerank"))
        assert measured["peak_rss_mib"].keys() == {"load", "text", "photo", "rerank"}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_peak_of_a_phase_is_its_own(benchmark: ModuleType) -> None:
    """What was done before, such as an export, does not count: the peak of the process never falls."""
    peaks: dict[str, int] = {}
    with benchmark._peak_of("before", peaks):
        large = bytearray(b"x") * (300 << 20)
        assert len(large) == 300 << 20
        del large
    with benchmark._peak_of("after", peaks):
        pass
    assert peaks["before"] - peaks["after"] >= 250
    with benchmark._peak_of("anew", peaks) as begin:
        large = bytearray(b"x") * (300 << 20)
        del large
        begin()
    assert peaks["before"] - peaks["anew"] >= 250


def test_a_photo_has_about_as_many_tokens_as_were_asked_for(benchmark: ModuleType) -> None:
    for tokens in (6, 24, 384, 1024):
        height, width, _ = benchmark._photo(np.random.default_rng(0), tokens).shape
        assert height * width // 32**2 == pytest.approx(tokens, rel=0.05)
