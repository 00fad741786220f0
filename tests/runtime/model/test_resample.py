"""Resizing against torchvision, on which the published processors stand: equal to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qvl_local.runtime.model.resample import resample
from torchvision.transforms.v2 import InterpolationMode, functional


def by_torchvision(pixels, size):
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    resized = functional.resize(tensor, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.tuples(st.integers(1, 10), st.integers(1, 10)),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_every_pixel_equals_torchvision(before, tokens, seed):
    pixels = noise(*before, seed)
    size = (tokens[0] * 32, tokens[1] * 32)
    assert np.array_equal(resample(pixels, size), by_torchvision(pixels, size))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1080, 1920), (128, 256)),
        ((2000, 1500), (672, 512)),
        ((33, 3000), (32, 2016)),
        ((2, 500), (32, 1024)),
    ],
)
def test_large_and_long_pictures_too(before, after):
    pixels = noise(*before)
    assert np.array_equal(resample(pixels, after), by_torchvision(pixels, after))


def test_the_same_size_is_the_same_picture():
    pixels = noise(64, 96)
    assert np.array_equal(resample(pixels, (64, 96)), pixels)
    assert resample(pixels, (32, 96)).flags.c_contiguous
