"""What TensorRT's ONNX parser takes, and the check that a graph asks for nothing else.

The table is that of onnx-tensorrt's docs/operators.md for TensorRT 10.15, the first version with all of
Attention (10.14), RMSNormalization and RotaryEmbedding (10.15): operators of the standard domain, the types
of their data, and the restrictions that our graphs could run into. It is checked when a graph is built, so a
node that TensorRT would refuse is named on the machine that exports, not on the one with the graphics card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from qvl_local.runtime.errors import ModelError

from .onnx_file import ElementType, Model, Node

TENSORRT_VERSION = "10.15"
OPSETS = range(9, 25)

_FLOATS = "fp32 fp16 bf16"
_NUMBERS = f"{_FLOATS} int32 int64"
_ANY = f"{_NUMBERS} bool"

_GROUPS: tuple[tuple[str, str], ...] = (
    (
        _FLOATS,
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose "
        "Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool "
        "GlobalMaxPool GroupNormalization HardSigmoid HardSwish Hardmax ImageScaler InstanceNormalization "
        "IsInf LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool "
        "MeanVarianceNormalization PRelu ParametricSoftplus QuantizeLinear RMSNormalization RNN RandomNormal "
        "RandomNormalLike RandomUniform RandomUniformLike Reciprocal Resize RotaryEmbedding Round ScaledTanh "
        "Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample",
    ),
    (
        _NUMBERS,
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min "
        "Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean "
        "ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign "
        "SpaceToDepth Sub Sum TopK",
    ),
    (
        _ANY,
        "Concat Expand EyeLike Flatten Gather GatherElements GatherND Identity If OneHot Reshape "
        "ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where",
    ),
    (f"{_FLOATS} int8 fp8", "Attention"),
    (f"{_ANY} uint8", "Cast CastLike"),
    (f"{_ANY} fp8 fp4 int4", "Constant ConstantOfShape"),
    ("int8 fp8 fp4 int4", "DequantizeLinear"),
    (f"{_NUMBERS} int8", "Gelu"),
    (f"{_NUMBERS} fp8", "Mean"),
    (f"{_NUMBERS} bool", "Loop"),
    ("fp32 fp16 bf16 int32", "TensorScatter"),
    (
        "fp32 fp16",
        "BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero "
        "RoiAlign",
    ),
    ("fp32", "STFT"),
    ("bool", "And Not Or Xor"),
)

SUPPORTED: Mapping[str, frozenset[str]] = MappingProxyType(
    {operator: frozenset(types.split()) for types, operators in _GROUPS for operator in operators.split()}
)
"""Types of data, by operator."""

_NAMES = {
    ElementType.FLOAT: "fp32",
    ElementType.FLOAT16: "fp16",
    ElementType.UINT8: "uint8",
    ElementType.INT8: "int8",
    ElementType.INT32: "int32",
    ElementType.INT64: "int64",
    ElementType.BOOL: "bool",
}
_DATA_INPUT = {"Where": 1}
_CONSTANT_AXES = {name: 1 for name in SUPPORTED if name in ("Squeeze", "Unsqueeze") or "Reduce" in name}
_RESULTS: Mapping[str, ElementType] = MappingProxyType(
    {
        "Shape": ElementType.INT64,
        "Size": ElementType.INT64,
        "Equal": ElementType.BOOL,
        "Greater": ElementType.BOOL,
        "GreaterOrEqual": ElementType.BOOL,
        "Less": ElementType.BOOL,
        "LessOrEqual": ElementType.BOOL,
        "QuantizeLinear": ElementType.INT8,
    }
)


def check_operators(model: Model) -> None:
    """Refuse a graph that TensorRT's parser would not take.

    Raises:
        ModelError: it names the first such node, and why.
    """
    opset = model.opsets.get("", 0)
    if opset not in OPSETS:
        raise ModelError(
            f"{model.name}: is written with opset {opset}; TensorRT {TENSORRT_VERSION} reads "
            f"{OPSETS.start} to {OPSETS.stop - 1}. Export with --flavour portable."
        )
    constants: dict[str, np.ndarray] = {constant.name: constant.value for constant in model.constants}
    constants |= {
        weight.name: weight.load() for weight in model.weights if weight.name.endswith(".zero_point")
    }
    types = {value.name: value.type for value in model.inputs}
    types |= {weight.name: weight.type for weight in model.weights}
    types |= {name: ElementType.of(value.dtype) for name, value in constants.items()}
    for node in model.nodes:
        reason = _refusal(node, types, constants)
        if reason is not None:
            raise ModelError(
                f"{model.name}: TensorRT {TENSORRT_VERSION} does not take the node {node.name}: {reason}. "
                "Export with --flavour portable, at fp32, fp16 or int8."
            )
        for output in node.outputs:
            types[output] = _result(node, types)


def _refusal(node: Node, types: Mapping[str, ElementType], constants: Mapping[str, np.ndarray]) -> str | None:
    """Why a node would be refused; None when it would not be."""
    if node.domain:
        return f"{node.op} is an operator of {node.domain}, not of the ONNX standard"
    supported = SUPPORTED.get(node.op)
    if supported is None:
        return f"its parser has no {node.op}"
    data = _NAMES[types[node.inputs[_DATA_INPUT.get(node.op, 0)]]]
    if data not in supported:
        return f"{node.op} is for {', '.join(sorted(supported))}, not for {data}"
    axes = _CONSTANT_AXES.get(node.op)
    if axes is not None and len(node.inputs) > axes and node.inputs[axes] not in constants:
        return f"the axes of {node.op} must be constant"
    restriction = _RESTRICTIONS.get(node.op)
    return None if restriction is None else restriction(node, constants)


def _zero_point(node: Node, constants: Mapping[str, np.ndarray]) -> str | None:
    """QuantizeLinear and DequantizeLinear, the third input."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        # Left out, it is 0; of the type uint8 for QuantizeLinear, which is no type for data here.
        return "its zero point must be given, as int8" if node.op == "QuantizeLinear" else None
    zero = constants.get(node.inputs[2])
    if zero is None or zero.any():
        return f"the zero point of {node.op} must be a constant 0"
    return None if zero.dtype == np.int8 else f"{node.op} must be of int8, not {zero.dtype}"


