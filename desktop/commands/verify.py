"""`qvl-local verify`: is a bundle whole, and does it still compute what it did when it was made."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from qvl_local.runtime.errors import InputError

from .. import jsonout, options, paths

if TYPE_CHECKING:
    from qvl_local.runtime.model.bundle import Bundle, Manifest, Part


SAMPLE_WORLD = "sample world"
"""What a manifest says of layers that were tuned to the sample world, as an export does unasked."""

# They stand for a recipe file and a folder whose places no bundle records.
_RECIPE = "RECIPE.toml"
_PICTURES = "PICTURES"


def verify(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, as `export` makes it.")
    ],
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Check that a bundle is whole and computes what it should.

    Every file by its hash, every graph against its recorded answers.

    Exit status 1 when anything differs.
    """
    folder = paths.absolute(bundle)
    if not folder.is_dir():
        raise InputError(f"BUNDLE {bundle}: no such folder. Make one: qvl-local export MODEL -o {bundle}")

    from qvl_local.runtime.model.bundle import open_bundle
    from qvl_local.runtime.model.verify import verify_bundle

    from ..progress import progress_view

    with progress_view() as view:
        opened = open_bundle(folder)
        findings = verify_bundle(opened, progress=view.check)

    if as_json:
        jsonout.write(jsonout.verification(str(folder), findings))
    else:
        from ..tables import print_verification

        print_verification(findings, remedy=command_to_export(opened))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def command_to_export(bundle: Bundle) -> str:
    """What makes the same bundle anew, from the checkpoints that it names."""
    from qvl_local.runtime.model.checkpoints import TINY

    parts = bundle.manifest.parts
    names = [parts[role].source.name for role in sorted(parts)]
    # The package's own pair has no names one by one.
    models = dict.fromkeys(TINY if name.startswith(f"{TINY}/") else name for name in names)
    given = list(_options(bundle.manifest))
    command = shlex.join(["qvl-local", "export", *models, *given, "-o", str(bundle.path)])
    own = [name for name in (_RECIPE, _PICTURES) if name in given]
    return f"{command}, with what it was made with as {' and '.join(own)}" if own else command


def _options(manifest: Manifest) -> Iterator[str]:
    """The options of `export`, as far as they are not the default."""
    from qvl_local.export.graph import OPSET

    parts = manifest.parts.values()
    part = next(iter(parts))
    precisions = {_precision(part, manifest.flavour) for part in parts}
    if len(precisions) > 1 or None in precisions:
        yield from ("--recipe", _RECIPE)
    elif (precision := precisions.pop()) is not None and precision != "fp32":
        yield from ("--precision", precision)
    if part.calibration not in (None, SAMPLE_WORLD):
        yield from ("--calibrate", _PICTURES)
    if manifest.flavour == "portable":
        yield from ("--flavour", "portable")
        if manifest.opset not in (None, OPSET):
            yield from ("--opset", str(manifest.opset))
    may_share = len(parts) == 2 and part.decoder_precision not in ("fp32", "fp16")
    if may_share or manifest.layout == "shared":
        yield from ("--layout", manifest.layout)
    embedder = manifest.parts.get("embedder")
    if embedder is not None and embedder.dims < embedder.table.columns:
        yield from ("--dims", str(embedder.dims))


def _precision(part: Part, flavour: str) -> str | None:
    """The `--precision` that makes such a part; None when it takes a recipe of the user's."""
    from qvl_local.export.recipe_file import shipped_recipes

    # Most are named like what their decoder has.
    names = sorted(shipped_recipes(), key=lambda name: name != part.decoder_precision)
    return next((name for name in names if _makes(name, part, flavour)), None)


def _makes(precision: str, part: Part, flavour: str) -> bool:
    """Whether a part is what this `--precision` makes."""
    from qvl_local.export.recipe import Recipe

    try:
        recipe = Recipe.of(precision, flavour=flavour)
        if part.calibration not in (None, SAMPLE_WORLD):
            recipe = recipe.tuning_to_pictures()
    except InputError:
        return False
    towers = recipe.vision, recipe.decoder
    asked = towers, recipe.table_type, bool(recipe.tuned), bool(recipe.layers)
    # Rows that were padded to whole blocks are told there too, and follow from the shapes.
    chosen = {layer: what for layer, what in part.exceptions.items() if " padded to " not in what}
    has = part.vision_precision, part.decoder_precision
    made = has, part.table.dtype, part.calibration is not None, bool(chosen)
    return asked == made and all(
        next((rule.precision for rule in recipe.layers if rule.applies(layer)), None) == precision
        for layer, precision in chosen.items()
    )
