"""Sessions: errors that name the graph, casting, and CUDA that is never quietly replaced."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from qvl_local.runtime.errors import BundleError, InputError, ModelError, ModelMemoryError
from qvl_local.runtime.model.ort_providers import providers_for
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions


@pytest.fixture
def graph(tmp_path):
    """y = x + n, x in float16 and n in int64."""
    nodes = [
        helper.make_node("Cast", ["n"], ["m"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N"]),
            helper.make_tensor_value_info("n", TensorProto.INT64, ["N"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N"])],
    )
    path = tmp_path / "sum.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_inputs_are_cast_and_outputs_are_float32(graph):
    session = OrtSession(graph, SessionOptions(threads=1))
    out = session.run({"x": np.array([1.5, 2.0], np.float32), "n": np.array([1, 2], np.int32)})
    assert out["y"].dtype == np.float32
    assert out["y"].tolist() == [2.5, 4.0]


def test_failures_name_the_graph(graph, tmp_path):
    session = OrtSession(graph, SessionOptions(threads=1))
    with pytest.raises(ModelError, match=r"sum\.onnx: failed to run"):
        session.run({"x": np.zeros((2, 2), np.float32), "n": np.zeros(2, np.int64)})
    (tmp_path / "damaged.onnx").write_bytes(graph.read_bytes()[:40])
    for name in ("damaged.onnx", "missing.onnx"):
        with pytest.raises(BundleError, match=f"{name}: cannot be loaded .* Export the bundle again"):
            OrtSession(tmp_path / name, SessionOptions(threads=1))


def test_a_batch_too_large_for_memory_is_told_apart(tmp_path):
    made = helper.make_graph(
        [helper.make_node("Expand", ["x", "n"], ["y"])],
        "grow",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    path = tmp_path / "grow.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    session = OrtSession(path, SessionOptions(threads=1))
    with pytest.raises(ModelMemoryError, match=r"grow\.onnx: the batch does not fit"):
        session.run({"x": np.zeros(1, np.float32), "n": np.array([1 << 45])})


def test_cuda_that_is_not_there_is_an_error(graph, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=r"has no CUDA\. Install it with"):
        OrtSession(graph, SessionOptions(device="cuda"))


def test_cuda_that_does_not_start_is_an_error(graph, monkeypatch):
    class FallenBack:
        """What ONNX Runtime gives when the CUDA libraries do not load: a session on the CPU."""

        def __init__(self, *_args, **_kwargs):
            pass

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    with pytest.raises(ModelError, match="could not start CUDA"):
        OrtSession(graph, SessionOptions(device="cuda"))


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="Unknown device 'gpu'"):
        SessionOptions(device="gpu")
    with pytest.raises(InputError, match="threads"):
        SessionOptions(threads=0)


def test_tensorrt_that_is_not_there_is_an_error(graph, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ModelError, match=r"has no TensorRT\. Install it with"):
        OrtSession(graph, SessionOptions(device="tensorrt"))


def test_the_tensorrt_provider_is_given_caches_and_profiles(graph, monkeypatch, tmp_path):
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path / "cache"))
    inputs = [
        helper.make_tensor_value_info("embeds", TensorProto.FLOAT, ["B", "T", 8]),
        helper.make_tensor_value_info("deepstack", TensorProto.FLOAT, [3, "DB", "DT", 8]),
        helper.make_tensor_value_info("last", TensorProto.INT64, ["B"]),
    ]
    node = helper.make_node("Identity", ["last"], ["pooled"])
    output = helper.make_tensor_value_info("pooled", TensorProto.INT64, ["B"])
    made = helper.make_graph([node], "decoder", inputs, [output])
    path = tmp_path / "decoder.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)

    (provider, options), (cuda, cuda_options), cpu = providers_for(onnxruntime, "tensorrt", path)
    assert [provider, cuda, cpu] == names
    assert cuda_options["use_tf32"] == 0
    assert options["trt_engine_cache_enable"]
    assert options["trt_engine_cache_path"].startswith(str(tmp_path / "cache"))
    low, high = options["trt_profile_min_shapes"], options["trt_profile_max_shapes"]
    assert low.startswith("embeds:1x1x8,deepstack:3x1x1x8,last:1,embeds:1x64x8,deepstack:3x1x1x8")
    assert high.startswith("embeds:256x64x8,deepstack:3x256x64x8,last:256,embeds:64x256x8")
