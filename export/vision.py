"""The vision tower as a graph: patches of S images of one grid -> merged features and deepstack features.

    patches[S,N,P] --patch_embed--> + learned positions --> blocks --> merger -----------> features[S,N/m,H]
                                                              └─ after chosen blocks: deepstack mergers
                                                                                    --> deepstack[K,S,N/m,H]

Attention runs inside one image, so a batch of equal grids needs neither mask nor sequence lengths. Block MLPs
use GELU's tanh form, mergers the exact one. The layout is that of Qwen3-VL in transformers.
"""

from __future__ import annotations

from qvl_local.runtime.model.config import VisionConfig

from .blocks import Network, Precision, node_path
from .checkpoint import Checkpoint
from .dialect import Dialect, VisionAttention
from .graph import Graph, Value
from .linear import narrow
from .onnx_file import ElementType, Model
from .ort_dialect import ORT

# Fixed in the architecture: config.json does not carry it.
LAYER_NORM_EPSILON = 1e-6

_FLOAT = ElementType.FLOAT
_INT64 = ElementType.INT64


def build_vision(checkpoint: Checkpoint, precision: Precision, dialect: Dialect = ORT) -> Model:
    """The vision graph, as `Session` describes it; inputs and outputs are float32."""
    vision = checkpoint.config.vision
    net = Network(Graph("vision_encoder", dialect.opsets), checkpoint, precision, dialect)
    graph = net.graph
    half = vision.head_dim // 2
    patches = graph.input("patches", _FLOAT, ["S", "N", vision.patch_dim])
    pos_idx = graph.input("pos_idx", _INT64, ["N", 4])
    pos_w = graph.input("pos_w", _FLOAT, ["N", 4])
    cos = graph.input("cos", _FLOAT, ["N", half])
    sin = graph.input("sin", _FLOAT, ["N", half])

    attention = dialect.vision_attention(net, patches, cos, sin, heads=vision.num_heads, size=vision.head_dim)
    x = _embed(net, vision, patches, pos_idx, pos_w)
    levels: list[Value] = []
    for block in range(vision.depth):
        x = _block(net, vision, block, x, attention)
        if block in vision.deepstack_layers:
            level = vision.deepstack_layers.index(block)
            levels.append(_merge(net, vision, f"visual.deepstack_merger_list.{level}", x, norm_first=False))
    features = _merge(net, vision, "visual.merger", x, norm_first=True)
    deepstack = _stack(graph, levels, features)
    width = vision.out_hidden_size
    return graph.finish(
        {
            "features": (features, _FLOAT, ["S", "M", width]),
            "deepstack": (deepstack, _FLOAT, [len(levels), "S", "M", width]),
        }
    )


def _embed(net: Network, vision: VisionConfig, patches: Value, pos_idx: Value, pos_w: Value) -> Value:
    """Project patches and add their learned positions, four neighbours weighted."""
    graph, at = net.graph, "/pos_embed"
    x = net.linear(
        net.narrowed(patches, at="/patches"),
        "visual.patch_embed.proj",
        vision.hidden_size,
        vision.patch_dim,
        bias=True,
    )
    name, shape = "visual.pos_embed.weight", (vision.grid_side**2, vision.hidden_size)
    stored = net.checkpoint.stored(name, shape)
    table = graph.weight(name, _FLOAT, shape, lambda: narrow(stored.float32(), _FLOAT, name))
    neighbours = graph.op("Gather", [table, pos_idx], {"axis": 0}, at=at)  # [N, 4, hidden]
    # [N, 1, 4] x [N, 4, hidden]: the weighted sum as a product.
    weights = graph.op("Unsqueeze", [pos_w, graph.int64(1)], at=at)
    learned = graph.op("Squeeze", [graph.op("MatMul", [weights, neighbours], at=at), graph.int64(1)], at=at)
    return graph.op("Add", [net.widened(x, at="/patch_embed"), learned], at=at)


def _block(net: Network, vision: VisionConfig, block: int, x: Value, attention: VisionAttention) -> Value:
    graph, prefix, at = net.graph, f"visual.blocks.{block}", f"/blocks.{block}"
    hidden = vision.hidden_size

    y = net.narrowed(net.layer_norm(x, f"{prefix}.norm1", hidden, LAYER_NORM_EPSILON), at=f"{at}/norm1")
    qkv = net.linear(y, f"{prefix}.attn.qkv", 3 * hidden, hidden, bias=True)
    y = attention.full(qkv, at=f"{at}/attn")
    y = net.linear(y, f"{prefix}.attn.proj", hidden, hidden, bias=True)
    x = graph.op("Add", [x, net.widened(y, at=f"{at}/attn")], at=f"{at}/attn")

    y = net.narrowed(net.layer_norm(x, f"{prefix}.norm2", hidden, LAYER_NORM_EPSILON), at=f"{at}/norm2")
    y = net.linear(y, f"{prefix}.mlp.linear_fc1", vision.intermediate_size, hidden, bias=True)
    y = graph.op("Gelu", [y], {"approximate": "tanh"}, at=f"{at}/mlp")
    y = net.linear(y, f"{prefix}.mlp.linear_fc2", hidden, vision.intermediate_size, bias=True)
    return graph.op("Add", [x, net.widened(y, at=f"{at}/mlp")], at=f"{at}/mlp")


def _merge(net: Network, vision: VisionConfig, prefix: str, x: Value, *, norm_first: bool) -> Value:
    """Join merge x merge patches into one token of the decoder's width.

    The last merger normalises patches and then joins them; deepstack mergers join first.
    """
    graph, at = net.graph, node_path(prefix)
    joined = vision.hidden_size * vision.merge_size**2
    shape = graph.int64(0, -1, joined)
    if norm_first:
        x = net.layer_norm(x, f"{prefix}.norm", vision.hidden_size, LAYER_NORM_EPSILON)
        x = graph.op("Reshape", [x, shape], at=at)
    else:
        x = graph.op("Reshape", [x, shape], at=at)
        x = net.layer_norm(x, f"{prefix}.norm", joined, LAYER_NORM_EPSILON)
    y = net.linear(net.narrowed(x, at=at), f"{prefix}.linear_fc1", joined, joined, bias=True)
    y = graph.op("Gelu", [y], {"approximate": "none"}, at=at)
    y = net.linear(y, f"{prefix}.linear_fc2", vision.out_hidden_size, joined, bias=True)
    return net.widened(y, at=at)


def _stack(graph: Graph, levels: list[Value], features: Value) -> Value:
    """[K, S, M, H]; with no deepstack layer, an empty first axis."""
    first = graph.int64(0)
    if not levels:
        one = graph.op("Unsqueeze", [features, first], at="/deepstack")
        return graph.op("Slice", [one, first, first, first], at="/deepstack")
    rows = [graph.op("Unsqueeze", [level, first], at="/deepstack") for level in levels]
    return graph.op("Concat", rows, {"axis": 0}, at="/deepstack")
