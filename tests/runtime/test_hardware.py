"""What the machine tells about itself; the graphics card's tool is a fake, since no card is here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from qvl_local.runtime import hardware
from qvl_local.runtime.hardware import (
    Gpu,
    available_bytes,
    cpu_features,
    first_gpu,
    is_known_without_vnni,
    memory_bytes,
    read_gpus,
)

TWO_CARDS = """\
NVIDIA GeForce RTX 4090, 24564, 23010, 560.35.03, 8.9
NVIDIA GeForce RTX 3060, 12288, 12001, 560.35.03, 8.6
"""


@pytest.fixture
def fake_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a program on the PATH that answers as NVIDIA's tool does when asked the right question."""

    def make(answer: str, *, status: int = 0) -> None:
        # The name on the PATH must be the tool's own; the file behind it says what it is.
        script = tmp_path / "fake_nvidia_smi.py"
        script.write_text(
            f"import sys\n"
            f"assert sys.argv[1:] == ['--query-gpu=name,memory.total,memory.free,driver_version,compute_cap',"
            f" '--format=csv,noheader,nounits'], sys.argv\n"
            f"sys.stdout.write({answer!r})\n"
            f"sys.exit({status})\n",
            encoding="utf-8",
        )
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        if sys.platform == "win32":
            (folder / "nvidia-smi.bat").write_text(f'@"{sys.executable}" "{script}" %*\n', encoding="utf-8")
        else:
            tool = folder / "nvidia-smi"
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n', encoding="utf-8")
            tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return make


def test_cards_are_read_from_the_drivers_tool(fake_nvidia_smi: Callable[..., None]) -> None:
    fake_nvidia_smi(TWO_CARDS)
    assert read_gpus() == (
        Gpu("NVIDIA GeForce RTX 4090", 24564 << 20, 23010 << 20, "560.35.03", "8.9"),
        Gpu("NVIDIA GeForce RTX 3060", 12288 << 20, 12001 << 20, "560.35.03", "8.6"),
    )


def test_what_the_driver_does_not_tell_is_none(fake_nvidia_smi: Callable[..., None]) -> None:
    fake_nvidia_smi("NVIDIA GB10, [N/A], [Not Supported], 580.65, 12.1\n")
    assert read_gpus() == (Gpu("NVIDIA GB10", None, None, "580.65", "12.1"),)


@pytest.mark.parametrize(
    ("answer", "status"),
    [("", 0), ("NVIDIA-SMI has failed\n", 9), ("No devices were found\n", 0), ("a, b\n", 0)],
)
def test_a_tool_that_finds_nothing_means_no_cards(
    answer: str, status: int, fake_nvidia_smi: Callable[..., None]
) -> None:
    fake_nvidia_smi(answer, status=status)
    assert read_gpus() == ()


def test_no_tool_means_no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hardware, "_NVIDIA_PLACES", ())
    assert read_gpus() == ()


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        (None, "first"),
        ("", None),
        ("1", "second"),
        ("1,0", "second"),
        ("GPU-8f", "first"),
        ("-1", None),
        ("7", None),
    ],
)
def test_the_card_in_use_follows_cudas_variable(
    visible: str | None, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards = [Gpu(name, 1, 1, None, None) for name in ("first", "second")]
    found = first_gpu(cards)
    assert (None if found is None else found.name) == name
    assert first_gpu([]) is None


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory_bytes()
    assert whole is not None
    assert whole > 2**28
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(hardware, "_CGROUP_LIMITS", (str(limit), str(tmp_path / "absent")))
    limit.write_text("1000000\n", encoding="ascii")
    assert memory_bytes() == 1_000_000
    limit.write_text("max\n", encoding="ascii")
    assert memory_bytes() == hardware._physical_bytes()


def test_memory_to_be_had_now_is_part_of_all() -> None:
    available = available_bytes()
    assert (available is not None) == (sys.platform in ("linux", "win32"))
    assert available is None or 0 < available <= (hardware._physical_bytes() or 0)


def test_linux_tells_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(
        hardware, "_cpuinfo", lambda: {"flags": "fpu avx2 avx512f avx512_vnni amx_int8 unknown"}
    )
    assert cpu_features() == ("AVX2", "AVX-512", "AVX-512 VNNI", "AMX int8")
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: {"Features": "fp asimd asimddp"})
    assert cpu_features() == ("NEON", "NEON dot product")
    monkeypatch.setattr(hardware, "_cpuinfo", dict)
    assert cpu_features() is None


@pytest.mark.parametrize(
    ("platform", "cpuinfo", "known"),
    [
        ("linux", {"flags": "fpu avx2"}, True),
        ("linux", {"flags": "fpu avx2 avx_vnni"}, False),
        ("linux", {"flags": "fpu avx2 avx512f avx512_vnni"}, False),
        ("linux", {"Features": "fp asimd asimddp"}, False),
        ("linux", {}, False),
        ("win32", {"flags": "fpu avx2"}, False),
    ],
)
def test_only_a_processor_that_is_known_to_lack_vnni_counts_as_such(
    platform: str, cpuinfo: dict[str, str], known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: cpuinfo)
    features = cpu_features()
    monkeypatch.setattr(hardware, "cpu_features", lambda: features)
    monkeypatch.setattr(sys, "platform", platform)
    assert is_known_without_vnni() == known
