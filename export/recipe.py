"""What to make of a checkpoint: a frozen choice of precisions, flavour and width.

A precision is a record, not a branch: what the activations are, how weights are stored, what the token table
holds, and how far the result may drift from the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from qvl_local.quant import blockwise
from qvl_local.runtime.errors import InputError

from .blocks import Precision
from .calibration import COMPENSATED_SCENES, SCENES
from .dialect import Dialect
from .flavour import Flavour, dialect_of, known_flavour
from .graph import OPSET
from .linear import FloatFormat, LinearFormat, Tuning
from .onnx_file import ElementType
from .qdq import QdqFormat
from .quantized import BlockFormat, HalfFormat, Int8Format, LayerFormats, Nf4Format
from .recipe_file import RecipeFile, read_recipe, shipped_recipe

Tower = Literal["vision", "decoder"]
TableType = Literal["float32", "float16"]

DYNAMIC = "int8-dynamic"
_FLOAT, _HALF = ElementType.FLOAT, ElementType.FLOAT16
_TOWERS: tuple[Tower, ...] = ("vision", "decoder")
_PREFIXES: Mapping[Tower, str] = MappingProxyType({"vision": "visual.", "decoder": "language_model."})
_TABLES: Mapping[str, TableType] = MappingProxyType({"fp32": "float32", "fp16": "float16"})
# Tensors called "weight" that are not matrices of a layer: tables, and the scales of norms.
_NO_LAYER = re.compile(r"(embed_tokens|pos_embed|norm\d*)\.weight$")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed drift: `max_abs_diff` of unit embeddings or scores in [0, 1], `min_cosine` of pooled states."""

    max_abs_diff: float
    min_cosine: float


@dataclass(frozen=True, slots=True)
class PrecisionRecord:
    """Everything that one `--precision` means."""

    graph: Precision
    table: TableType
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
        "int8": PrecisionRecord(
            graph=Precision(_FLOAT, Int8Format()),
            table="float16",
            tolerance=Tolerance(max_abs_diff=0.1, min_cosine=0.99),
        ),
        # Written in float32, then handed to optimum.
        DYNAMIC: PrecisionRecord(
            graph=Precision(_FLOAT, FloatFormat(_FLOAT)),
            table="float16",
            tolerance=Tolerance(max_abs_diff=0.3, min_cosine=0.9),
        ),
        # Activations in two bytes: for single layers whose inputs one byte cannot hold.
        "int8-fine": PrecisionRecord(
            graph=Precision(_FLOAT, Int8Format(fine=True)),
            table="float16",
            tolerance=Tolerance(max_abs_diff=0.1, min_cosine=0.99),
        ),
        "int8-weight": PrecisionRecord(
            graph=Precision(_FLOAT, BlockFormat(bits=8, block=128)),
            table="float16",
            tolerance=Tolerance(max_abs_diff=0.05, min_cosine=0.995),
        ),
        # Activations are rounded to int8 too: faster on a CPU, and far below the weights' own error.
        "int4": PrecisionRecord(
            graph=Precision(_FLOAT, BlockFormat(bits=4, block=32, accuracy=4)),
            table="float16",
            tolerance=Tolerance(max_abs_diff=0.4, min_cosine=0.8),
        ),
        "nf4": PrecisionRecord(
            graph=Precision(_FLOAT, Nf4Format()),
            table="float16",
            tolerance=Tolerance(max_abs_diff=0.4, min_cosine=0.8),
        ),
    }
)

# What the portable flavour has, with standard operators only; int8 by static scales around float16 products.
_PORTABLE: Mapping[str, Precision] = MappingProxyType(
    {
        "fp32": PRECISIONS["fp32"].graph,
        "fp16": PRECISIONS["fp16"].graph,
        "int8": Precision(_HALF, QdqFormat()),
    }
)
# Where the ort flavour spends two bytes on an input, the portable one has float16.
_FINE_IN_PORTABLE = MappingProxyType({"int8-fine": "fp16"})


