"""Quantized weight formats for ONNX Runtime: the nodes that multiply by them, and the bytes that they store.

    Int8Format     int8 weights, activations rounded token by token       MatMulInteger
    Nf4Format      4-bit NormalFloat in blocks of 64                      com.microsoft MatMulBnb4
    BlockFormat    4- or 8-bit weights in blocks, activations as they are com.microsoft MatMulNBits
    HalfFormat     float16 weights in a graph that computes in float32    Cast, MatMul

The arithmetic is `qvl_local.quant`'s; a weight is read, rounded and written one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qvl_local.quant import blockwise, int8, nf4

from .graph import CONTRIB, Graph, Value
from .linear import LinearFormat, Packed, Weight, narrow, transposed
from .onnx_file import ElementType

Reader = Callable[[], NDArray[Any]]

_FLOAT = ElementType.FLOAT
_HALF = ElementType.FLOAT16


@dataclass(frozen=True, slots=True)
class LayerFormats:
    """A format for each layer: `by_name` goes by the weight's canonical name, `default` takes the others."""

    default: LinearFormat
    by_name: Mapping[str, LinearFormat]

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows]."""
        return self.by_name.get(weight.name, self.default).matmul(graph, x, weight, at=at)

    def loaded(self, weight: Weight) -> NDArray[np.float32]:
        """float32 [rows, columns]: what is stored, as it counts in a product."""
        return self.by_name.get(weight.name, self.default).loaded(weight)


@dataclass(frozen=True, slots=True)
class Int8Format:
    """int8 weights a row, uint8 activations a token; the product is summed exactly in int32.

    The project's own sessions ask ONNX Runtime for its exact kernel; its default one adds products in 16 bits
    on x86 without VNNI, which overflow. `fine` gives activations a second byte, for what rounding to the
    first leaves, and costs a second product: for inputs of heavy tails. `compensated` asks calibration to
    round the weight with its inputs in view. `unsigned` stores weights as bytes around 128, to the same
    products: as ONNX Runtime has them in its exact kernel, and makes them while it loads where they are not.
    """

    activation: ElementType = _FLOAT
    fine: bool = False
    compensated: bool = False
    unsigned: bool = False

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows]."""
        divided = divided_input(graph, x, weight, self.activation, at)
        what = "uint8 tokens and rests" if self.fine else "uint8 tokens"
        tokens, scale = graph.once(what, divided, lambda: self._tokens(graph, divided, at))

        def packed() -> tuple[NDArray[Any], ...]:
            quantized = self._quantized(weight)
            values: NDArray[Any] = transposed(quantized.values)
            if self.unsigned:
                values = values.view(np.uint8)
                np.bitwise_xor(values, int8.ZERO_POINT, out=values)  # adds 128
            return values, narrow(quantized.scale, _FLOAT, weight.name)

        values, row_scale = each_of(packed, 2)
        kind = ElementType.UINT8 if self.unsigned else ElementType.INT8
        stored = graph.weight(weight.name, kind, (weight.columns, weight.rows), values)
        row_scales = graph.weight(f"{weight.name}.scale", _FLOAT, (weight.rows,), row_scale)
        zero = graph.constant(np.uint8(int8.ZERO_POINT))
        # Each weight its own, though all are equal: where ONNX Runtime sums exactly it rewrites signed weight
        # and zero point together, and versions before 1.31 end the process where there is none.
        own = np.array(int8.ZERO_POINT if self.unsigned else 0, kind.numpy)
        own_zero = graph.weight(f"{weight.name}.zero", kind, (), lambda: own)
        y = graph.op("MatMulInteger", [tokens, stored, zero, own_zero], at=at)
        y = graph.op("Cast", [y], {"to": int(_FLOAT)}, at=at)
        if self.fine:
            y, rest = graph.ops("Split", [y], {"axis": 0, "num_outputs": 2}, at=f"{at}/rest", outputs=2)
            rest = graph.op("Mul", [rest, graph.constant(np.float32(1 / int8.REST_STEPS))], at=f"{at}/rest")
            y = graph.op("Add", [y, rest], at=f"{at}/rest")
        y = graph.op("Mul", [graph.op("Mul", [y, scale], at=at), row_scales], at=at)
        return _cast(graph, y, _FLOAT, self.activation, at)

    def loaded(self, weight: Weight) -> NDArray[np.float32]:
        """float32 [rows, columns]: what is stored, as it counts in a product."""
        return weight.undone(int8.dequantize_weight(self._quantized(weight)))

    def _quantized(self, weight: Weight) -> int8.Int8Weight:
        def plain() -> Packed:
            quantized = int8.quantize_weight(weight.multiplied())
            return quantized.values, quantized.scale

        return int8.Int8Weight(*_tuned(weight, plain))

    def _tokens(self, graph: Graph, x: Value, at: str) -> tuple[Value, ...]:
        """uint8 [B, ..., columns] around 128, and float32 [B, ..., 1]: `int8.quantize_tokens` as nodes.

        With `fine` the rests follow the tokens as more rows, uint8 [2 B, ..., columns]: one product does for
        both, and the weight is used once, as ONNX Runtime's exact kernel needs it.
        """
        at = f"{at}/tokens"
        x = _cast(graph, x, self.activation, _FLOAT, at)
        last = graph.int64(-1)
        highest = graph.op("ReduceMax", [x, last], {"keepdims": 1}, at=at)
        lowest = graph.op("Neg", [graph.op("ReduceMin", [x, last], {"keepdims": 1}, at=at)], at=at)
        smallest = graph.constant(np.float32(1e-10))
        largest = graph.op("Max", [highest, lowest, smallest], at=at)
        scale = graph.op("Mul", [largest, graph.constant(np.float32(1 / int8.LIMIT))], at=at)
        exact = graph.op("Div", [x, scale], at=at)
        steps = graph.op("Round", [exact], at=at)
        if not self.fine:
            return _unsigned(graph, steps, at), scale
        at = f"{at}/rest"
        rest = graph.op("Sub", [exact, steps], at=at)
        rest = graph.op("Mul", [rest, graph.constant(np.float32(int8.REST_STEPS))], at=at)
        rest = graph.op("Round", [rest], at=at)
        return _unsigned(graph, graph.op("Concat", [steps, rest], {"axis": 0}, at=at), at), scale


