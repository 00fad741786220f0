"""Captions and queries of the sample world, by how much they say."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.world.queries import Style, query

Asked = tuple[str, NDArray[np.int16]]
"""A text and its constraint vector [17]."""


def caption(rng: random.Random, scene: NDArray[np.int16], *, full: bool) -> Asked:
    """Everything about the scene, or some of it, in a sentence."""
    text, constraints = query(rng, scene, Style.FULL if full else Style.PARTIAL)
    return text, constraints


def terse(rng: random.Random, scene: NDArray[np.int16]) -> Asked:
    """A few words as people type them."""
    text, constraints = query(rng, scene, Style.SHORT if rng.random() < 0.4 else Style.TERSE)
    return text, constraints