@dataclass(frozen=True, slots=True)
class LayerRule:
    """Layers whose canonical name, without ".weight", matches the glob `pattern` have their own precision."""

    pattern: str
    precision: str

    def applies(self, weight: str) -> bool:
        """Does it speak of the layer with this weight tensor?"""
        return fnmatchcase(weight.removesuffix(".weight"), self.pattern)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One export. `vision` and `decoder` name precisions; `dims` None serves the full width.

    `layers` lists exceptions, of which the first that applies to a layer counts. `table` is the token
    table's type, `allowed` the drift that the export may show; None is what the precisions say. `flavour` and
    `opset` say for whom the graphs are written, and with which operator set. `calibrated` names the towers
    whose layers are tuned to data, `compensated` those of them whose int8 rows are rounded for it as well.
    `unsigned`: int8 weights are stored for processors without VNNI, which load them several times as fast
    then; others compute the same, slower.
    """

    vision: str = "fp32"
    decoder: str = "fp32"
    flavour: Flavour = "ort"
    opset: int = OPSET
    dims: int | None = None
    layers: tuple[LayerRule, ...] = ()
    table: TableType | None = None
    allowed: Tolerance | None = None
    calibrated: tuple[Tower, ...] = ()
    compensated: tuple[Tower, ...] = ()
    unsigned: bool = False

    @classmethod
    def of(
        cls, precision: str, *, dims: int | None = None, flavour: str = "ort", opset: int = OPSET
    ) -> Recipe:
        """The recipe that a `--precision` stands for."""
        return cls._from(shipped_recipe(precision), dims=dims, flavour=flavour, opset=opset)

    @classmethod
    def read(cls, path: Path, *, dims: int | None = None, flavour: str = "ort", opset: int = OPSET) -> Recipe:
        """A recipe file of the user's.

        Raises:
            InputError: it cannot be read, or asks for what does not exist.
        """
        return cls._from(read_recipe(path), dims=dims, flavour=flavour, opset=opset)

    @classmethod
    def _from(cls, file: RecipeFile, *, dims: int | None, flavour: str, opset: int) -> Recipe:
        if file.table is not None and file.table not in _TABLES:
            raise InputError(f"Unknown table precision {file.table!r}. Choose one of: {', '.join(_TABLES)}.")
        portable = known_flavour(flavour) == "portable"
        return cls(
            vision=file.vision,
            decoder=file.decoder,
            flavour=known_flavour(flavour),
            opset=opset,
            dims=dims,
            layers=tuple(
                LayerRule(pattern, _FINE_IN_PORTABLE.get(precision, precision) if portable else precision)
                for pattern, precision in file.layers
            ),
            table=_TABLES[file.table] if file.table is not None else None,
            allowed=Tolerance(*file.tolerance) if file.tolerance is not None else None,
            calibrated=file.calibrated,
            compensated=file.compensated,
        )

    def __post_init__(self) -> None:
        for name in (self.vision, self.decoder, *(rule.precision for rule in self.layers)):
            if name not in PRECISIONS:
                raise InputError(f"Unknown precision {name!r}. Choose one of: {', '.join(PRECISIONS)}.")
            if self.flavour == "portable" and name not in _PORTABLE:
                raise InputError(
                    f"The portable flavour has no {name}. Choose one of: {', '.join(_PORTABLE)}; "
                    "or the flavour ort."
                )
        dialect_of(self.flavour, self.opset)
        for rule in self.layers:
            if rule.precision == DYNAMIC:
                raise InputError(f"{rule.pattern}: {DYNAMIC} is for whole towers. Choose int8.")
            narrow = [name for name in (self.vision, self.decoder) if self._base(name).activation == _HALF]
            if rule.precision == "fp32" and narrow:
                raise InputError(f"{rule.pattern}: a tower of {narrow[0]} keeps no layer in fp32.")
        if self.dims is not None and self.dims < 1:
            raise InputError(f"An embedding cannot have {self.dims} dimensions. Give a number above 0.")

    @property
    def dialect(self) -> Dialect:
        """How the graphs are written."""
        return dialect_of(self.flavour, self.opset)

    @property
    def table_type(self) -> TableType:
        """What the token table holds."""
        return self.table or PRECISIONS[self.decoder].table

    @property
    def tolerance(self) -> Tolerance:
        """What the recipe allows, or the looser of the two precisions' tolerances."""
        if self.allowed is not None:
            return self.allowed
        vision, decoder = PRECISIONS[self.vision].tolerance, PRECISIONS[self.decoder].tolerance
        return Tolerance(
            max_abs_diff=max(vision.max_abs_diff, decoder.max_abs_diff),
            min_cosine=min(vision.min_cosine, decoder.min_cosine),
        )

    def graph(
        self, tower: Tower, tensors: Iterable[str], tuning: Mapping[str, Tuning] | None = None
    ) -> Precision:
        """How a tower's graph computes, given the canonical names of the checkpoint's tensors.

        `tuning` is what calibration chose for layers, by their weights' names.
        """
        base = self._base(self._precision(tower))
        linear = self._as_asked(tower, base.linear)
        own = {
            weight: self._as_asked(tower, self._layer_format(rule.precision, base.activation))
            for weight, rule in self._exceptions(tower, tensors)
        }
        if own:
            linear = LayerFormats(linear, own)
        is_as_it_was = linear is base.linear and not tuning
        return base if is_as_it_was else replace(base, linear=linear, tuning=tuning or {})

    def check_layers(self, tensors: Iterable[str]) -> None:
        """Every rule must speak of a layer: a misspelt one would change nothing, and say nothing.

        Raises:
            InputError: a rule's pattern fits no layer among the canonical names of the tensors.
        """
        layers = sorted(name for name in tensors if is_layer(name))
        for rule in self.layers:
            if not any(rule.applies(name) for name in layers):
                known = layers[0].removesuffix(".weight") if layers else "visual.merger.linear_fc1"
                raise InputError(
                    f"[layers] {rule.pattern!r} fits no layer of the model. Layers are named like {known}; "
                    "* stands for any characters."
                )

    def exceptions(self, tensors: Iterable[str]) -> dict[str, str]:
        """Layers that have not their tower's precision, and what they have; for the manifest."""
        tensors = list(tensors)
        found = [*self._exceptions("vision", tensors), *self._exceptions("decoder", tensors)]
        return {weight.removesuffix(".weight"): rule.precision for weight, rule in found}

    def padded(self, columns: Mapping[str, int]) -> dict[str, str]:
        """Layers whose rows do not divide into their format's blocks, and how they end; for the manifest.

        Args:
            columns: the length of the rows of each layer, by its weight's name.
        """
        found = {}
        for weight, count in columns.items():
            base = self._precision(tower_of(weight))
            rule = next((rule for rule in self.layers if rule.applies(weight)), None)
            precision = base if rule is None else rule.precision
            linear = self._base(precision).linear
            if isinstance(linear, BlockFormat) and count % linear.block:
                whole = blockwise.block_count(count, linear.block) * linear.block
                note = f"{precision}, rows of {count} padded to {whole}"
                found[weight.removesuffix(".weight")] = note
        return found

    @property
    def tuned(self) -> tuple[Tower, ...]:
        """Towers that calibration must see: those that the recipe names, and those with static scales."""
        static = self.has_static_scales
        return tuple(tower for tower in _TOWERS if static or tower in self.calibrated)

    def tuning_to_pictures(self) -> Recipe:
        """The same when pictures to tune layers to are given: a recipe that looks at no data by itself has
        its towers of 4 bits tuned.

        Raises:
            InputError: nothing in it can be tuned.
        """
        if self.tuned:
            return self
        coarse = tuple(tower for tower in _TOWERS if self._precision(tower) in ("nf4", "int4"))
        if not coarse:
            raise InputError(
                "--calibrate: at this precision nothing is tuned to pictures. Choose int8, nf4 or int4."
            )
        return replace(self, calibrated=coarse)

    @property
    def pictures(self) -> int:
        """How many pictures calibration looks at: more where whole weights are rounded for them."""
        return COMPENSATED_SCENES if any(self._rounds_for_data(tower) for tower in self.tuned) else SCENES

    @property
    def has_static_scales(self) -> bool:
        """Are inputs rounded with scales that calibration has to find?"""
        names = {self.vision, self.decoder, *(rule.precision for rule in self.layers)}
        return self.flavour == "portable" and "int8" in names

    @property
    def shares_decoders(self) -> bool:
        """May one decoder serve two models unasked?

        Not in floating point, nor with static scales: those would have to hold the inputs of both, and the
        embedder would no longer compute what it does alone.
        """
        return not isinstance(self._base(self.decoder).linear, (FloatFormat, QdqFormat))

    def _rounds_for_data(self, tower: Tower) -> bool:
        blocks = isinstance(self._base(self._precision(tower)).linear, (Nf4Format, BlockFormat))
        return blocks or tower in self.compensated

    def _precision(self, tower: Tower) -> str:
        return self.vision if tower == "vision" else self.decoder

    def _base(self, precision: str) -> Precision:
        return _PORTABLE[precision] if self.flavour == "portable" else PRECISIONS[precision].graph

    def _layer_format(self, precision: str, activation: ElementType) -> LinearFormat:
        """The format of one layer in a graph that computes in another precision's activation type."""
        if precision in ("fp16", "fp32") and activation == _HALF:
            return FloatFormat(_HALF)
        if precision == "fp16":
            return HalfFormat()
        layer = self._base(precision).linear
        if isinstance(layer, (Int8Format, Nf4Format, BlockFormat, QdqFormat)):
            return replace(layer, activation=activation)
        return layer

    def _as_asked(self, tower: Tower, linear: LinearFormat) -> LinearFormat:
        """int8 as this recipe wants it in a tower; other formats as they are."""
        compensated = tower in self.compensated
        if not isinstance(linear, Int8Format) or not (compensated or self.unsigned):
            return linear
        return replace(linear, compensated=compensated, unsigned=self.unsigned)

    def _exceptions(self, tower: Tower, tensors: Iterable[str]) -> list[tuple[str, LayerRule]]:
        base = self._precision(tower)
        found = []
        for name in tensors:
            if is_layer(name) and name.startswith(_PREFIXES[tower]):
                rule = next((rule for rule in self.layers if rule.applies(name)), None)
                if rule is not None and rule.precision != base:
                    found.append((name, rule))
        return found


def tower_of(weight: str) -> Tower:
    """The tower that a tensor belongs to, by its canonical name."""
    return "vision" if weight.startswith(_PREFIXES["vision"]) else "decoder"


def is_layer(tensor: str) -> bool:
    """Is this canonical name the weight of a layer that multiplies its input?"""
    return tensor.endswith(".weight") and not _NO_LAYER.search(tensor)
