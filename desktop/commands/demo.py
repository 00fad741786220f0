"""`qvl-local demo`: a sample library, indexed and searched, on any machine and without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .. import jsonout, options
from ..console import note
from ..settings import SAMPLE_PICTURES, Settings, default_demo_library
from ..text import home_relative, shell_path

if TYPE_CHECKING:
    from qvl_local.runtime.library.records import Kind, SearchResult

# What the three searches look for: the third sample query is about things that move.
KINDS: tuple[Kind | None, ...] = (None, None, "video")
PHOTOS, CLIPS = 300, 40
SHOWN = 5


def demo(
    library: options.Library = None,
    as_json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Try it: make a sample library and search it.

    Renders 300 photographs and 40 clips, indexes them with the small model that comes with the package, and
    runs three searches. Needs no network and no GPU. Run it again to search again; nothing is made twice.
    """
    settings = Settings.read(
        library=str(default_demo_library()) if library is None else library, model="tiny"
    )
    pictures = settings.library / SAMPLE_PICTURES
    # Before anything heavy is loaded, so that the first seconds are not silent.
    note(f"Sample pictures and library: {home_relative(str(settings.library))}")

    from qvl_local.runtime import Library
    from qvl_local.runtime.library.records import Filters
    from qvl_local.runtime.world.demo import demo_queries, make_sample_library

    from ..progress import progress_view

    # The library comes first: an empty folder may become one, a folder full of pictures may not.
    with (
        progress_view() as view,
        Library.open(settings.library, model=settings.model, progress=view.model) as opened,
    ):
        make_sample_library(pictures, photos=PHOTOS, clips=CLIPS, progress=view.files)
        report = opened.index([pictures], progress=view.index)
        results = [
            opened.search(query.text, limit=SHOWN, filters=Filters(kind=kind))
            for query, kind in zip(demo_queries(), KINDS)
        ]

    if as_json:
        jsonout.write(
            {
                **jsonout.path_fields(str(settings.library)),
                "pictures": str(pictures),
                "index": jsonout.index_report(report),
                "searches": [jsonout.search_result(result) for result in results],
            }
        )
    else:
        from ..tables import print_index

        print_index(report)
        for result in results:
            _print_result(result)
        _print_next(str(settings.library))
    if report.failed:
        raise typer.Exit(1)


def _print_result(result: SearchResult) -> None:
    from ..console import stdout_console
    from ..tables import print_search

    console = stdout_console()
    console.print(f"\n“{result.query}”", style="bold")
    print_search(result, console=console)


def _print_next(library: str) -> None:
    place = shell_path(library)
    print(
        f"""
Now try your own words on the sample pictures:
  qvl-local search "hotel sign" --library {place}
  qvl-local search "a train moving left" --kind video --library {place}
or in the browser:
  qvl-local serve --library {place}

The small model knows only this drawn world. Your own photographs want the real models, which are
downloaded once (8.5 GB; `qvl-local doctor` says what fits this machine):
  qvl-local index ~/Pictures --model 2b
  qvl-local search "two dogs on a beach at night"

Done with the demo? Delete {place}"""
    )
