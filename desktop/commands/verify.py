"""`qvl-local verify`: is a bundle whole, and does it still compute what it did when it was made."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer
from qvl_local.runtime.errors import InputError

from .. import jsonout, options, paths

if TYPE_CHECKING:
    from qvl_local.runtime.model.bundle import Bundle


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

        print_verification(findings, remedy=_command_to_export(opened))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _command_to_export(bundle: Bundle) -> str:
    """What makes the bundle anew, from the checkpoints that it names."""
    from qvl_local.runtime.model.resolve import TINY

    parts = bundle.manifest.parts
    names = [parts[role].source.name for role in sorted(parts)]
    # The package's own pair has no names one by one.
    models = dict.fromkeys(TINY if name.startswith(f"{TINY}/") else name for name in names)
    words = ["qvl-local", "export", *models, "-o", str(bundle.path)]
    precision = {part.decoder_precision for part in parts.values()}
    if precision != {"fp32"} and len(precision) == 1:
        words[2:2] = ["--precision", *precision]
    return shlex.join(words)
