"""Builds TensorRT engines of a portable bundle, for this machine's graphics card.

    graph.onnx --parse_from_file--> network --profiles, timing cache--> plan --> engines/<key>/graph.engine

Networks are strongly typed: a value has the type that the graph gives it, so the precision of an engine is
that of its bundle (fp16 products and float32 residuals, or int8 by QuantizeLinear and DequantizeLinear), and
nothing is left to the builder's choice. TensorRT is imported when the first engine is built.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvl_local.runtime.errors import BundleError, InputError, ModelError
from qvl_local.runtime.model.bundle import Bundle, Part
from qvl_local.runtime.model.config import ModelConfig, load_config
from qvl_local.runtime.model.pixels import load_budget
from qvl_local.runtime.model.storage import cache_folder
from qvl_local.runtime.model.tensorrt_place import ENGINES, EngineMachine, EnginePlace
from qvl_local.runtime.model.tensorrt_profiles import Profile, RunLimits, decoder_profiles, vision_profiles
from qvl_local.runtime.model.tensorrt_session import import_tensorrt

Progress = Callable[[str, float], None]

TIMING_CACHE = "timing.cache"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What a build may use. `workspace_bytes` bounds scratch memory on the card; `effort` is 0 to 5."""

    limits: RunLimits = field(default_factory=RunLimits)
    workspace_bytes: int = 4 << 30
    effort: int = 3

    def __post_init__(self) -> None:
        if self.workspace_bytes < 1 << 20:
            raise InputError("An engine needs at least 1 MiB of workspace.")
        if not 0 <= self.effort <= 5:
            raise InputError("The effort of an engine build is a number from 0 to 5.")


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine and whether it was there already."""

    graph: str
    file: Path
    reused: bool


def build_engines(
    bundle: Bundle, settings: EngineSettings | None = None, *, progress: Progress | None = None
) -> list[BuiltEngine]:
    """Build the engines of every graph of a bundle, or find them built.

    Args:
        bundle: of the portable flavour.
        settings: limits of shapes and memory.
        progress: told "building", and how many engines are done, in [0, 1].

    Raises:
        InputError: the bundle has another flavour.
        MissingExtraError: TensorRT is not installed.
        ModelError: there is no card, or TensorRT refuses a graph; the message names the node.
        BundleError: the engine cannot be written.
    """
    settings = settings or EngineSettings()
    if bundle.manifest.flavour != "portable":
        raise InputError(
            f"{bundle.path}: is of the flavour {bundle.manifest.flavour}, which TensorRT does not read. "
            "Export the model again with --tensorrt."
        )
    tensorrt = import_tensorrt()
    machine = EngineMachine.here(tensorrt.__version__)
    graphs = _graphs(bundle, settings.limits)
    built = []
    for number, (graph, profiles) in enumerate(graphs.items()):
        if progress is not None:
            progress("building", number / len(graphs))
        built.append(_build_once(tensorrt, bundle, graph, profiles, machine, settings))
    if progress is not None:
        progress("building", 1.0)
    return built


def _graphs(bundle: Bundle, limits: RunLimits) -> dict[str, list[Profile]]:
    """The graphs of all parts, each once, with the shapes that they will be run with."""
    graphs: dict[str, list[Profile]] = {}
    for part in bundle.manifest.parts.values():
        config = _config(bundle, part)
        budget = load_budget(bundle.file(part.folder))
        graphs.setdefault(part.vision, vision_profiles(config.vision, budget, limits))
        graphs.setdefault(part.decoder, decoder_profiles(config, limits, adapters=part.adapter is not None))
    return graphs


def _config(bundle: Bundle, part: Part) -> ModelConfig:
    return load_config(bundle.file(part.folder))


def _build_once(
    tensorrt: Any,
    bundle: Bundle,
    graph: str,
    profiles: list[Profile],
    machine: EngineMachine,
    settings: EngineSettings,
) -> BuiltEngine:
    place = EnginePlace.of(bundle, graph, machine)
    record = place.record([profile.shapes() for profile in profiles])
    existing = place.find()
    if existing is not None and _text(existing.with_suffix(".json")) == record:
        return BuiltEngine(graph, existing, reused=True)
    target = place.target()
    plan = _build(tensorrt, bundle.file(graph), profiles, settings, _timing_cache(machine))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The record last: an engine without one is built again.
        target.with_suffix(".json").unlink(missing_ok=True)
        _write(target, plan)
        _write(target.with_suffix(".json"), record.encode())
    except OSError as error:
        raise BundleError(
            f"{target}: the engine cannot be written ({error.strerror}). Free some space."
        ) from error
    return BuiltEngine(graph, target, reused=False)


def _build(
    tensorrt: Any, graph: Path, profiles: list[Profile], settings: EngineSettings, timing: Path
) -> bytes:
    """The serialized engine of one graph."""
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    flag = tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    parser = tensorrt.OnnxParser(network, logger)
    # By path, so that the weights beside the graph are found.
    if not parser.parse_from_file(str(graph)):
        raise ModelError(f"{graph}: TensorRT does not read it: {'; '.join(_errors(parser))}.{_ADVICE}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    config.builder_optimization_level = settings.effort
    cache = config.create_timing_cache(_bytes(timing))
    config.set_timing_cache(cache, ignore_mismatch=False)
    inputs = {network.get_input(number).name for number in range(network.num_inputs)}
    for wanted in profiles:
        _check_inputs(graph, inputs, wanted)
        profile = builder.create_optimization_profile()
        for name, (low, likely, high) in wanted.ranges.items():
            profile.set_shape(name, low, likely, high)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(f"{graph}: TensorRT built no engine; what it printed says why.{_ADVICE}")
    with suppress(OSError):  # what was timed only saves time
        timing.parent.mkdir(parents=True, exist_ok=True)
        _write(timing, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


_ADVICE = " Try the decomposed form: qvl-local export MODEL --tensorrt --opset 20 -o DIR"


def _errors(parser: Any) -> Iterator[str]:
    """What the parser has to say, each with its node."""
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        node = error.node_name()
        yield f"{node}: {error.desc()}" if node else str(error.desc())


def _check_inputs(graph: Path, inputs: set[str], profile: Profile) -> None:
    if inputs != set(profile.ranges):
        raise BundleError(
            f"{graph}: takes {', '.join(sorted(inputs))}; {', '.join(sorted(profile.ranges))} were expected. "
            "Export the bundle again."
        )


def _timing_cache(machine: EngineMachine) -> Path:
    """One timing cache a card and version, shared by all bundles: kernels are timed once."""
    name = f"{machine.gpu}-{machine.tensorrt}-{machine.driver}".replace("/", "_").replace(" ", "_")
    return cache_folder() / ENGINES / name / TIMING_CACHE


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
