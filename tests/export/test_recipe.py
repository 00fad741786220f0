"""Recipes: the files that ship, a user's file, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.quantized import BlockFormat, HalfFormat, Int8Format, LayerFormats, Nf4Format
from qvl_local.export.recipe import PRECISIONS, LayerRule, Recipe, Tolerance
from qvl_local.export.recipe_file import shipped_recipe, shipped_recipes
from qvl_local.runtime.errors import InputError

FILE = """
about = "A decoder of 4 bits that keeps what hurts."

[vision]
precision = "fp16"

[decoder]
precision = "nf4"

[table]
precision = "fp32"

[layers]
"language_model.layers.0.*" = "fp16"
"language_model.layers.*.mlp.down_proj" = "int8"

[tolerance]
max_abs_diff = 0.2
min_cosine = 0.9
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_precision_of_whole_models_ships_as_a_recipe_of_its_name() -> None:
    mixed = {"int8-safe"}
    assert set(shipped_recipes()) == set(PRECISIONS) - {"int8-fine"} | mixed
    for name in shipped_recipes():
        recipe = Recipe.of(name)
        assert recipe.decoder == name or name in mixed
        assert shipped_recipe(name).about.endswith(".")


def test_float_recipes_are_what_they_were() -> None:
    fp32 = Recipe.of("fp32")
    assert (fp32.vision, fp32.table_type, fp32.layers) == ("fp32", "float32", ())
    assert fp32.graph("decoder", ["language_model.layers.0.mlp.up_proj.weight"]) is PRECISIONS["fp32"].graph
    assert Recipe.of("fp16").table_type == "float16"


def test_a_file_says_it_part_by_part(tmp_path: Path, tiny: dict[str, Path]) -> None:
    recipe = Recipe.read(write(tmp_path, FILE), dims=64)
    assert (recipe.vision, recipe.decoder, recipe.table_type) == ("fp16", "nf4", "float32")
    assert (recipe.dims, recipe.tolerance) == (64, Tolerance(max_abs_diff=0.2, min_cosine=0.9))
    names = Checkpoint(tiny["embedder"]).names()
    formats = recipe.graph("decoder", names).linear
    assert isinstance(formats, LayerFormats)
    assert isinstance(formats.default, Nf4Format)
    assert len(formats.by_name) == 7 + 3
    first = formats.by_name["language_model.layers.0.mlp.down_proj.weight"]
    assert isinstance(first, HalfFormat)  # the first rule that applies counts
    assert isinstance(formats.by_name["language_model.layers.1.mlp.down_proj.weight"], Int8Format)
    exceptions = recipe.exceptions(names)
    assert exceptions["language_model.layers.3.mlp.down_proj"] == "int8"
    assert exceptions["language_model.layers.0.self_attn.q_proj"] == "fp16"
    assert len(exceptions) == 10
    assert recipe.graph("vision", names) is PRECISIONS["fp16"].graph


def test_int8_rows_are_compensated_where_a_tower_says_so(tmp_path: Path, tiny: dict[str, Path]) -> None:
    names = Checkpoint(tiny["embedder"]).names()
    text = FILE.replace('"nf4"', '"int8-fine"\ncalibrate = true\ncompensate = true')
    recipe = Recipe.read(write(tmp_path, text))
    assert (recipe.calibrated, recipe.compensated) == (("decoder",), ("decoder",))
    formats = recipe.graph("decoder", names).linear
    assert isinstance(formats, LayerFormats)
    assert formats.default == Int8Format(fine=True, compensated=True)
    down = formats.by_name["language_model.layers.1.mlp.down_proj.weight"]
    assert down == Int8Format(compensated=True)
    assert isinstance(formats.by_name["language_model.layers.0.mlp.down_proj.weight"], HalfFormat)
    more, fewer = recipe.pictures, Recipe.of("int8").pictures
    assert more > fewer
    with pytest.raises(InputError, match="takes calibrate = true too"):
        Recipe.read(write(tmp_path, text.replace("calibrate = true\n", "")))


def test_a_rule_never_touches_what_is_not_multiplied_by(tiny: dict[str, Path]) -> None:
    recipe = Recipe(vision="fp32", decoder="int8", layers=(LayerRule("*embed*", "nf4"),))
    exceptions = recipe.exceptions(Checkpoint(tiny["embedder"]).names())
    assert exceptions == {"visual.patch_embed.proj": "nf4"}


def test_rows_that_end_in_padding_are_told() -> None:
    fc2, up = "visual.blocks.0.mlp.linear_fc2.weight", "language_model.layers.0.mlp.up_proj.weight"
    columns = {fc2: 4304, up: 4304, "visual.blocks.0.attn.qkv.weight": 1152}
    note = "int8-weight, rows of 4304 padded to 4352"
    assert Recipe.of("nf4").padded(columns) == {fc2.removesuffix(".weight"): note}  # nf4's blocks span rows
    assert set(Recipe.of("int8-weight").padded(columns).values()) == {note}
    assert Recipe.of("int8").padded(columns) == {}
    ruled = Recipe(layers=(LayerRule("visual.*", "int8-weight"),)).padded(columns)
    assert ruled == {fc2.removesuffix(".weight"): note}


def test_the_looser_of_two_towers_tolerances_counts() -> None:
    loose = PRECISIONS["int4"].tolerance
    assert Recipe(vision="int4").tolerance == Recipe(decoder="int4").tolerance == loose


def test_int4_rounds_activations_too() -> None:
    """So that ONNX Runtime takes the kernel for bytes, which is several times faster on a CPU."""
    assert Recipe.of("int4").graph("decoder", []).linear == BlockFormat(bits=4, block=32, accuracy=4)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[vision", "cannot be read as TOML"),
        ('[vision]\nprecision = "fp32"\n', r"lacks \[decoder\]"),
        (FILE + "\n[flavour]\n", "unknown key 'flavour'"),
        (FILE.replace("min_cosine = 0.9", ""), "takes both"),
        (FILE.replace('"fp32"\n\n[layers]', '"int2"\n\n[layers]'), "table precision 'int2'"),
        (FILE.replace('"nf4"', '"nf5"'), "precision 'nf5'"),
        (FILE.replace('"nf4"', "4"), "decoder"),
        (FILE.replace("0.2", '"much"'), "max_abs_diff"),
        (FILE.replace('"int8"', "8"), r"\[layers\]"),
    ],
)
def test_a_wrong_file_is_told_by_name(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=complaint):
        Recipe.read(write(tmp_path, text))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recipe"):
        Recipe.read(tmp_path / "none.toml")


def test_an_unknown_precision_lists_the_known() -> None:
    known = "fp16, fp32, int4, int8, int8-dynamic, int8-safe, int8-weight, nf4"
    with pytest.raises(InputError, match=rf"'int3'\. Choose one of: {known}"):
        Recipe.of("int3")
    with pytest.raises(InputError, match="'int3'"):
        Recipe(vision="int3")
