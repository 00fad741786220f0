"""The flavours of a bundle: for whom its graphs are written."""

from __future__ import annotations

from typing import Literal, get_args

from qvl_local.runtime.errors import InputError

from .dialect import Dialect
from .graph import OPSET
from .ort_dialect import ORT
from .portable_dialect import FusedOperators, PlainOperators, PortableDialect

Flavour = Literal["ort", "portable"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
# Operator sets that a flavour can be written with, the default first.
OPSETS: dict[Flavour, tuple[int, ...]] = {"ort": (OPSET,), "portable": (23, 20)}


def known_flavour(text: str) -> Flavour:
    """A flavour by its name.

    Raises:
        InputError: there is none of that name.
    """
    for flavour in FLAVOURS:
        if flavour == text:
            return flavour
    raise InputError(f"Unknown flavour {text!r}. Choose one of: {', '.join(FLAVOURS)}.")


def dialect_of(flavour: Flavour, opset: int = OPSET) -> Dialect:
    """The dialect that graphs of a flavour are written in.

    Raises:
        InputError: there is no such flavour, or it is not written with that operator set.
    """
    opsets = OPSETS[known_flavour(flavour)]
    if opset not in opsets:
        known = " or ".join(map(str, opsets))
        raise InputError(f"The flavour {flavour} is written with opset {known}, not {opset}.")
    if flavour == "ort":
        return ORT
    return PortableDialect(PlainOperators() if opset == 20 else FusedOperators())
