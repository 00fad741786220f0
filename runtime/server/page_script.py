"""The page's modules as one script, as browsers get it: one request, no comments, no indentation.

The modules are written to be read, one noun a file, and run as they lie in any browser. Joined they travel in
two thirds of the bytes, and the browser need not ask for one to learn of the next. This is no compiler: names
stay, lines stay in their order, and what it does not understand is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import QvlError

_IMPORT = re.compile(r'^import \{ [\w, ]+ \} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=async |function|class |const |let )", re.MULTILINE)
_OTHER_FORM = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
_DECLARATION = re.compile(r"^(?:export )?(?:async )?(?:function\*?|class|const|let) (\w+)", re.MULTILINE)
_BLOCK_COMMENT = re.compile(r"^[ \t]*/\*.*?\*/[ \t]*\n?", re.MULTILINE | re.DOTALL)
_LINE_COMMENT = re.compile(r"^[ \t]*//.*\n?", re.MULTILINE)
_INDENTATION = re.compile(r"^[ \t]+|^\n", re.MULTILINE)
# Of a line that goes on in the next one or ends its statement. Where "//" is in it, a comment may end it.
_LINE_END = re.compile(r"^((?:(?!//).)*[;{,])\n", re.MULTILINE)


class PageError(QvlError):
    """The files of the page do not fit together: a mistake of whoever wrote them."""


def order_of(modules: Mapping[str, str], entry: str) -> tuple[str, ...]:
    """`entry` and all that it imports, in the order in which a browser runs them.

    `modules`: texts by file name. Raises PageError where one is missing.
    """
    order: list[str] = []
    _visit(entry, modules, order, above=frozenset())
    return tuple(order)


def joined(modules: Mapping[str, str], order: Sequence[str]) -> str:
    """Modules as one script. They share one scope then.

    Raises PageError where one imports or exports in another way than by name, or declares at its top what
    another one declares, too.
    """
    owners: dict[str, str] = {}
    parts: list[str] = []
    for name in order:
        for declared in _DECLARATION.findall(modules[name]):
            if owners.setdefault(declared, name) != name:
                raise PageError(f"{name}: {declared} is declared in {owners[declared]}, too. Rename one.")
        text = _EXPORT.sub("", _IMPORT.sub("", modules[name]))
        if (other := _OTHER_FORM.search(text)) is not None:
            raise PageError(f"{name}: {other[0]!r} is no import or export by name.")
        parts.append(lean(text))
    return "".join(parts)


def lean(text: str) -> str:
    """A script without indentation, comments on lines of their own, and line ends that mean nothing.

    A comment after code, or within a line, stays: telling it from text needs a parser.
    """
    text = _INDENTATION.sub("", _LINE_COMMENT.sub("", _BLOCK_COMMENT.sub("", text)))
    return _LINE_END.sub(r"\1", text)


def lean_style(text: str) -> str:
    """A style sheet without comments on lines of their own, and without spaces that mean nothing."""
    pieces = re.split(r'("[^"]*")', lean(text))  # every second piece is a string, which stays as it is
    for i in range(0, len(pieces), 2):
        tight = re.sub(r"\s*([{};])\s*", r"\1", pieces[i])
        pieces[i] = re.sub(r"([:,])\s+", r"\1", tight).replace(";}", "}")
    return "".join(pieces)


def _visit(name: str, modules: Mapping[str, str], order: list[str], above: frozenset[str]) -> None:
    if name not in modules:
        raise PageError(f"{name}: is imported, and is not there.")
    if name in order or name in above:  # modules may use each other's functions in a circle
        return
    for imported in _IMPORT.findall(modules[name]):
        _visit(imported, modules, order, above | {name})
    order.append(name)
