"""What fits: sums that can be done by hand, and choices that must not waver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.model import planner
from qvl_local.runtime.model.config import ModelConfig, load_config
from qvl_local.runtime.model.footprint import Workload, checkpoint_bytes
from qvl_local.runtime.model.planner import Budget, plan, plans, recommend, recommended_precisions
from qvl_local.runtime.model.published import published_config
from qvl_local.runtime.model.weight_formats import STORAGE, Format, Storage

GB = 1_000_000_000


def shapes(name: str) -> ModelConfig:
    config = published_config(name)
    assert config is not None
    return config


def test_the_published_models_have_about_as_many_parameters_as_their_names_say() -> None:
    for name, billions in (("2b", 2.1), ("8b", 8.8)):
        config = shapes(name)
        counted = plan(config, "fp16", "separate", workload=Workload(), budget=Budget("cuda", None))
        head = 0 if config.text.tied_head else counted.table
        parameters = (counted.vision + counted.decoder + counted.table + head) / 2
        assert round(parameters / GB, 1) == billions
    assert published_config("3b") is None


@pytest.mark.parametrize(
    ("storage", "rows", "columns", "expected"),
    [
        (Format(bits=32), 3, 100, 1200),
        (Format(bits=8, row_bytes=4), 3, 100, 312),
        # Through the whole matrix: 300 codes in 150 bytes, 5 blocks of 64.
        (Format(bits=4, block=64, block_bytes=4, flat=True), 3, 100, 150 + 20),
        # In each row 4 blocks of 32, the last one filled up.
        (Format(bits=4, block=32, block_bytes=4), 3, 100, 3 * 4 * (16 + 4)),
    ],
)
def test_a_matrix_takes_its_codes_and_its_scales(
    storage: Format, rows: int, columns: int, expected: int
) -> None:
    assert storage.matrix_bytes(rows, columns) == expected


def test_layouts_differ_by_one_decoder_and_its_sessions() -> None:
    config, budget = shapes("8b"), Budget("cuda", 80 * GB)
    separate = plan(config, "fp16", "separate", workload=Workload(), budget=budget)
    shared = plan(config, "fp16", "shared", workload=Workload(), budget=budget)
    assert separate.resident == separate.vision + 2 * separate.decoder
    assert shared.resident == shared.vision + shared.decoder + shared.adapters
    assert separate.disk - shared.disk == separate.decoder - shared.adapters
    # Rank 64, both factors in float16, q k v gate up down of 36 layers.
    sides = (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288)
    assert shared.adapters == 2 * 64 * sides * 36
    assert shared.work == separate.work


@pytest.mark.parametrize(("name", "gib"), [("2b", 1.37), ("8b", 4.78)])
def test_both_models_in_nf4_hold_what_was_counted_from_their_graphs(name: str, gib: float) -> None:
    found = plan(shapes(name), "nf4", "shared", workload=Workload(), budget=Budget("cpu", 64 * GB))
    assert round(found.resident / 2**30, 2) == gib


def test_int8_safe_has_its_attention_in_float16_and_its_mlps_in_bytes() -> None:
    config = shapes("2b")
    budget = Budget("cpu", 64 * GB)
    safe, int8, half = (
        plan(config, precision, "separate", workload=Workload(), budget=budget)
        for precision in ("int8-safe", "int8", "fp16")
    )
    # 16 heads and twice 8 of 128, and back: 12.6 million weights a layer take two bytes, not one, but not
    # 4 for each row and one for each matrix.
    attention = 2048 * 2048 * 2 + 2 * 1024 * 2048
    assert safe.decoder - int8.decoder == 28 * (attention - 4 * (2048 + 2 * 1024 + 2048) - 4)
    assert safe.vision == half.vision
    # In memory the float16 of a graph that computes in float32 is widened.
    held = STORAGE["int8"].decoder.cpu_held * (int8.decoder - 28 * attention) + 28 * 4 * attention
    assert safe.decoder_held == pytest.approx(held, rel=0.01)
    assert safe.resident == safe.vision_held + 2 * safe.decoder_held
    found = plans(config, budget=budget)
    assert {one.layout for one in found if one.precision == "int8-safe"} == {"separate", "shared"}
    assert "int8-safe" not in {one.precision for one in plans(config, budget=Budget("cuda", 64 * GB))}


def test_a_cpu_holds_float16_widened() -> None:
    config = shapes("2b")
    cpu, gpu = (
        plan(config, "fp16", "separate", workload=Workload(), budget=Budget(place, 64 * GB))
        for place in ("cpu", "cuda")
    )
    assert cpu.disk == gpu.disk
    assert gpu.decoder_held == gpu.decoder
    assert cpu.decoder_held == pytest.approx(2 * cpu.decoder, rel=0.01)


def test_more_pixels_and_more_photos_take_more_work_up_to_what_one_run_holds() -> None:
    def work(tokens: int, photos: int) -> int:
        workload = Workload(tokens=tokens, photos=photos)
        return plan(shapes("2b"), "fp32", "separate", workload=workload, budget=Budget("cpu", 64 * GB)).work

    assert work(64, 1) < work(384, 1) < work(1800, 1) < work(16_384, 1)
    assert work(384, 1) < work(384, 5)
    # Runs are cut; only the features between the two graphs grow, and those up to one wave.
    features = 4 * 384 * 4 * 2048
    assert work(384, 40) - work(384, 20) == 20 * features
    assert work(384, 10_000) == work(384, 100_000)


@pytest.mark.parametrize(
    ("memory", "usable"), [(None, None), (64 * GB, 48 * GB), (6 * GB, 4 * GB), (1 * GB, 0)]
)
def test_a_part_of_the_memory_is_left_to_others(memory: int | None, usable: int | None) -> None:
    assert Budget("cpu", memory).usable == usable


def test_what_fits_is_said_and_what_is_unknown_too() -> None:
    def fits(budget: Budget) -> tuple[bool | None, bool | None]:
        found = plan(shapes("2b"), "fp32", "separate", workload=Workload(), budget=budget)
        return found.fits_memory, found.fits_disk

    assert fits(Budget("cpu", 64 * GB, disk=100 * GB)) == (True, True)
    assert fits(Budget("cpu", 16 * GB, disk=10 * GB)) == (False, False)
    assert fits(Budget("cpu", None)) == (None, None)
    assert fits(Budget("cuda", 24 * GB)) == (True, None)


def test_the_download_takes_room_beside_the_export() -> None:
    config = shapes("2b")
    download = 2 * checkpoint_bytes(config)
    assert round(download / GB, 1) == 8.5
    assert round(2 * checkpoint_bytes(shapes("8b")) / GB) == 35

    def fits(**room: Any) -> bool | None:
        budget = Budget("cpu", 64 * GB, **room)
        return plan(config, "int8", "shared", workload=Workload(), budget=budget, download=download).fits_disk

    assert fits(disk=int(8.6 * GB)) is False  # each fits alone
    assert fits(disk=12 * GB) is True
    assert fits(disk=3 * GB, hub_disk=9 * GB, is_one_disk=False) is True
    assert fits(disk=3 * GB, hub_disk=8 * GB, is_one_disk=False) is False
    assert fits(disk=2 * GB, hub_disk=9 * GB, is_one_disk=False) is False
    assert fits(disk=3 * GB, is_one_disk=False) is None


def test_room_on_the_disk_does_not_change_the_precision() -> None:
    found = plans(shapes("2b"), budget=Budget("cpu", 64 * GB, disk=GB))
    assert (recommend(found).precision, recommend(found).fits) == ("int8", False)


@pytest.fixture
def every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats of every kind, whatever this version exports."""
    half = Format(bits=16, activation_bytes=2, cpu_held=2.2)
    eight, four = Format(bits=8, row_bytes=4), Format(bits=4, block=64, block_bytes=4)
    made = {
        "fp32": Storage(Format(bits=32), Format(bits=32), 4),
        "fp16": Storage(half, half, 2),
        "int8": Storage(eight, eight, 2),
        "nf4": Storage(eight, four, 2),
    }
    monkeypatch.setattr(planner, "STORAGE", made)


