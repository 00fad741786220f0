"""Static int8 for the portable flavour: QuantizeLinear and DequantizeLinear around every product.

    x --Quantize--> int8 --Dequantize--\\
                                         MatMul
    weight int8 [K, N] --Dequantize----/

Nothing here multiplies integers: the graph says which values are int8, and an engine that has int8 kernels
(TensorRT; explicit quantization) replaces the pattern by one. Zero points are 0, as TensorRT demands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qvl_local.quant import static_int8
from qvl_local.runtime.errors import CheckpointError

from .graph import Graph, Value
from .linear import Weight, transposed
from .onnx_file import ElementType


@dataclass(frozen=True, slots=True)
class QdqFormat:
    """int8 weights a row, int8 inputs a layer.

    `absmax` gives the largest magnitude that calibration saw in each layer's input, by the canonical name of
    its weight. `activation` is what the graph computes in between.
    """

    absmax: Mapping[str, float]
    activation: ElementType = ElementType.FLOAT16

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows].

        Raises:
            CheckpointError: calibration did not see the layer, or saw numbers without end.
        """
        absmax = self.absmax.get(weight.name)
        if absmax is None or not np.isfinite(absmax):
            seen = "saw no input" if absmax is None else f"saw inputs up to {absmax}"
            raise CheckpointError(
                f"{weight.name}: calibration {seen}, so its int8 scale is unknown. "
                "Keep the layer at fp16 by a rule in the recipe, or calibrate with other inputs."
            )
        dtype = np.float16 if self.activation == ElementType.FLOAT16 else np.float32
        scale = graph.constant(static_int8.input_scale(absmax, dtype))
        zero = graph.constant(np.int8(0))

        def rounded() -> tuple[Value, ...]:
            codes = graph.op("QuantizeLinear", [x, scale, zero], at=f"{at}/input")
            return (graph.op("DequantizeLinear", [codes, scale, zero], at=f"{at}/input"),)

        # Projections of one input share its codes.
        (x_int8,) = graph.once(f"int8 steps of {scale.name}", x, rounded)
        packed = _Packed(weight, dtype)
        codes = graph.weight(weight.name, ElementType.INT8, (weight.columns, weight.rows), packed.codes)
        scales = graph.weight(f"{weight.name}.scale", self.activation, (weight.rows,), packed.scale)
        w = graph.op("DequantizeLinear", [codes, scales], {"axis": 1}, at=f"{at}/weight")
        return graph.op("MatMul", [x_int8, w], at=at)


class _Packed:
    """A weight's codes and scales: two tensors that are written one after the other, and computed once."""

    def __init__(self, weight: Weight, dtype: type[np.floating]) -> None:
        self._weight, self._dtype = weight, dtype
        self._scale: NDArray[np.floating] | None = None

    def codes(self) -> NDArray[np.int8]:
        """int8 [columns, rows]."""
        quantized = static_int8.quantize_rows(self._weight.read(), self._dtype)
        self._scale = quantized.scale
        return transposed(quantized.values)

    def scale(self) -> NDArray[np.floating]:
        """[rows]; asked for after the codes, or on its own."""
        if self._scale is None:
            return static_int8.quantize_rows(self._weight.read(), self._dtype).scale
        scale, self._scale = self._scale, None
        return scale
