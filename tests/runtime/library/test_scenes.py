"""Cutting a stream of frames into scenes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.runtime.library.scenes import Look, Scene, SceneSettings, cut_scenes, difference
from qvl_local.runtime.model.pixels import PixelBudget, load_budget

TINY = Path(__file__).parents[3] / "models" / "tiny" / "embedding"
RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (20, 160, 40)


@pytest.fixture(scope="module")
def budget() -> PixelBudget:
    return load_budget(TINY)


def looks(scenes: list[tuple[tuple[int, int, int], float]], *, fps: float = 4.0) -> list[Look]:
    made: list[Look] = []
    rng = np.random.default_rng(0)
    for colour, seconds in scenes:
        texture = rng.integers(-30, 30, (48, 64, 1))
        for _ in range(round(seconds * fps)):
            pixels = np.clip(np.asarray(colour) + texture + rng.integers(-3, 3, (48, 64, 3)), 0, 255)
            made.append(Look(round(len(made) * 1000 / fps), pixels.astype(np.uint8)))
    return made


def cut(
    made: list[Look], budget: PixelBudget, *, duration_ms: int | None = None, **settings: Any
) -> list[Scene]:
    return list(cut_scenes(made, duration_ms=duration_ms, settings=SceneSettings(**settings), budget=budget))


def spans(scenes: list[Scene]) -> list[tuple[int, int]]:
    return [(scene.t0_ms, scene.t1_ms) for scene in scenes]


def test_a_cut_is_found_where_it_is(budget: PixelBudget) -> None:
    scenes = cut(looks([(RED, 5), (BLUE, 4), (GREEN, 6)]), budget)
    assert spans(scenes) == [(0, 5000), (5000, 9000), (9000, 15000)]
    assert all(abs(int(look.pixels[..., 2].mean()) - 200) < 12 for look in scenes[1].looks)


def test_scenes_cover_the_film_without_gaps(budget: PixelBudget) -> None:
    scenes = cut(looks([(RED, 31), (BLUE, 47), (GREEN, 2.5)]), budget)
    assert scenes[0].t0_ms == 0
    assert all(before.t1_ms == after.t0_ms for before, after in itertools.pairwise(scenes))
    assert scenes[-1].t1_ms == 80500
    for scene in scenes:
        assert all(scene.t0_ms <= look.t_ms < scene.t1_ms for look in scene.looks)


def test_long_scenes_are_cut_at_the_limit_and_a_short_rest_joins(budget: PixelBudget) -> None:
    assert spans(cut(looks([(RED, 61)]), budget)) == [(0, 20000), (20000, 40000), (40000, 61000)]


def test_flashes_do_not_make_scenes(budget: PixelBudget) -> None:
    assert spans(cut(looks([(RED, 1), (BLUE, 0.5), (RED, 3)]), budget, min_s=5)) == [(0, 4500)]
    assert all(t1 - t0 >= 2000 for t0, t1 in spans(cut(looks([(RED, 0.5), (BLUE, 0.5)] * 12), budget)))


def test_movement_is_no_cut(budget: PixelBudget) -> None:
    panorama = np.random.default_rng(1).integers(0, 255, (48, 16, 3), dtype=np.uint8)
    wide = np.repeat(np.repeat(panorama, 8, axis=1), 2, axis=1)[:, :256]
    made = [Look(250 * i, np.roll(wide, 12 * i, axis=1)[:, :64]) for i in range(24)]
    assert len(cut(made, budget)) == 1


@pytest.mark.parametrize(("seconds", "frames"), [(0.25, 1), (1, 4), (3, 6), (8, 16), (20, 16)])
def test_each_scene_gets_frames_as_the_model_asks(seconds: float, frames: int, budget: PixelBudget) -> None:
    (scene,) = cut(looks([(RED, seconds)]), budget)
    assert len(scene.looks) == frames
    times = [look.t_ms for look in scene.looks]
    assert times == sorted(set(times))
    assert times[0] == 0


def test_the_containers_duration_counts_when_it_is_longer(budget: PixelBudget) -> None:
    assert spans(cut(looks([(RED, 3)]), budget, duration_ms=3300)) == [(0, 3300)]
    assert spans(cut(looks([(RED, 3)]), budget, duration_ms=10)) == [(0, 3000)]


def test_no_look_no_scene(budget: PixelBudget) -> None:
    assert cut([], budget, duration_ms=5000) == []


def test_memory_does_not_grow_with_the_scene(budget: PixelBudget) -> None:
    made = looks([(RED, 100)])
    (scene,) = cut(made, budget, max_s=1000)
    times = np.array([look.t_ms for look in scene.looks])
    assert len(times) == budget.max_frames
    # Looks are dropped evenly: none of the steps is much longer than another.
    assert np.diff(times).max() <= 2 * np.diff(times).min()


def test_difference_is_in_range_and_symmetric() -> None:
    black, white = np.zeros((9, 3), np.float32), np.ones((9, 3), np.float32)
    shifted: NDArray[np.float32] = np.tile(np.linspace(0, 1, 9, dtype=np.float32)[:, None], (1, 3))
    assert difference(black, white) == pytest.approx(1)
    assert difference(black, black) == 0
    assert difference(shifted, shifted[::-1]) == 0  # the same colours elsewhere
    assert difference(black, shifted) == pytest.approx(difference(shifted, black))
