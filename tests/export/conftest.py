"""Stand-ins for what cannot be here: TensorRT and the CUDA runtime.

The fake TensorRT keeps to the calls and types of the real one (10.15 to 11) and refuses what it would refuse:
operators outside the standard, shapes outside the profiles, networks that are not strongly typed. Its engines
compute by ONNX Runtime, so that what a session feeds and fetches can be compared. Nothing here says whether
the real TensorRT builds these graphs, or how fast.
"""

from __future__ import annotations

import ctypes
import json
import sys
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from qvl_local.runtime.hardware import Gpu
from qvl_local.runtime.model import tensorrt_place

FAKE_VERSION = "10.15.1"
CARD = Gpu("NVIDIA Fake 4090", 24 << 30, 20 << 30, "580.65.06", "8.9")
_TYPES = {1: np.float32, 7: np.int64}


@pytest.fixture
def fake_tensorrt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    """TensorRT, the CUDA runtime and a card, all fake; the fake records what was asked of it."""
    fake = FakeTensorrt()
    cuda, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    bindings.runtime = fake.cuda  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", fake.module())
    monkeypatch.setitem(sys.modules, "cuda", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(tensorrt_place, "read_gpus", lambda: (CARD,))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


class _Flag(IntEnum):
    STRONGLY_TYPED = 1


class _Mode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class _Pool(IntEnum):
    WORKSPACE = 0


class FakeCudaRuntime:
    """Device and pinned memory are both memory of this process; copies are done at once."""

    class cudaMemcpyKind(IntEnum):  # noqa: N801 - the real name
        cudaMemcpyHostToDevice = 1  # noqa: N815
        cudaMemcpyDeviceToHost = 2  # noqa: N815

    def __init__(self) -> None:
        self.held: dict[int, ctypes.Array[ctypes.c_ubyte]] = {}
        self.streams = 0
        self.most_bytes: int | None = None

    def cudaStreamCreate(self) -> tuple[int, int]:  # noqa: N802
        self.streams += 1
        return 0, 7000 + self.streams

    def cudaStreamDestroy(self, _stream: int) -> tuple[int]:  # noqa: N802
        self.streams -= 1
        return (0,)

    def cudaStreamSynchronize(self, _stream: int) -> tuple[int]:  # noqa: N802
        return (0,)

    def cudaMalloc(self, size: int) -> tuple[int, int]:  # noqa: N802
        if self.most_bytes is not None and size > self.most_bytes:
            return 2, 0
        memory = (ctypes.c_ubyte * size)()
        self.held[ctypes.addressof(memory)] = memory
        return 0, ctypes.addressof(memory)

    cudaMallocHost = cudaMalloc  # noqa: N815

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        del self.held[address]
        return (0,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaMemcpyAsync(self, to: int, origin: int, size: int, _kind: int, stream: int) -> tuple[int]:  # noqa: N802
        assert stream > 7000
        for address in (to, origin):
            assert size <= len(self.held[address])
        ctypes.memmove(to, origin, size)
        return (0,)


class FakeTensorrt:
    """What stands in for the module `tensorrt`."""

    def __init__(self) -> None:
        self.cuda = FakeCudaRuntime()
        self.built: list[str] = []
        self.timing_caches: list[bytes] = []
        self.workspace: list[int] = []
        self.refused_operator: str | None = None
        self.runs: list[int] = []

    def module(self) -> ModuleType:
        """The module, its classes bound to this fake."""
        module = ModuleType("tensorrt")
        contents: dict[str, Any] = {
            "__version__": FAKE_VERSION,
            "Logger": _Logger,
            "NetworkDefinitionCreationFlag": _Flag,
            "TensorIOMode": _Mode,
            "MemoryPoolType": _Pool,
            "Builder": lambda logger: _Builder(self, logger),
            "OnnxParser": lambda network, logger: _Parser(self, network),
            "Runtime": lambda logger: _Runtime(self),
            "nptype": lambda element: _TYPES[element],
        }
        vars(module).update(contents)
        return module


class _Logger:
    ERROR, WARNING = 1, 2

    def __init__(self, severity: int) -> None:
        self.severity = severity


class _Network:
    def __init__(self) -> None:
        self.path: Path | None = None
        self.inputs: list[Any] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, number: int) -> Any:
        return self.inputs[number]


class _Parser:
    def __init__(self, fake: FakeTensorrt, network: _Network) -> None:
        self._fake, self._network = fake, network
        self._errors: list[onnx.NodeProto] = []

    def parse_from_file(self, path: str) -> bool:
        model = onnx.load(path)  # with its external data, which must be found from the path alone
        self._errors = [
            node
            for node in model.graph.node
            if node.domain or node.op_type in ("DynamicQuantizeLinear", self._fake.refused_operator)
        ]
        self._network.path = Path(path)
        self._network.inputs = list(model.graph.input)
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, number: int) -> _ParserError:
        return _ParserError(self._errors[number])


