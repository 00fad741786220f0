"""Where TensorRT engines lie, and which one fits this machine.

An engine is a compiled graph. It runs only with the TensorRT that built it, on the kind of card that it was
built for, and says little about itself, so each lies in a folder named by everything that it depends on:

    engines/<key>/embedder_fp16.engine      in the bundle, or in the cache where the bundle is read-only
    engines/<key>/embedder_fp16.json        what the key was made of, and the profiles

Engines are never shipped: they can always be built again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ..errors import BundleError, ModelError
from ..hardware import first_gpu, read_gpus
from .bundle import Bundle
from .onnx_graph import read_graph
from .storage import cache_folder

ENGINES = "engines"


@dataclass(frozen=True, slots=True)
class EngineMachine:
    """What an engine depends on beside its graph."""

    gpu: str
    compute_capability: str | None
    driver: str | None
    tensorrt: str

    @classmethod
    def here(cls, tensorrt_version: str) -> EngineMachine:
        """This machine, with its first visible card.

        Raises:
            ModelError: there is no NVIDIA card, or its driver does not answer.
        """
        gpu = first_gpu(read_gpus())
        if gpu is None:
            raise ModelError(
                "TensorRT needs an NVIDIA graphics card, and nvidia-smi names none. Check the driver and "
                "CUDA_VISIBLE_DEVICES, or run the bundle with ONNX Runtime: --backend onnx."
            )
        return cls(gpu.name, gpu.compute_capability, gpu.driver, tensorrt_version)


@dataclass(frozen=True, slots=True)
class EnginePlace:
    """The engine of one graph for one machine: it may exist or not."""

    machine: EngineMachine
    graph: str
    digest: str
    candidates: tuple[Path, ...]

    @classmethod
    def of(cls, bundle: Bundle, graph: str, machine: EngineMachine) -> EnginePlace:
        """The place for `graph`, a path of the manifest.

        Raises:
            BundleError: the graph cannot be read.
        """
        digest = _digest(bundle, graph)
        text = json.dumps([asdict(machine), digest], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        name = f"{PurePosixPath(graph).stem}.engine"
        roots = (bundle.path / ENGINES, cache_folder() / ENGINES)
        return cls(machine, graph, digest, tuple(root / key / name for root in roots))

    def find(self) -> Path | None:
        """The engine, if it was built."""
        return next((path for path in self.candidates if path.is_file()), None)

    def target(self) -> Path:
        """Where to build it: in the bundle, or in the cache where the bundle is read-only."""
        bundle = self.candidates[0].parent.parent.parent
        return self.candidates[0] if os.access(bundle, os.W_OK) else self.candidates[1]

    def record(self, profiles: list[dict[str, list[list[int]]]]) -> str:
        """The text of the file beside the engine."""
        return json.dumps(
            {**asdict(self.machine), "graph": self.graph, "graph_sha256": self.digest, "profiles": profiles},
            indent=2,
        )


def _digest(bundle: Bundle, graph: str) -> str:
    """Hash of a graph with all its weights, from the manifest's own hashes."""
    folder = PurePosixPath(graph).parent
    weights = read_graph(bundle.file(graph)).weights.values()
    names = {(folder / weight.location).as_posix() for weight in weights if weight.location is not None}
    hashes = []
    for name in (graph, *sorted(names)):
        record = bundle.manifest.files.get(name)
        if record is None:
            raise BundleError(f"{bundle.path}: the manifest does not list {name}. Export the bundle again.")
        hashes.append(record.sha256)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
