"""Static int8 for the portable flavour: QuantizeLinear and DequantizeLinear around every product.

    x --Quantize--> int8 --Dequantize--\\
                                         MatMul
    weight int8 [K, N] --Dequantize----/

Nothing here multiplies integers: the graph says which values are int8, and an engine that has int8 kernels
(TensorRT; explicit quantization) replaces the pattern by one. Zero points are 0, as TensorRT demands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qvl_local.quant import static_int8
from qvl_local.runtime.errors import CheckpointError

from .graph import Graph, Value
from .linear import Weight, transposed
from .onnx_file import ElementType
from .quantized import divided_input, each_of


@dataclass(frozen=True, slots=True)
class QdqFormat:
    """int8 weights a row, int8 inputs a layer; `activation` is what the graph computes in between.

    The largest magnitude of a layer's input comes from calibration, with the layer's `Tuning`.
    """

    activation: ElementType = ElementType.FLOAT16

    def matmul(self, graph: Graph, x: Value, weight: Weight, *, at: str) -> Value:
        """x [..., columns] -> [..., rows].

        Raises:
            CheckpointError: calibration did not see the layer, or saw what is no number.
        """
        absmax = None if weight.tuning is None else weight.tuning.absmax
        if absmax is None or not np.isfinite(absmax):
            seen = "saw no input" if absmax is None else f"saw inputs up to {absmax}"
            raise CheckpointError(
                f"{weight.name}: calibration {seen}, so its int8 scale is unknown. "
                "Keep the layer at fp16 by a rule in the recipe, or calibrate with other inputs."
            )
        x = divided_input(graph, x, weight, self.activation, at)
        dtype = self._scale_type
        scale = graph.constant(static_int8.input_scale(absmax, dtype))
        zero = graph.constant(np.int8(0))

        def rounded() -> tuple[Value, ...]:
            codes = graph.op("QuantizeLinear", [x, scale, zero], at=f"{at}/input")
            return (graph.op("DequantizeLinear", [codes, scale, zero], at=f"{at}/input"),)

        def packed() -> tuple[NDArray[Any], ...]:
            quantized = static_int8.quantize_rows(weight.multiplied(), dtype)
            return transposed(quantized.values), quantized.scale

        # Projections of one input share its codes.
        (x_int8,) = graph.once(f"int8 steps of {scale.name}", x, rounded)
        values, row_scale = each_of(packed, 2)
        codes = graph.weight(weight.name, ElementType.INT8, (weight.columns, weight.rows), values)
        scales = graph.weight(f"{weight.name}.scale", self.activation, (weight.rows,), row_scale)
        # One of its own for each weight: ONNX Runtime, asked for exact products of bytes, rewrites weights to
        # uint8 and stumbles over zero points that are left out or shared.
        zeros = graph.weight(
            f"{weight.name}.zero_point",
            ElementType.INT8,
            (weight.rows,),
            lambda: np.zeros(weight.rows, np.int8),
        )
        w = graph.op("DequantizeLinear", [codes, scales, zeros], {"axis": 1}, at=f"{at}/weight")
        return graph.op("MatMul", [x_int8, w], at=at)

    def loaded(self, weight: Weight) -> NDArray[np.float32]:
        """float32 [rows, columns]: what is stored, as it counts in a product."""
        rows = static_int8.quantize_rows(weight.multiplied(), self._scale_type)
        return weight.undone(static_int8.dequantize_rows(rows))

    @property
    def _scale_type(self) -> type[np.floating]:
        return np.float16 if self.activation == ElementType.FLOAT16 else np.float32