class _ParserError:
    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node

    def node_name(self) -> str:
        return self._node.name

    def desc(self) -> str:
        return f"no importer for {self._node.op_type}"


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, low: Any, likely: Any, high: Any) -> None:
        assert len(low) == len(likely) == len(high)
        assert all(0 < a <= b <= c for a, b, c in zip(low, likely, high)), (name, low, likely, high)
        self.shapes[name] = (tuple(low), tuple(likely), tuple(high))


class _HostMemory(bytes):
    def serialize(self) -> bytes:
        return self


class _Config:
    builder_optimization_level = 3

    def __init__(self, fake: FakeTensorrt) -> None:
        self._fake = fake
        self.profiles: list[_Profile] = []

    def set_memory_pool_limit(self, _pool: int, size: int) -> None:
        self._fake.workspace.append(size)

    def create_timing_cache(self, data: bytes) -> bytes:
        self._fake.timing_caches.append(data)
        return data

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._cache = cache
        return True

    def get_timing_cache(self) -> _HostMemory:
        return _HostMemory(self._cache + b"timed ")

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1


class _Builder:
    def __init__(self, fake: FakeTensorrt, logger: _Logger) -> None:
        self._fake = fake

    def create_network(self, flags: int) -> _Network:
        assert flags == 1 << _Flag.STRONGLY_TYPED
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config(self._fake)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes:
        assert network.path is not None
        for profile in config.profiles:
            for value in network.inputs:  # every dimension that the graph leaves open needs a range that fits
                for size, *ranges in zip(value.type.tensor_type.shape.dim, *profile.shapes[value.name]):
                    assert size.dim_param or {size.dim_value} == set(ranges), value.name
        self._fake.built.append(network.path.name)
        plan = {
            "version": FAKE_VERSION,
            "path": str(network.path),
            "profiles": [profile.shapes for profile in config.profiles],
        }
        return json.dumps(plan).encode()


class _Runtime:
    def __init__(self, fake: FakeTensorrt) -> None:
        self._fake = fake

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        try:
            read = json.loads(plan)
        except ValueError:
            return None
        return _Engine(self._fake, read) if read["version"] == FAKE_VERSION else None


class _Engine:
    def __init__(self, fake: FakeTensorrt, plan: dict[str, Any]) -> None:
        self.fake = fake
        self.profiles = plan["profiles"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(plan["path"], options, providers=["CPUExecutionProvider"])
        model = onnx.load(plan["path"], load_external_data=False)
        self._values = [*model.graph.input, *model.graph.output]
        self._inputs = len(model.graph.input)
        self.num_io_tensors = len(self._values)
        self.num_optimization_profiles = len(self.profiles)

    def get_tensor_name(self, number: int) -> str:
        return self._values[number].name

    def get_tensor_mode(self, name: str) -> _Mode:
        names = [value.name for value in self._values]
        return _Mode.INPUT if names.index(name) < self._inputs else _Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> int:
        return next(value.type.tensor_type.elem_type for value in self._values if value.name == name)

    def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.profiles[number][name]]

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._results: dict[str, np.ndarray] = {}

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        assert stream > 7000
        self._profile = number
        self._shapes = {}  # as the real one: shapes are to be set again
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = tuple(shape)
        return len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        inputs = self._engine.session.get_inputs()
        missing = [value.name for value in inputs if value.name not in self._shapes]
        if not missing:
            feeds = {}
            for value in inputs:
                dtype = np.dtype(_TYPES[self._engine.get_tensor_dtype(value.name)])
                size = int(np.prod(self._shapes[value.name])) * dtype.itemsize
                data = ctypes.string_at(self._addresses[value.name], size)
                feeds[value.name] = np.frombuffer(data, dtype).reshape(self._shapes[value.name])
            names = [value.name for value in self._engine.session.get_outputs()]
            self._results = dict(zip(names, self._engine.session.run(names, feeds)))
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._results[name].shape

    def execute_async_v3(self, stream: int) -> bool:
        assert stream > 7000
        for name, values in self._results.items():
            address = self._addresses[name]
            assert values.nbytes <= len(self._engine.fake.cuda.held[address])
            ctypes.memmove(address, np.ascontiguousarray(values).ctypes.data, values.nbytes)
        self._engine.fake.runs.append(self._profile)
        return True