@dataclass(frozen=True, slots=True)
class Nf4Format:
    """4-bit NormalFloat in blocks of 64 along the flattened weight, so that no row length is in the way."""

    activation: ElementType = _FLOAT

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows]."""
        count = weight.rows * weight.columns

        def packed() -> tuple[NDArray[Any], ...]:
            quantized = self._quantized(weight)
            return quantized.codes, narrow(quantized.absmax, self.activation, weight.name)

        codes, absmax = each_of(packed, 2)
        stored = graph.weight(weight.name, ElementType.UINT8, (-(-count // 2),), codes)
        scales = graph.weight(f"{weight.name}.absmax", self.activation, (-(-count // nf4.BLOCK),), absmax)
        attributes = {
            "K": weight.columns,
            "N": weight.rows,
            "block_size": nf4.BLOCK,
            "quant_type": 1,  # 0 is FP4
        }
        return graph.op("MatMulBnb4", [x, stored, scales], attributes, at=at, domain=CONTRIB)

    def loaded(self, weight: Weight) -> NDArray[np.float32]:
        """float32 [rows, columns]: what is stored, as it counts in a product."""
        return nf4.dequantize(self._quantized(weight))

    def _quantized(self, weight: Weight) -> nf4.Nf4:
        def plain() -> Packed:
            quantized = nf4.quantize(weight.read())
            return quantized.codes, quantized.absmax

        return nf4.Nf4(*_tuned(weight, plain), (weight.rows, weight.columns))


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Blocks of 4- or 8-bit codes in each row; a row that does not divide ends in zeros.

    `accuracy` is the operator's `accuracy_level`: 4 rounds activations to int8 in blocks too, which is faster
    on a CPU; 1 keeps them in float32.
    """

    bits: blockwise.Bits
    block: int
    activation: ElementType = _FLOAT
    accuracy: int = 1

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows]."""
        blocks = blockwise.block_count(weight.columns, self.block)

        def packed() -> tuple[NDArray[Any], ...]:
            quantized = self._quantized(weight)
            return quantized.codes, narrow(quantized.scales, self.activation, weight.name)

        codes, block_scales = each_of(packed, 2)
        shape = (weight.rows, blocks, self.block * self.bits // 8)
        stored = graph.weight(weight.name, ElementType.UINT8, shape, codes)
        scales = graph.weight(f"{weight.name}.scales", self.activation, (weight.rows, blocks), block_scales)
        attributes = {
            "K": weight.columns,
            "N": weight.rows,
            "bits": self.bits,
            "block_size": self.block,
            "accuracy_level": self.accuracy,
        }
        return graph.op("MatMulNBits", [x, stored, scales], attributes, at=at, domain=CONTRIB)

    def loaded(self, weight: Weight) -> NDArray[np.float32]:
        """float32 [rows, columns]: what is stored, as it counts in a product."""
        return blockwise.dequantize(self._quantized(weight))

    def _quantized(self, weight: Weight) -> blockwise.Blocks:
        def plain() -> Packed:
            quantized = blockwise.quantize(weight.read(), bits=self.bits, block=self.block)
            return quantized.codes, quantized.scales

        return blockwise.Blocks(*_tuned(weight, plain), self.bits, self.block, weight.columns)


@dataclass(frozen=True, slots=True)
class HalfFormat:
    """float16 weights for float32 activations: half the file; an engine may widen them when it loads."""

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows]."""
        stored = graph.weight(
            weight.name,
            _HALF,
            (weight.columns, weight.rows),
            lambda: transposed(narrow(weight.read(), _HALF, weight.name)),
        )
        return graph.op("MatMul", [x, _cast(graph, stored, _HALF, _FLOAT, at)], at=at)

    def loaded(self, weight: Weight) -> NDArray[np.float32]:
        """float32 [rows, columns]: what is stored, as it counts in a product."""
        return narrow(weight.read(), _HALF, weight.name).astype(np.float32)


