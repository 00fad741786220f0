"""`qvl-local similar`: photos and videos that resemble one that is known, or any picture."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import jsonout, options, paths, queries
from ..settings import Settings


def similar(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A photo or video, in the library or not.")],
    limit: options.Limit = 20,
    kind: options.KindFilter = None,
    after: options.After = None,
    before: options.Before = None,
    under: options.Under = None,
    camera: options.Camera = None,
    files: options.Bare = False,
    null: options.Null = False,
    library: options.Library = None,
    model: options.Model = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Find photos and videos that look like FILE.

    A file that is in the library is compared by its stored vector, which costs no model run; the file
    itself is left out of the results.
    """
    path = queries.check_file(file, "FILE")
    queries.check_output(files=files or null, as_json=as_json)
    filters = queries.build_filters(kind, after, before, under, camera)
    settings = Settings.read(library=library, model=model)

    from qvl_local.runtime import Library

    with Library.open(settings.library, model=settings.model, create=False) as opened:
        result = opened.similar(path, limit=limit, filters=filters)

    if as_json:
        jsonout.write(jsonout.search_result(result))
    elif files or null:
        paths.print_bare((hit.path for hit in result.hits), null=null)
    else:
        from ..tables import print_search

        print_search(result)
