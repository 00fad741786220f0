"""`qvl-local remove`: forget files and folders; nothing on disk is touched but the library itself."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import jsonout, options, paths
from ..settings import Settings
from ..text import count


def remove(
    names: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files or folders to forget, on disk or gone.")
    ],
    library: options.Library = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Forget files and folders. The files themselves are never touched.

    A folder that was indexed stops being watched over as well; index it again to bring it back.
    """
    settings = Settings.read(library=library)

    from qvl_local.runtime import Library

    with Library.open(settings.library, create=False) as opened:
        before = opened.status().counts
        removed = opened.remove([paths.absolute(name) for name in names])
        counts = opened.status().counts
    failed = max(before.failed - counts.failed, 0)

    if as_json:
        jsonout.write({"removed": removed, "removed_failed": failed, **jsonout.counts(counts)})
    else:
        forgotten = [count(removed, "item")] if removed or not failed else []
        if failed:
            forgotten.append(f"{count(failed, 'file')} that could not be used")
        held = count(counts.items, "item")
        print(f"Forgot {' and '.join(forgotten)}; the library holds {held} now.")
