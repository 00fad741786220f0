"""What to make of a checkpoint: a frozen choice of precisions, flavour and width.

A precision is a record, not a branch: what the activations are, how weights are stored, what the token table
holds, and how far the result may drift from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from qvl_local.runtime.errors import InputError

from .blocks import Precision
from .linear import FloatFormat
from .onnx_file import ElementType


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed drift: `max_abs_diff` of unit embeddings or scores in [0, 1], `min_cosine` of pooled states."""

    max_abs_diff: float
    min_cosine: float


@dataclass(frozen=True, slots=True)
class PrecisionRecord:
    """Everything that one `--precision` means."""

    graph: Precision
    table: Literal["float32", "float16"]
    tolerance: Tolerance


PRECISIONS: Mapping[str, PrecisionRecord] = MappingProxyType(
    {
        "fp32": PrecisionRecord(
            graph=Precision(ElementType.FLOAT, FloatFormat(ElementType.FLOAT)),
            table="float32",
            tolerance=Tolerance(max_abs_diff=1e-4, min_cosine=0.99999),
        ),
        "fp16": PrecisionRecord(
            graph=Precision(ElementType.FLOAT16, FloatFormat(ElementType.FLOAT16)),
            table="float16",
            tolerance=Tolerance(max_abs_diff=5e-3, min_cosine=0.9999),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One export. `vision` and `decoder` name precisions; `dims` None serves the full width."""

    vision: str = "fp32"
    decoder: str = "fp32"
    flavour: Literal["ort"] = "ort"
    dims: int | None = None

    @classmethod
    def of(cls, precision: str, *, dims: int | None = None) -> Recipe:
        """The recipe of a `--precision`: both towers the same."""
        return cls(vision=precision, decoder=precision, dims=dims)

    def __post_init__(self) -> None:
        for name in (self.vision, self.decoder):
            if name not in PRECISIONS:
                raise InputError(f"Unknown precision {name!r}. Choose one of: {', '.join(PRECISIONS)}.")
        if self.flavour != "ort":
            raise InputError(f"Unknown flavour {self.flavour!r}. Choose: ort.")
        if self.dims is not None and self.dims < 1:
            raise InputError(f"An embedding cannot have {self.dims} dimensions. Give a number above 0.")

    @property
    def tolerance(self) -> Tolerance:
        """The looser of the two precisions' tolerances."""
        vision, decoder = PRECISIONS[self.vision].tolerance, PRECISIONS[self.decoder].tolerance
        return Tolerance(
            max_abs_diff=max(vision.max_abs_diff, decoder.max_abs_diff),
            min_cosine=min(vision.min_cosine, decoder.min_cosine),
        )
