"""What the search commands ask for: query, picture and filters, checked before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qvl_local.runtime.errors import InputError

from .dates import date_range
from .options import Kind
from .paths import absolute
from .text import is_valid_unicode

if TYPE_CHECKING:
    from qvl_local.runtime.library.records import Filters


def check_query(query: str | None, image: str | None) -> str | None:
    """The query's text, or None for a search by picture alone.

    Raises:
        InputError: there is nothing to look for, or the text is no text.
    """
    if query is not None and not is_valid_unicode(query):
        raise InputError("QUERY: is not valid text. Set a UTF-8 locale in this terminal and try again.")
    if query is not None and query.strip():
        return query
    if image is None:
        raise InputError(
            "QUERY: is empty. Say what to look for, for example: qvl-local search 'two dogs on a beach', "
            "or give a picture: qvl-local search --image FILE"
        )
    return None


def check_file(name: str, option: str) -> Path:
    """The path of a file that must exist.

    Raises:
        InputError: there is no such file.
    """
    path = absolute(name)
    if not path.is_file():
        what = "is a folder; name one file" if path.is_dir() else "no such file"
        raise InputError(f"{option} {name}: {what}.")
    return path


def check_output(*, files: bool, as_json: bool) -> None:
    """Refuse two ways of printing at once."""
    if files and as_json:
        raise InputError("-f and --json exclude each other. Leave one out.")


def build_filters(
    kind: Kind | None,
    after: str | None,
    before: str | None,
    under: str | None,
    camera: str | None,
    place: str | None,
) -> Filters:
    """The filter options as the library takes them.

    Raises:
        InputError: a date is malformed, or a value is empty.
        MissingExtraError: a place is named, and names of places are not installed.
    """
    from qvl_local.runtime.library.records import Filters

    start, end = date_range(after, before)
    if camera is not None and not camera.strip():
        raise InputError("--camera: is empty. Give part of the camera's name, or leave the option out.")
    if under is not None and not under.strip():
        raise InputError("--under: is empty. Name a folder, or leave the option out.")
    if place is not None and not place.strip():
        raise InputError("--place: is empty. Give part of a place's name, or leave the option out.")
    if place is not None:
        from qvl_local.runtime.library.place_names import load_place_names

        load_place_names()
    return Filters(
        kind=None if kind is None else kind.value,
        after=start,
        before=end,
        under=None if under is None else str(absolute(under)),
        camera=camera,
        place=place,
    )
