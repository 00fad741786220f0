"""The end of every search command: hits as JSON, as bare paths, or as a table, and why there are none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import jsonout, paths
from .console import note
from .text import printable, shell_path

if TYPE_CHECKING:
    from qvl_local.runtime import Library
    from qvl_local.runtime.library.records import Filters, SearchResult


def show_result(
    result: SearchResult, *, nothing: str, about: str, files: bool, null: bool, as_json: bool
) -> None:
    """Print a result in the form that was asked for.

    `nothing` is said where it is empty, `about` for people below what was found.
    """
    if not result.hits and (as_json or files or null):
        note(nothing)  # stdout is for programs
    if as_json:
        jsonout.write(jsonout.search_result(result))
    elif files or null:
        paths.print_bare((hit.path for hit in result.hits), null=null)
    elif result.hits:
        from .tables import print_search

        print_search(result)
        if about:
            sys.stdout.flush()  # the caution comes last, wherever the two streams lead
            note(about)
    else:
        print(printable(nothing))


def why_nothing(library: Library, result: SearchResult, filters: Filters) -> str:
    """Why a result is empty, with what to do about it; an empty text for one that is not."""
    from qvl_local.runtime.library.records import Filters
    from qvl_local.runtime.library.roots import in_terms_of, is_inside

    if result.hits:
        return ""
    status = library.status()
    if not status.counts.items:
        folder = shell_path(str(library.path))
        return f"The library is empty. Index something first: qvl-local index PATH --library {folder}"
    if filters == Filters():
        return "The library holds nothing else to compare with."
    if isinstance(filters.under, str) and not library.knows(filters.under):
        if not Path(filters.under).exists():
            return f"--under {filters.under}: no such folder, and the library knows nothing there."
        under = in_terms_of(filters.under, status.folders)
        if not any(is_inside(under, root) or is_inside(root, under) for root in status.folders):
            return (
                f"--under {filters.under}: lies in none of the indexed folders; qvl-local status lists them."
            )
    return "Nothing in the library passes these filters."
