"""What calibration decides for each layer of a recipe: a divisor of its input, or how its weight is rounded.

Layers of int8 activations get the divisor that spreads outlier channels, where the rounded product on real
inputs gets closer to the exact one; layers that share an input share its divisor. Weights in blocks, and int8
rows of a `compensated` format once their divisor is chosen, are rounded with their inputs in view, each by
itself; the result waits in a file until it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from qvl_local.quant import compensation, int8, smoothing, static_int8
from qvl_local.runtime.model.bundle import Role

from .calibration import COMPENSATED_ROWS, ROWS, Example, LayerInputs, observe_inputs
from .checkpoint import Checkpoint
from .linear import LinearFormat, Packed, Tuning
from .qdq import QdqFormat
from .quantized import BlockFormat, Int8Format, LayerFormats, Nf4Format
from .reference import Floats
from .spool import Spool

# Layers that are given the same input, by the end of their names.
_SHARED_INPUTS = {
    "self_attn.q_proj": "self_attn.qkv",
    "self_attn.k_proj": "self_attn.qkv",
    "self_attn.v_proj": "self_attn.qkv",
    "mlp.gate_proj": "mlp.gate_up",
    "mlp.up_proj": "mlp.gate_up",
}
_ROWS_AT_ONCE = 1024


def tune(
    checkpoint: Checkpoint,
    role: Role,
    examples: Sequence[Example],
    formats: Callable[[str], LinearFormat | None],
    *,
    spool: Spool,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Tuning]:
    """Run examples through a checkpoint and choose for every layer, by its weight's name.

    Args:
        checkpoint: embedder or reranker.
        role: which of the two.
        examples: what to look at.
        formats: the format that a weight is going to have; None where nothing is to be chosen.
        spool: where rounded weights wait, kept open until the graphs are written.
        progress: told how far the run is, in [0, 1].
    """
    tuner = _Tuner(checkpoint, formats, spool)
    compensated = any(is_compensated(formats(name)) for name in checkpoint.names())
    rows = COMPENSATED_ROWS if compensated else ROWS
    observe_inputs(checkpoint, role, examples, tuner.visit, rows=rows, progress=progress)
    tuner.finish()
    return tuner.found


def widest(one: Mapping[str, Tuning], other: Mapping[str, Tuning]) -> dict[str, Tuning]:
    """What was chosen for one model's layers, with static scales that hold the other's inputs too."""
    return {
        name: tuning
        if tuning.absmax is None or name not in other
        else replace(tuning, absmax=max(tuning.absmax, other[name].absmax or 0.0))
        for name, tuning in one.items()
    }


def format_of(linear: LinearFormat, weight: str) -> LinearFormat:
    """The format that a graph gives to one weight."""
    if isinstance(linear, LayerFormats):
        return linear.by_name.get(weight, linear.default)
    return linear


def is_compensated(linear: LinearFormat | None) -> bool:
    """Is a calibrated weight of this format rounded with its inputs in view?"""
    if isinstance(linear, Int8Format):
        return linear.compensated
    return isinstance(linear, (Nf4Format, BlockFormat))


class _Tuner:
    """Collects the layers of one input, and decides when another input begins."""

    def __init__(
        self, checkpoint: Checkpoint, formats: Callable[[str], LinearFormat | None], spool: Spool
    ) -> None:
        self._checkpoint = checkpoint
        self._formats = formats
        self._spool = spool
        self._group = ""
        self._inputs: LayerInputs | None = None
        self._members: list[str] = []
        self.found: dict[str, Tuning] = {}

    def visit(self, name: str, inputs: LayerInputs) -> None:
        group = _input_of(name)
        if group != self._group:
            self.finish()
            self._group = group
        linear = self._formats(name)
        if isinstance(linear, (Nf4Format, BlockFormat)):
            self.found[name] = Tuning(group, packed=self._kept(self._compensated(name, linear, inputs)))
        elif linear is not None:
            self._members.append(name)
            self._inputs = inputs
            if group == name.removesuffix(".weight"):  # no other layer is given this
                self.finish()

    def finish(self) -> None:
        """Decide for what has been collected."""
        if self._members and self._inputs is not None:
            self._decide(self._members, self._inputs)
        self._members, self._inputs = [], None

    def _decide(self, names: Sequence[str], inputs: LayerInputs) -> None:
        first = self._formats(names[0])
        # One input has one divisor, so its layers must be of one kind to have any.
        if first is None or any(type(self._formats(name)) is not type(first) for name in names):
            largest = float(inputs.absmax.max())
            for name in names:
                linear = self._formats(name)
                if isinstance(linear, QdqFormat):
                    self.found[name] = Tuning(self._group, absmax=largest)
                elif isinstance(linear, Int8Format) and linear.compensated:
                    kept = self._kept(self._compensated_rows(name, inputs.rows, None))
                    self.found[name] = Tuning(self._group, packed=kept)
            return
        rounded = _rounded_product(first)
        if rounded is None:
            return
        divisor = self._divisor(first, names, inputs, rounded)
        rows = inputs.rows if divisor is None else inputs.rows / divisor
        for name in names:
            linear = self._formats(name)
            packed: Callable[[], Packed] | None = None
            if isinstance(linear, Int8Format) and linear.compensated:
                packed = self._kept(self._compensated_rows(name, rows, divisor))
            self.found[name] = Tuning(
                group=self._group,
                divisor=divisor,
                absmax=float(np.max(inputs.absmax / (1 if divisor is None else divisor))),
                packed=packed,
            )

    def _divisor(
        self,
        linear: LinearFormat,
        names: Sequence[str],
        inputs: LayerInputs,
        rounded: smoothing.RoundedProduct,
    ) -> Floats | None:
        """Made from all examples, if one made from half of them serves the others.

        A channel that is loud in one picture may be quiet in the next. What is tried on the inputs that it
        was made from looks better than it is: it magnifies whatever was quiet there.
        """
        if isinstance(linear, QdqFormat):
            # A divisor magnifies channels that calibration saw little of, and a static scale clips them.
            return None
        largest = np.maximum.reduce([self._column_absmax(name) for name in names])
        choice = smoothing.choose(
            [self._some_rows(name) for name in names],
            inputs.other_rows,
            [
                (strength, smoothing.outlier_divisor(inputs.half_absmax, largest, strength))
                for strength in smoothing.OUTLIER_STRENGTHS
            ],
            rounded,
        )
        if choice.divisor is None:
            return None
        divisor = smoothing.outlier_divisor(inputs.absmax, largest, choice.strength)
        if isinstance(linear, Int8Format) and linear.compensated:
            return divisor if self._serves_compensated(linear, names, inputs, divisor) else None
        return divisor

    def _serves_compensated(
        self, linear: Int8Format, names: Sequence[str], inputs: LayerInputs, divisor: Floats
    ) -> bool:
        """Is a divisor worth it for rows that are compensated too?

        Compensation by itself spares the columns of loud channels. A divisor makes them large, and every
        row's step with them: where activations have two bytes it can cost more than it gives.
        """
        some = np.concatenate([self._some_rows(name) for name in names])
        exact = inputs.other_rows @ some.T

        def lost(by: Floats) -> float:
            packed = compensation.int8_weight(some * by, inputs.rows / by)
            given = int8.product(inputs.other_rows / by, packed, fine=linear.fine)
            return float(np.linalg.norm(given - exact))

        return lost(divisor) < smoothing.WORTHWHILE * lost(np.ones_like(divisor))

    def _compensated(self, name: str, linear: Nf4Format | BlockFormat, inputs: LayerInputs) -> Packed:
        """Codes and block scales of a weight, rounded with its inputs in view."""
        weight = self._weight(name)
        if isinstance(linear, Nf4Format):
            flat = compensation.nf4_weight(weight, inputs.rows)
            return flat.codes, flat.absmax
        blocks = compensation.block_weight(weight, inputs.rows, bits=linear.bits, block=linear.block)
        return blocks.codes, blocks.scales

    def _compensated_rows(self, name: str, rows: Floats, divisor: Floats | None) -> Packed:
        """Codes and scales of a weight with its columns multiplied, for rows that are already divided."""
        weight = self._weight(name)
        if divisor is not None:
            weight = weight * divisor
        chosen = compensation.int8_weight(weight, rows)
        return chosen.values, chosen.scale

    def _weight(self, name: str) -> Floats:
        stored = self._checkpoint.stored(name)
        return stored.float32().reshape(stored.shape[0], _columns(stored.shape))

    def _kept(self, packed: Packed) -> Callable[[], Packed]:
        """Store codes and scales in the spool; what reads them back."""
        codes, scales = (self._spool.keep(one) for one in packed)
        return lambda: (codes.read(), scales.read())

    def _some_rows(self, name: str) -> Floats:
        stored = self._checkpoint.stored(name)
        count = stored.shape[0]
        chosen = np.unique(np.linspace(0, count - 1, min(count, smoothing.ROWS)).astype(np.int64))
        return stored.rows(chosen).reshape(len(chosen), -1)

    def _column_absmax(self, name: str) -> Floats:
        stored = self._checkpoint.stored(name)
        largest = [
            np.abs(stored.rows(slice(start, start + _ROWS_AT_ONCE)).reshape(-1, _columns(stored.shape))).max(
                axis=0
            )
            for start in range(0, stored.shape[0], _ROWS_AT_ONCE)
        ]
        result: Floats = np.maximum.reduce(largest)
        return result


def _rounded_product(linear: LinearFormat) -> smoothing.RoundedProduct | None:
    """What a format makes of a product, in numpy."""
    if isinstance(linear, Int8Format):
        fine = linear.fine
        return lambda w, x: int8.product(x, int8.quantize_weight(w), fine=fine)
    if isinstance(linear, QdqFormat):
        return static_int8.product
    return None


def _input_of(weight: str) -> str:
    """A name for the input of a layer: equal where layers are given the same."""
    layer = weight.removesuffix(".weight")
    for end, shared in _SHARED_INPUTS.items():
        if layer.endswith(end):
            return layer.removesuffix(end) + shared
    return layer


def _columns(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64))
