"""Recipe files: TOML that says at which precision each part of a model is exported.

    about = "One line for people."

    [vision]
    precision = "int8-weight"

    [decoder]
    precision = "nf4"
    calibrate = true                         # tune layers to data: the sample world's, or --calibrate's
    compensate = true                        # and round int8 rows for it, as blocks always are then

    [table]                                  # the token embeddings, which stay on disk
    precision = "fp16"

    [layers]                                 # exceptions; of the patterns that fit, the first counts
    "language_model.layers.*.mlp.down_proj" = "int8-weight"

    [tolerance]                              # what the export may drift, when not the precisions' own
    max_abs_diff = 0.1
    min_cosine = 0.99

The files in `recipes/` are the ones that ship, each named like the `--precision` that it stands for. This
module reads and checks the form; which precisions there are is `recipe`'s knowledge.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qvl_local.runtime.errors import InputError

_FOLDER = Path(__file__).with_name("recipes")

_TOWERS: tuple[Literal["vision", "decoder"], ...] = ("vision", "decoder")
# The keys of each table, with the type of their values.
_TABLES: dict[str, dict[str, type]] = {
    "vision": {"precision": str, "calibrate": bool, "compensate": bool},
    "decoder": {"precision": str, "calibrate": bool, "compensate": bool},
    "table": {"precision": str},
    "tolerance": {"max_abs_diff": float, "min_cosine": float},
}


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """What a recipe file says. `layers` are patterns and precisions, `tolerance` difference and cosine."""

    name: str
    about: str
    vision: str
    decoder: str
    table: str | None
    layers: tuple[tuple[str, str], ...]
    tolerance: tuple[float, float] | None
    calibrated: tuple[Literal["vision", "decoder"], ...]
    compensated: tuple[Literal["vision", "decoder"], ...]


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def shipped_recipe(name: str) -> RecipeFile:
    """A recipe that comes with the package.

    Raises:
        InputError: there is none of that name.
    """
    if name not in shipped_recipes():
        raise InputError(f"Unknown precision {name!r}. Choose one of: {', '.join(shipped_recipes())}.")
    return read_recipe(_FOLDER / f"{name}.toml")


def read_recipe(path: Path) -> RecipeFile:
    """Read a recipe file.

    Raises:
        InputError: it cannot be read, or holds something that a recipe does not have.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe file.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({error}).") from error
    for key in raw:
        if key not in ("about", "layers", *_TABLES):
            raise InputError(
                f"{path}: has the unknown key {key!r}. Known: about, layers, {', '.join(_TABLES)}."
            )
    about = raw.get("about", "")
    if not isinstance(about, str):
        raise InputError(f"{path}: about is {about!r}; give one line of text.")
    tables = {name: _table(raw, name, path) for name in _TABLES}
    for tower in _TOWERS:
        if "precision" not in tables[tower]:
            raise InputError(f'{path}: lacks [{tower}] with a precision, such as precision = "int8".')
        if tables[tower].get("compensate") and not tables[tower].get("calibrate"):
            raise InputError(f"{path}: [{tower}] compensate looks at data, so it takes calibrate = true too.")
    layers = raw.get("layers", {})
    if not isinstance(layers, dict) or not all(isinstance(value, str) for value in layers.values()):
        raise InputError(f'{path}: [layers] takes lines of the form "PATTERN" = "PRECISION".')
    allowed = tables["tolerance"]
    if len(allowed) == 1:
        raise InputError(f"{path}: [tolerance] takes both max_abs_diff and min_cosine.")
    return RecipeFile(
        name=path.stem,
        about=about,
        vision=tables["vision"]["precision"],
        decoder=tables["decoder"]["precision"],
        table=tables["table"].get("precision"),
        layers=tuple(layers.items()),
        tolerance=(allowed["max_abs_diff"], allowed["min_cosine"]) if allowed else None,
        calibrated=tuple(tower for tower in _TOWERS if tables[tower].get("calibrate")),
        compensated=tuple(tower for tower in _TOWERS if tables[tower].get("compensate")),
    )


def _table(raw: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A table's entries, after checking their names and types; numbers become floats."""
    table = raw.get(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{path}: {name} must be a table: [{name}].")
    known = _TABLES[name]
    entries = {}
    for key, value in table.items():
        if key not in known:
            raise InputError(f"{path}: [{name}] has the unknown key {key!r}. Known: {', '.join(known)}.")
        if known[key] is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, known[key]):
            raise InputError(f"{path}: [{name}] {key} is {value!r}; give a {known[key].__name__}.")
        entries[key] = value
    return entries
