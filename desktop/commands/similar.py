"""`qvl-local similar`: photos and videos that resemble one that is known, or any picture."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import options, queries
from ..own_photos import caution
from ..results import show_result, why_nothing
from ..settings import Settings


def similar(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A photo or video, in the library or not.")],
    limit: options.Limit = 20,
    kind: options.KindFilter = None,
    after: options.After = None,
    before: options.Before = None,
    under: options.Under = None,
    camera: options.Camera = None,
    place: options.Place = None,
    dims: options.Dims = None,
    files: options.Bare = False,
    null: options.Null = False,
    library: options.Library = None,
    model: options.Model = None,
    backend: options.Backend = None,
    device: options.Device = "cpu",
    precision: options.Precision = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Find photos and videos that look like FILE.

    A file that is in the library is compared by its stored vector, which costs no model run; the file
    itself is left out of the results.
    """
    path = queries.check_file(file, "FILE")
    queries.check_output(files=files or null, as_json=as_json)
    filters = queries.build_filters(kind, after, before, under, camera, place)
    settings = Settings.read(library=library, model=model)

    from qvl_local.runtime import Library

    from ..progress import first_model_step

    with Library.open(
        settings.library,
        model=settings.model,
        backend=backend,
        device=device,
        precision=precision,
        brief=True,
        create=False,
        progress=first_model_step(),
    ) as opened:
        result = opened.similar(path, limit=limit, filters=filters, dims=dims)
        nothing = why_nothing(opened, result, filters)
        about = "" if files or null or as_json else caution(opened)

    show_result(result, nothing=nothing, about=about, files=files, null=null, as_json=as_json)
