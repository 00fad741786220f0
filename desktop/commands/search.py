"""`qvl-local search`: find photos and moments of videos by what is in them."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import options, queries
from ..own_photos import caution
from ..results import show_result, why_nothing
from ..settings import Settings


def search(
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="What to look for, in words.")] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE", help="Look for what resembles this picture.")
    ] = None,
    limit: options.Limit = 20,
    kind: options.KindFilter = None,
    after: options.After = None,
    before: options.Before = None,
    under: options.Under = None,
    camera: options.Camera = None,
    place: options.Place = None,
    no_rerank: Annotated[
        bool, typer.Option("--no-rerank", help="Skip the reranker: faster, less exact.")
    ] = False,
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
    """Find photos and moments of videos by what is in them.

    Give words, a picture with --image, or both. The best match comes first; a video is shown with the
    moment that matched.
    """
    text = queries.check_query(query, image)
    picture = None if image is None else queries.check_file(image, "--image")
    queries.check_output(files=files or null, as_json=as_json)
    filters = queries.build_filters(kind, after, before, under, camera, place)
    settings = Settings.read(library=library, model=model)

    from qvl_local.runtime import Library
    from qvl_local.runtime.library.search import RERANKED

    from ..progress import first_model_step
    from ..reranking import rerank

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
        top = 0 if no_rerank else RERANKED
        found = opened.find(text, image=picture, limit=limit, filters=filters, top=top, dims=dims)
        for_people = not (files or null or as_json)
        result = rerank(opened, found, may_stop=for_people) if top else found.result()
        nothing = why_nothing(opened, result, filters)
        about = caution(opened) if for_people else ""

    show_result(result, nothing=nothing, about=about, files=files, null=null, as_json=as_json)
