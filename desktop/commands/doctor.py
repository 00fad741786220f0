"""`qvl-local doctor`: what this machine has, what qvl-local will use, and what stands in the way."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import jsonout, options
from ..settings import Settings


def doctor(
    library: options.Library = None,
    model: options.Model = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="N",
            min=4,
            max=16_384,
            help="Plan for photos of so many visual tokens, 32×32 pixels each. [default: 384]",
        ),
    ] = None,
    photos: Annotated[
        int | None,
        typer.Option("--photos", metavar="N", min=1, help="Plan for so many at once. [default: 20]"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", metavar="P", help="Plan for this precision alone. [default: every one that suits]"
        ),
    ] = None,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean", help="Remove exports from the model cache that this version of qvl-local does not use."
        ),
    ] = False,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Check this machine and this installation.

    Shows the processor and what it can do, graphics cards, memory, disk, folders, versions, which models are
    at hand, which precision of the real models fits, and what one photo costs. Exit status 1 when something
    stands in the way.
    """
    settings = Settings.read(library=library, model=model)

    from qvl_local.runtime.model.footprint import Workload

    from ..checkup import check, clean_cache

    if clean:
        clean_cache()
    default = Workload()
    workload = Workload(tokens=tokens or default.tokens, photos=photos or default.photos)
    found = check(settings, workload, precision=precision)

    if as_json:
        jsonout.write(jsonout.checkup(found))
    else:
        from ..tables import print_checkup

        print_checkup(found)
    if found.problems:
        raise typer.Exit(1)