@pytest.mark.usefixtures("every_precision")
@pytest.mark.parametrize(
    ("name", "budget", "expected"),
    [
        ("2b", Budget("cpu", 64 * GB), ["int8", "nf4", "fp32", "fp16"]),
        # Last what fits only if the models can share a decoder.
        ("2b", Budget("cpu", 16 * GB), ["int8", "nf4", "fp32", "fp16"]),
        ("8b", Budget("cpu", 16 * GB), ["nf4", "int8"]),
        ("8b", Budget("cpu", 8 * GB), ["nf4"]),  # does not fit either, but takes least
        ("2b", Budget("cuda", 24 * GB), ["fp16", "nf4", "fp32"]),
        ("8b", Budget("cuda", 80 * GB), ["fp16", "nf4", "fp32"]),
        ("8b", Budget("cuda", 24 * GB), ["nf4", "fp16"]),
        ("8b", Budget("cuda", None), ["fp16", "nf4", "fp32"]),
    ],
)
def test_the_best_that_fits_is_recommended_and_then_what_else_fits(
    name: str, budget: Budget, expected: list[str]
) -> None:
    assert recommended_precisions(shapes(name), budget=budget) == expected


@pytest.mark.usefixtures("every_precision")
def test_a_small_model_stays_in_float32_on_any_cpu(tiny_folder: Path) -> None:
    config = load_config(tiny_folder / "embedding")
    for budget in (Budget("cpu", GB), Budget("cpu", 64 * GB), Budget("cpu", None)):
        assert recommended_precisions(config, budget=budget) == ["fp32"]
        assert plans(config, budget=budget)[0].precision == "fp32"
    assert recommended_precisions(config, budget=Budget("cuda", 8 * GB))[0] == "fp16"


def test_layouts_are_recommended_as_an_export_takes_them() -> None:
    found = plans(shapes("2b"), budget=Budget("cpu", 64 * GB))
    assert (recommend(found).precision, recommend(found).layout) == ("int8", "shared")
    floats = plans(shapes("2b"), budget=Budget("cuda", 64 * GB))
    assert (recommend(floats).precision, recommend(floats).layout) == ("fp16", "separate")


def test_where_nothing_fits_what_takes_least_is_named() -> None:
    found = [replace(one, fits_memory=False) for one in plans(shapes("2b"), budget=Budget("cpu", 64 * GB))]
    assert recommend(found).memory == min(one.memory for one in found)
    certain = replace(found[-1], fits_memory=True, layout="separate")
    assert recommend([*found, certain]) is certain


def test_every_precision_has_a_place_in_the_order_of_preference() -> None:
    assert set(STORAGE) == {one.precision for one in plans(shapes("2b"), budget=Budget("cpu", GB))}
