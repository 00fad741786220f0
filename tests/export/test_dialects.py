"""Flavour x precision: portable graphs compute what the checkpoint does, and TensorRT's parser takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from qvl_local.export.calibration import world_examples
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.flavour import OPSETS, dialect_of
from qvl_local.export.graph import CONTRIB
from qvl_local.export.layout import AskedLayout
from qvl_local.export.onnx_file import Model, write_model
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import PRECISIONS, LayerRule, Recipe
from qvl_local.export.tensorrt_operators import SUPPORTED, check_operators
from qvl_local.export.vision import build_vision
from qvl_local.runtime.errors import InputError, ModelError
from qvl_local.runtime.model.bundle import Bundle, Role, open_bundle
from qvl_local.runtime.model.checkpoints import Checkpoint as Source

# As odd as the real models' shapes: vision heads of 72, three queries a key, a head of its own, and deepstack
# features up to the last decoder layer, which broadcast when there is only text.
ODD = {
    "vision_hidden": 144,
    "vision_heads": 2,
    "vision_intermediate": 150,
    "hidden": 80,
    "heads": 6,
    "kv_heads": 2,
    "head_dim": 24,
    "layers": 2,
    "deepstack": (0, 2),
    "tied": False,
    "dtype": "bfloat16",
}
PRECISIONS_OF_BOTH = ("fp32", "fp16", "int8")


@pytest.mark.parametrize("opset", OPSETS["portable"])
@pytest.mark.parametrize("precision", PRECISIONS_OF_BOTH)
@pytest.mark.parametrize("which", ["tiny", "odd"])
def test_portable_bundles_pass_parity(
    which: str,
    precision: str,
    opset: int,
    tiny: dict[str, Path],
    random_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = tiny["embedder"] if which == "tiny" else random_checkpoint(**ODD)
    recipe = Recipe.of(precision, flavour="portable", opset=opset)
    if which == "odd":  # random layers amplify rounding; what is asked for here is that nothing is misplaced
        recipe = replace(recipe, allowed=replace(recipe.tolerance, min_cosine=0.98))
    manifest = export_bundle(
        {"embedder": Source(path=folder, name=which)},
        tmp_path / "bundle",
        recipe=recipe,
        examples=world_examples(2),
    )
    assert (manifest.flavour, manifest.opset) == ("portable", opset)
    assert open_bundle(tmp_path / "bundle").manifest == manifest
    for graph in (manifest.parts["embedder"].vision, manifest.parts["embedder"].decoder):
        model = onnx.load(tmp_path / "bundle" / graph, load_external_data=False)
        assert [(one.domain, one.version) for one in model.opset_import] == [("", opset)]
        assert {node.domain for node in model.graph.node} == {""}
        onnx.checker.check_model(tmp_path / "bundle" / graph, full_check=True)


@pytest.mark.parametrize("opset", OPSETS["portable"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_node_is_one_that_tensorrt_takes(
    precision: str, opset: int, random_checkpoint: Callable[..., Path]
) -> None:
    shapes: list[dict[str, Any]] = [{}, ODD, {"layers": 1, "deepstack": (1,)}, {"kv_heads": 4}]
    for shape in shapes:
        for model in _models(random_checkpoint(**shape), precision, opset):
            check_operators(model)
            assert {node.op for node in model.nodes} <= set(SUPPORTED)


def test_fused_and_plain_graphs_differ_as_they_should(random_checkpoint: Callable[..., Path]) -> None:
    fused = {node.op for model in _models(random_checkpoint(**ODD), "fp16", 23) for node in model.nodes}
    plain = {node.op for model in _models(random_checkpoint(**ODD), "fp16", 20) for node in model.nodes}
    assert {"Attention", "RMSNormalization", "RotaryEmbedding"} <= fused
    assert not {"Attention", "RMSNormalization", "RotaryEmbedding"} & plain
    for model in _models(random_checkpoint(**ODD), "fp16", 23):
        for node in model.nodes:
            if node.op == "Attention":
                assert len(node.outputs) == 1
                assert "q_num_heads" not in node.attributes  # heads lie on an axis of their own


# ---- the table, and what it refuses ----


def test_a_contrib_operator_is_refused_by_name(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = Checkpoint(random_checkpoint())
    model = build_decoder(checkpoint, PRECISIONS["fp32"].graph)
    with pytest.raises(ModelError, match=r"/layers\.0/self_attn/q/RotaryEmbedding: .* of com\.microsoft"):
        check_operators(model)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"op": "DynamicQuantizeLinear"}, "its parser has no DynamicQuantizeLinear"),
        ({"domain": CONTRIB}, "not of the ONNX standard"),
        ({"outputs": ("a", "b")}, "one output only"),
        ({"attributes": {"q_num_heads": 4}}, "may not have q_num_heads"),
        ({"op": "Not"}, "Not is for bool, not for fp32"),
    ],
)
def test_a_node_that_tensorrt_would_refuse_is_named(
    change: dict[str, Any], reason: str, random_checkpoint: Callable[..., Path]
) -> None:
    decoder = _models(random_checkpoint(), "fp32", 23)[1]
    with pytest.raises(ModelError, match=f"/layers.0/self_attn/Attention: .*{reason}"):
        check_operators(_changed(decoder, "/layers.0/self_attn/Attention", change))


def test_zero_points_must_be_zero(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    decoder = _models(random_checkpoint(), "fp32", 23)[1]
    cast = next(node for node in decoder.nodes if node.op == "RMSNormalization")
    one = replace(decoder.constants[0], name="one", value=np.int8(1))
    wrong = replace(decoder, constants=(*decoder.constants, one))
    change = {"op": "QuantizeLinear", "inputs": (cast.inputs[0], cast.inputs[1], "one"), "attributes": {}}
    with pytest.raises(ModelError, match="zero point of QuantizeLinear must be a constant 0"):
        check_operators(_changed(wrong, cast.name, change))


def test_an_operator_set_that_tensorrt_does_not_read_is_refused(
    random_checkpoint: Callable[..., Path],
) -> None:
    decoder = _models(random_checkpoint(), "fp32", 23)[1]
    with pytest.raises(ModelError, match="opset 25"):
        check_operators(replace(decoder, opsets={"": 25}))


# ---- what can be asked for ----


def test_wrong_combinations_are_input_errors() -> None:
    with pytest.raises(InputError, match=r"flavour ort is written with opset 23, not 20"):
        Recipe.of("fp32", opset=20)
    with pytest.raises(InputError, match=r"flavour portable is written with opset 23 or 20, not 19"):
        Recipe.of("fp32", flavour="portable", opset=19)
    with pytest.raises(InputError, match="Unknown flavour 'trt'"):
        Recipe.of("fp32", flavour="trt")
    with pytest.raises(InputError, match="portable flavour has no nf4"):
        Recipe(decoder="nf4", flavour="portable")
    with pytest.raises(InputError, match="keeps no layer in fp32"):
        Recipe(decoder="int8", flavour="portable", layers=(LayerRule("*.down_proj", "fp32"),))


def test_static_scales_hold_the_inputs_of_both_models(tiny: dict[str, Path], tmp_path: Path) -> None:
    pair = {role: Source(path=folder, name=role) for role, folder in tiny.items()}
    recipe = Recipe.of("int8", flavour="portable")

    def exported(layout: AskedLayout) -> Bundle:
        export_bundle(pair, tmp_path / layout, recipe=recipe, layout=layout, examples=world_examples(2))
        return open_bundle(tmp_path / layout)

    shared, separate = exported("shared"), exported("auto")
    assert (shared.manifest.layout, separate.manifest.layout) == ("shared", "separate")
    scales = _input_scales(shared, "embedder")
    apart = [_input_scales(separate, role) for role in ("embedder", "reranker")]
    assert scales.keys() == apart[0].keys() == apart[1].keys()
    assert scales == {name: max(one[name] for one in apart) for name in scales}
    assert scales != apart[0]
    assert scales != apart[1]
    # The embedder rounds otherwise than in a bundle of its own, so its vectors are another space.
    assert shared.part("embedder").calibration == "2 own pictures, both models"
    assert shared.revision != separate.revision


def _input_scales(bundle: Bundle, role: Role) -> dict[str, float]:
    """The scale of each rounded input of a decoder, by its node."""
    graph = onnx.load(bundle.file(bundle.part(role).decoder), load_external_data=False).graph
    values = {one.name: one for one in graph.initializer}
    return {
        node.name: float(onnx.numpy_helper.to_array(values[node.input[1]]))
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    }


def test_a_layer_may_keep_float16_among_int8(random_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    recipe = Recipe(
        decoder="int8",
        flavour="portable",
        layers=(LayerRule("*.q_proj", "fp16"), LayerRule("*.down_proj", "fp16")),
    )
    manifest = export_bundle(
        {"embedder": Source(path=random_checkpoint(), name="random")},
        tmp_path / "bundle",
        recipe=recipe,
        examples=world_examples(2),
    )
    graph = tmp_path / "bundle" / manifest.parts["embedder"].decoder
    rounded = [
        n.name for n in onnx.load(graph, load_external_data=False).graph.node if "weight/Deq" in n.name
    ]
    assert len(rounded) == 3 * 5
    assert not any("down_proj" in name or "q_proj" in name for name in rounded)
    assert set(manifest.parts["embedder"].exceptions.values()) == {"fp16"}


def _models(folder: Path, precision: str, opset: int) -> tuple[Model, Model]:
    checkpoint, dialect = Checkpoint(folder), dialect_of("portable", opset)
    graph = PRECISIONS[precision].graph
    return build_vision(checkpoint, graph, dialect), build_decoder(checkpoint, graph, dialect)


def _changed(model: Model, name: str, change: dict[str, Any]) -> Model:
    assert name in {node.name for node in model.nodes}
    nodes = (replace(node, **change) if node.name == name else node for node in model.nodes)
    return replace(model, nodes=tuple(nodes))


def test_written_graphs_need_nothing_beside_them(
    random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    for model in _models(random_checkpoint(**ODD), "fp16", 20):
        write_model(model, tmp_path / f"{model.name}.onnx")
        onnx.load(tmp_path / f"{model.name}.onnx")
