"""Sizes, sampling and patches against the Hugging Face processors."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qvl_local.runtime.errors import CheckpointError, InputError
from qvl_local.runtime.model.image import fit_image
from qvl_local.runtime.model.pixels import (
    PixelBudget,
    fit_frame_size,
    fit_image_size,
    load_budget,
    pair_times,
    sample_indices,
    to_patches,
)
from qvl_local.runtime.model.video import VideoFrames, fit_frames
from transformers import Qwen2VLImageProcessorFast, Qwen3VLVideoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as image_smart_resize
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as video_smart_resize
from transformers.video_utils import VideoMetadata

SMALL = PixelBudget(
    patch_size=16,
    merge_size=2,
    temporal_patch_size=2,
    image_min_pixels=4096,
    image_max_pixels=16384,
    video_min_pixels=16384,
    video_max_pixels=147456,
    fps=2.0,
    min_frames=4,
    max_frames=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
LARGE = replace(SMALL, image_max_pixels=384 * 1024, video_min_pixels=4096, video_max_pixels=3072 * 1024)
BUDGETS = st.sampled_from([SMALL, LARGE])
SIDES = st.integers(1, 6000)


@given(BUDGETS, SIDES, SIDES)
@settings(max_examples=400, deadline=None)
def test_image_sizes_are_those_of_the_processor(budget, height, width):
    if max(height, width) / min(height, width) > 200:
        return
    ours = fit_image_size(height, width, budget)
    bounds = {"min_pixels": budget.image_min_pixels, "max_pixels": budget.image_max_pixels}
    assert ours == image_smart_resize(height, width, factor=32, **bounds) or ours == (height, width)
    if ours == (height, width):
        # Kept as it is: then it is a size that the processor could have made.
        assert height % 32 == width % 32 == 0
        assert height * width <= budget.image_max_pixels or min(height, width) == 32


@given(BUDGETS, st.integers(2, 64), st.integers(32, 2200), st.integers(32, 2200))
@settings(max_examples=400, deadline=None)
def test_frame_sizes_are_those_of_the_processor(budget, frames, height, width):
    ours = fit_frame_size(frames, height, width, budget)
    bounds = {"min_pixels": budget.video_min_pixels, "max_pixels": budget.video_max_pixels}
    if ours != (height, width):
        assert ours == video_smart_resize(frames, height, width, factor=32, **bounds)
    else:
        assert height % 32 == width % 32 == 0


@given(BUDGETS, st.integers(1, 64), SIDES, SIDES)
@settings(max_examples=400, deadline=None)
def test_fitting_twice_is_fitting_once(budget, frames, height, width):
    image = fit_image_size(height, width, budget)
    assert fit_image_size(*image, budget) == image
    frame = fit_frame_size(frames, height, width, budget)
    assert fit_frame_size(frames, *frame, budget) == frame
    for side in (*image, *frame):
        assert side >= 32
        assert side % 32 == 0


@pytest.mark.parametrize(("height", "width"), [(20, 20_000), (20_000, 20), (1, 1), (1, 100_000), (3, 700)])
def test_extreme_shapes_get_a_bounded_size(height, width):
    for budget in (SMALL, LARGE):
        new_height, new_width = fit_image_size(height, width, budget)
        assert new_height * new_width <= max(budget.image_max_pixels, 32 * 32 * 200)
        assert (height > width) == (new_height > new_width)


@given(
    st.integers(1, 4000),
    st.sampled_from([23.976, 24.0, 25.0, 29.97, 30.0, 60.0, 8.0]),
    st.sampled_from([1.0, 2.0]),
)
@settings(max_examples=200, deadline=None)
def test_sampling_is_that_of_the_processor(total, rate, fps):
    processor = Qwen3VLVideoProcessor(min_frames=4, max_frames=16)
    theirs = processor.sample_frames(VideoMetadata(total_num_frames=total, fps=rate), fps=fps)
    assert sample_indices(total, rate, fps=fps, min_frames=4, max_frames=16) == list(theirs)


def test_time_stamps_are_the_means_of_pairs():
    assert pair_times(np.array([0.0, 0.5, 1.0, 2.0]), SMALL) == [0.25, 1.5]
    assert pair_times(np.array([0.0, 0.5, 1.0]), SMALL) == [0.25, 1.0]  # the last frame is its own pair
    assert pair_times(np.array([3.0]), SMALL) == [3.0]


@pytest.mark.parametrize(
    ("height", "width"), [(90, 130), (200, 60), (480, 640), (32, 32), (700, 500), (1, 1)]
)
def test_image_pixels_are_those_of_the_processor(picture, height, width):
    image = picture(height, width)
    processor = Qwen2VLImageProcessorFast(
        size={"shortest_edge": SMALL.image_min_pixels, "longest_edge": SMALL.image_max_pixels},
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    theirs = processor(images=[torch.from_numpy(image).permute(2, 0, 1)], return_tensors="pt")
    ours = to_patches(fit_image(image, SMALL)[None, None], SMALL)[0]
    difference = np.abs(ours - theirs["pixel_values"].numpy()) * 127.5  # grey levels
    assert difference.max() <= 1e-3  # the bar is 1, and 0.02 on average
    height, width = fit_image_size(height, width, SMALL)
    assert theirs["image_grid_thw"].tolist() == [[1, height // 16, width // 16]]


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(8, 96, 96), (5, 70, 120), (16, 240, 135), (2, 33, 400)]
)
def test_video_pixels_are_those_of_the_processor(clip, frames, height, width):
    film = clip(frames, height, width)
    processor = Qwen3VLVideoProcessor(
        size={"shortest_edge": SMALL.video_min_pixels, "longest_edge": SMALL.video_max_pixels}
    )
    theirs = processor(
        videos=[torch.from_numpy(film).permute(0, 3, 1, 2)], do_sample_frames=False, return_tensors="pt"
    )
    fitted = fit_frames(VideoFrames(film, np.arange(frames) / 2), SMALL).frames
    if frames % 2:
        fitted = np.concatenate([fitted, fitted[-1:]])
    ours = to_patches(fitted.reshape(-1, 2, *fitted.shape[1:]), SMALL)
    difference = np.abs(ours.reshape(-1, 1536) - theirs["pixel_values_videos"].numpy()) * 127.5
    assert difference.max() <= 1e-3


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


IMAGE = {
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
VIDEO = {
    **IMAGE,
    "size": {"shortest_edge": 4096, "longest_edge": 25165824},
    "fps": 2,
    "min_frames": 4,
    "max_frames": 768,
}


def test_a_small_checkpoint_keeps_its_own_settings(tiny_folder):
    assert load_budget(tiny_folder / "embedding") == SMALL


def test_generic_settings_are_capped_by_the_official_and_the_retrieval_limits(tmp_path):
    budget = load_budget(write(tmp_path, preprocessor_config=IMAGE, video_preprocessor_config=VIDEO))
    assert (budget.image_min_pixels, budget.image_max_pixels) == (4 * 1024, 384 * 1024)
    assert (budget.video_min_pixels, budget.video_max_pixels) == (4096, 2 * 1536 * 1024)
    assert (budget.fps, budget.min_frames, budget.max_frames) == (1.0, 4, 16)


def test_one_processor_config_holds_both(tmp_path):
    two = load_budget(write(tmp_path / "two", preprocessor_config=IMAGE, video_preprocessor_config=VIDEO))
    one = load_budget(
        write(tmp_path / "one", processor_config={"image_processor": IMAGE, "video_processor": VIDEO})
    )
    assert one == two


def test_min_pixels_and_max_pixels_count_too(tmp_path):
    settings = {key: value for key, value in IMAGE.items() if key != "size"}
    settings |= {"min_pixels": 2048, "max_pixels": 100_352}
    budget = load_budget(write(tmp_path, preprocessor_config=settings))
    assert (budget.image_min_pixels, budget.image_max_pixels) == (2048, 100_352)


def test_missing_or_damaged_settings_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither preprocessor_config\.json nor"):
        load_budget(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: cannot be read"):
        load_budget(tmp_path)
    write(tmp_path, preprocessor_config={"size": {}})
    with pytest.raises(CheckpointError, match="patch_size"):
        load_budget(tmp_path)


def test_a_budget_crosses_process_borders():
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL


def test_a_description_is_stable_and_tells_budgets_apart():
    assert json.loads(json.dumps(SMALL.describe())) == SMALL.describe() == replace(SMALL).describe()
    assert SMALL.describe() != replace(SMALL, max_frames=8).describe()


@pytest.mark.parametrize(
    "change", [{"image_max_pixels": 100}, {"video_min_pixels": 0}, {"fps": 0.0}, {"min_frames": 20}]
)
def test_impossible_budgets_are_refused(change):
    with pytest.raises(InputError):
        replace(SMALL, **change)