def _unsigned(graph: Graph, steps: Value, at: str) -> Value:
    """Whole numbers in [-127, 127] as uint8 around 128."""
    shifted = graph.op("Add", [steps, graph.constant(np.float32(int8.ZERO_POINT))], at=at)
    return graph.op("Cast", [shifted], {"to": int(ElementType.UINT8)}, at=at)


def divided_input(graph: Graph, x: Value, weight: Weight, activation: ElementType, at: str) -> Value:
    """The input with its channels divided."""
    tuning = weight.tuning
    if tuning is None or tuning.divisor is None:
        return x
    divisor = tuning.divisor

    def divided() -> tuple[Value, ...]:
        factors = graph.weight(
            f"{tuning.group}.input_factors",
            activation,
            (weight.columns,),
            lambda: narrow(np.reciprocal(divisor), activation, weight.name),
        )
        return (graph.op("Mul", [x, factors], at=f"{at}/input"),)

    (y,) = graph.once(f"divided for {tuning.group}", x, divided)
    return y


def _tuned(weight: Weight, plain: Callable[[], Packed]) -> Packed:
    """Codes and scales: those that calibration chose, else those of the weight by itself."""
    if weight.tuning is None or weight.tuning.packed is None:
        return plain()
    return weight.tuning.packed()


def _cast(graph: Graph, x: Value, given: ElementType, wanted: ElementType, at: str) -> Value:
    return x if given == wanted else graph.op("Cast", [x], {"to": int(wanted)}, at=at)


def each_of(make: Callable[[], tuple[NDArray[Any], ...]], count: int) -> list[Reader]:
    """A reader for each of the `count` arrays that one computation gives.

    The first one asked for computes; the others are handed out and forgotten, so that written in turn they
    cost one computation and the memory of one weight.
    """
    waiting: dict[int, NDArray[Any]] = {}

    def reader(number: int) -> Reader:
        def read() -> NDArray[Any]:
            if number not in waiting:
                waiting.update(enumerate(make()))
            return waiting.pop(number)

        return read

    return [reader(number) for number in range(count)]
