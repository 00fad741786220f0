"""`qvl-local status`: what a library holds."""

from __future__ import annotations

from .. import jsonout, options
from ..settings import Settings


def status(
    library: options.Library = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Show what the library holds.

    Its folders, its model, how many items there are, and which files could not be used.
    """
    settings = Settings.read(library=library)

    from qvl_local.runtime import Library

    with Library.open(settings.library, create=False) as opened:
        found = opened.status()

    if as_json:
        jsonout.write(jsonout.library_status(str(settings.library), found))
    else:
        from ..tables import print_status

        print_status(str(settings.library), found)