def _attention(node: Node, constants: Mapping[str, np.ndarray]) -> str | None:  # noqa: ARG001
    """Heads lie on an axis of their own, so nothing may say that they do not."""
    if len(node.outputs) != 1:
        return "Attention may have one output only"
    if any(node.inputs[4:]):
        return "Attention may have no past keys, past values or lengths"
    three_dimensional = {"q_num_heads", "kv_num_heads"}.intersection(node.attributes)
    if three_dimensional or {"softcap", "qk_matmul_output_mode"}.intersection(node.attributes):
        return f"Attention may not have {', '.join(sorted(node.attributes))}"
    return None


def _one_output(node: Node, constants: Mapping[str, np.ndarray]) -> str | None:  # noqa: ARG001
    return None if len(node.outputs) == 1 else f"{node.op} may have one output only"


_RESTRICTIONS: Mapping[str, Callable[[Node, Mapping[str, np.ndarray]], str | None]] = MappingProxyType(
    {
        "Attention": _attention,
        "DequantizeLinear": _zero_point,
        "LayerNormalization": _one_output,
        "QuantizeLinear": _zero_point,
    }
)


def _result(node: Node, types: Mapping[str, ElementType]) -> ElementType:
    """The type that a node gives: its data's, unless the operator is made to change it."""
    if node.op == "Cast":
        to = node.attributes["to"]
        return ElementType(to if isinstance(to, int) else 0)
    if node.op == "DequantizeLinear":
        return types[node.inputs[1]]
    known = _RESULTS.get(node.op)
    return types[node.inputs[_DATA_INPUT.get(node.op, 0)]] if known is None else known
