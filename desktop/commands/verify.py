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


# Stands for the recipe file, whose place no bundle records.
_RECIPE = "RECIPE.toml"


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
    from qvl_local.runtime.model.resolve import TINY

    parts = bundle.manifest.parts
    names = [parts[role].source.name for role in sorted(parts)]
    # The package's own pair has no names one by one.
    models = dict.fromkeys(TINY if name.startswith(f"{TINY}/") else name for name in names)
    given = list(_options(bundle.manifest))
    command = shlex.join(["qvl-local", "export", *models, *given, "-o", str(bundle.path)])
    return f"{command}, with the recipe that it was made with as {_RECIPE}" if _RECIPE in given else command


def _options(manifest: Manifest) -> Iterator[str]:
    """The options of `export`, as far as they are not the default."""
    from qvl_local.export.graph import OPSET

    part = next(iter(manifest.parts.values()))
    if any(not _is_shipped(part) for part in manifest.parts.values()):
        yield from ("--recipe", _RECIPE)
    elif part.decoder_precision != "fp32":
        yield from ("--precision", part.decoder_precision)
    if manifest.flavour == "portable":
        yield from ("--flavour", "portable")
        if manifest.opset not in (None, OPSET):
            yield from ("--opset", str(manifest.opset))
    if manifest.layout == "shared" or (
        len(manifest.parts) == 2 and part.decoder_precision not in ("fp32", "fp16")
    ):
        yield from ("--layout", manifest.layout)
    embedder = manifest.parts.get("embedder")
    if embedder is not None and embedder.dims < embedder.table.columns:
        yield from ("--dims", str(embedder.dims))


def _is_shipped(part: Part) -> bool:
    """Whether it is what the `--precision` of its decoder makes."""
    from qvl_local.export.recipe import Recipe

    try:
        recipe = Recipe.of(part.decoder_precision)
    except InputError:
        return False
    made = recipe.vision, recipe.decoder, recipe.table_type
    return made == (part.vision_precision, part.decoder_precision, part.table.dtype) and not part.exceptions
