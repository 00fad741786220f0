"""How each precision stores weights: bits, blocks and scales, and what an engine holds for a byte of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Format:
    """How the matrices of a tower are stored: `bits` a weight, `block_bytes` a block, `row_bytes` a row,
    `own_bytes` a matrix.

    `block` counts weights, within a row (which a last, filled-up block may lengthen) or, if `flat`, through
    the whole matrix; 0 means no blocks. `activation_bytes`: of one number that flows through the graph.
    `cpu_held`: bytes that ONNX Runtime holds on a CPU for one that is stored, measured.
    """

    bits: int
    activation_bytes: int = 4
    block: int = 0
    block_bytes: int = 0
    row_bytes: int = 0
    own_bytes: int = 0
    flat: bool = False
    cpu_held: float = 1.0

    def matrix_bytes(self, rows: int, columns: int) -> int:
        """Bytes of a stored matrix [rows, columns] with its scales."""
        if not self.block:
            return rows * columns * self.bits // 8 + rows * self.row_bytes + self.own_bytes
        if self.flat:
            count = rows * columns
            return -(-count * self.bits // 8) + -(-count // self.block) * self.block_bytes
        blocks = rows * -(-columns // self.block)
        return blocks * (self.block * self.bits // 8 + self.block_bytes) + rows * self.row_bytes


@dataclass(frozen=True, slots=True)
class Storage:
    """What one precision means for each part. `table_bytes`: of one number of the token table.

    `attention`: of the decoder's attention, where that is stored otherwise than its MLPs.
    """

    vision: Format
    decoder: Format
    table_bytes: int
    attention: Format | None = None


_FP32 = Format(bits=32)
# What is held was measured with ONNX Runtime 1.31 (`benchmarks/weight_formats.py`). CPU kernels multiply
# float16 in float32, from a copy that is made at loading.
_FP16 = Format(bits=16, activation_bytes=2, cpu_held=2.0)
# The same numbers in a graph that computes in float32.
_HALF = Format(bits=16, cpu_held=2.0)
_INT8 = Format(bits=8, row_bytes=4, own_bytes=1)
_INT8_VISION = Format(bits=8, row_bytes=4, own_bytes=1, cpu_held=1.15)
_INT8_WEIGHT = Format(bits=8, block=128, block_bytes=4)
# Repacked for its kernel at loading.
_INT4 = Format(bits=4, block=32, block_bytes=4, cpu_held=1.4)
_NF4 = Format(bits=4, block=64, block_bytes=4, flat=True)

STORAGE: Mapping[str, Storage] = MappingProxyType(
    {
        "fp32": Storage(_FP32, _FP32, table_bytes=4),
        "fp16": Storage(_FP16, _FP16, table_bytes=2),
        "int8": Storage(_INT8_VISION, _INT8, table_bytes=2),
        # Its activations in two bytes share one weight, so that is held once.
        "int8-safe": Storage(_FP16, _INT8, table_bytes=2, attention=_HALF),
        "int8-weight": Storage(_INT8_WEIGHT, _INT8_WEIGHT, table_bytes=2),
        "int4": Storage(_INT8_WEIGHT, _INT4, table_bytes=2),
        "nf4": Storage(_INT8_WEIGHT, _NF4, table_bytes=2),
    }
)
"""The precisions that can be planned. `int8-dynamic` is optimum's, to compare with, and never recommended."""
