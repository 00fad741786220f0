"""`qvl-local verify`: is a bundle whole, and does it still compute what it did when it was made."""

from __future__ import annotations

from typing import Annotated

import typer
from qvl_local.runtime.errors import InputError

from .. import jsonout, options, paths


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
        findings = verify_bundle(open_bundle(folder), progress=view.check)

    if as_json:
        jsonout.write(jsonout.verification(str(folder), findings))
    else:
        from ..tables import print_verification

        print_verification(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
