"""`qvl-local doctor`: what this machine has, what qvl-local will use, and what stands in the way."""

from __future__ import annotations

import typer

from .. import jsonout, options
from ..settings import Settings


def doctor(
    library: options.Library = None,
    model: options.Model = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Check this machine and this installation.

    Shows the processor and what it can do, memory, disk, folders, versions, which models are at hand, and
    what one photo costs. Exit status 1 when something stands in the way.
    """
    settings = Settings.read(library=library, model=model)

    from ..checkup import check

    found = check(settings)

    if as_json:
        jsonout.write(jsonout.checkup(found))
    else:
        from ..tables import print_checkup

        print_checkup(found)
    if found.problems:
        raise typer.Exit(1)
