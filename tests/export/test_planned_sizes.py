"""What the planner counts from shapes alone is what an export stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.recipe import Recipe
from qvl_local.export.recipe_file import shipped_recipes
from qvl_local.export.vision import build_vision
from qvl_local.runtime.model.bundle import precision_name
from qvl_local.runtime.model.footprint import decoder_bytes, vision_bytes
from qvl_local.runtime.model.weight_formats import STORAGE

# Rows that are no multiple of a block, as in the 8B vision tower.
ODD = {"intermediate": 104, "vision_intermediate": 136, "layers": 2, "vision_depth": 2, "deepstack": (1,)}


def test_what_can_be_exported_can_be_planned() -> None:
    # int8-dynamic is optimum's baseline, to compare with.
    assert set(STORAGE) == set(shipped_recipes()) - {"int8-dynamic"}


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_precision_is_known_again_by_what_its_decoder_has(name: str) -> None:
    """A library remembers what its vectors were made of, and asks for the precision by its name."""
    assert precision_name(Recipe.of(name).decoder) == name


@pytest.mark.parametrize("precision", STORAGE)
@pytest.mark.parametrize("shapes", [{}, ODD], ids=["even", "odd"])
def test_weights_take_what_was_planned(
    precision: str, shapes: dict[str, object], random_checkpoint: Callable[..., Path]
) -> None:
    checkpoint = Checkpoint(random_checkpoint(**shapes))
    recipe, planned = Recipe.of(precision), STORAGE[precision]
    names = checkpoint.names()
    vision = build_vision(checkpoint, recipe.graph("vision", names), recipe.dialect)
    decoder = build_decoder(checkpoint, recipe.graph("decoder", names), recipe.dialect)
    assert sum(weight.nbytes for weight in vision.weights) == vision_bytes(checkpoint.config, planned)
    assert sum(weight.nbytes for weight in decoder.weights) == decoder_bytes(checkpoint.config.text, planned)
    assert np.dtype(recipe.table_type).itemsize == planned.table_bytes
