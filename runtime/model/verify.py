"""Is a bundle what its exporter made, and does it still compute what the checkpoint computes?

An export records a few inputs with the pooled states that the checkpoint gives for them (`parity.npz`).
Running them through the bundle's own table, vision graph and decoder exercises every file that shapes an
embedding. This module reads, runs and judges records; how the expected states came about is the exporter's
business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, QvlError
from .bundle import Bundle, Role, verify_files
from .config import load_config
from .encoder import open_table
from .head import open_head, sigmoid
from .onnx_graph import read_graph
from .ort_session import OrtSession, SessionOptions
from .piecewise import run_in_pieces

PARITY = "parity.npz"

# Graphs with more weights than this are checked in pieces. A session holds int8 weights twice while it loads,
# beside what the exporter's own reference has left: at 600 MB that was the peak of an export's memory.
_LARGE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, eq=False)
class VisionRecord:
    """One call of the vision graph. `patches` uint8 [S, N, P] are levels, fed as value / 127.5 - 1.

    `pos_idx` int64 [N, 4]; `pos_w` float32 [N, 4]; `cos`, `sin` float32 [N, hd / 2].
    """

    patches: NDArray[np.uint8]
    pos_idx: NDArray[np.int64]
    pos_w: NDArray[np.float32]
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]

    def pixels(self) -> NDArray[np.float32]:
        """float32 [S, N, P] in [-1, 1]."""
        return self.patches.astype(np.float32) / np.float32(127.5) - np.float32(1)


@dataclass(frozen=True, slots=True, eq=False)
class PromptRecord:
    """One call of the decoder, and the state that the checkpoint gives.

    `ids` int64 [B, T], padded on the right; `is_visual` bool [B, T] marks where the features of `visions` go,
    in order; `cos`, `sin` float32 [B, T, hd / 2]; `last` int64 [B]; `pooled` float32 [B, H].
    """

    name: str
    ids: NDArray[np.int64]
    is_visual: NDArray[np.bool_]
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    last: NDArray[np.int64]
    pooled: NDArray[np.float32]
    visions: tuple[VisionRecord, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """Largest difference of unit embeddings or scores, smallest cosine of pooled states; NaN: undefined."""

    max_abs_diff: float
    min_cosine: float

    def within(self, max_abs_diff: float, min_cosine: float) -> bool:
        """Whether both figures hold; an undefined one does not."""
        return self.max_abs_diff <= max_abs_diff and self.min_cosine >= min_cosine


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: its subject, whether it holds, and a line to read."""

    subject: Literal["files", "graphs", "parity"]
    ok: bool
    text: str


def verify_bundle(
    bundle: Bundle,
    *,
    options: SessionOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Recompute every hash, look into the graphs, and run the recorded inputs again.

    A damaged file makes a finding that is not `ok`; nothing is raised for it. `progress` hears what is next.
    """
    tell = progress or _ignore
    damaged = verify_files(bundle, progress=tell)
    findings = [Finding("files", False, problem) for problem in damaged]
    if not damaged:
        findings.append(Finding("files", True, f"{len(bundle.manifest.files)} files match their sha256"))
    for relative in sorted(_graphs(bundle)):
        tell(relative)
        findings.append(_check_graph(bundle, relative))
    if damaged or not all(finding.ok for finding in findings):
        return findings  # a damaged graph is not run
    for role in bundle.manifest.parts:
        tell(f"{role} parity")
        findings.append(_check_parity(bundle, role, options or SessionOptions()))
    return findings


def measure_parity(bundle: Bundle, role: Role, options: SessionOptions) -> Drift:
    """Run the recorded inputs of one role and compare.

    Raises:
        BundleError: no record, or a graph that does not load.
    """
    part = bundle.part(role)
    records = load_records(bundle.path / PARITY).get(role)
    if not records:
        raise BundleError(f"{bundle.path / PARITY}: holds nothing for the {role}. Export the bundle again.")
    table = open_table(bundle, role)
    levels = len(load_config(bundle.file(part.folder)).vision.deepstack_layers)
    calls = [call for record in records for call in record.visions]
    outputs = _run_all(bundle.file(part.vision), [_vision_feeds(call) for call in calls], options)
    seen = dict(zip(map(id, calls), outputs, strict=True))
    prompts = [_decoder_feeds(record, seen, table, levels) for record in records]
    if part.adapter is not None:
        prompts = [{**feeds, "adapter": np.array([part.adapter], np.float32)} for feeds in prompts]
    states = [one["pooled"] for one in _run_all(bundle.file(part.decoder), prompts, options)]
    return compare(
        np.concatenate([record.pooled for record in records]),
        np.concatenate(states),
        open_head(bundle) if role == "reranker" else None,
    )


def compare(
    expected: NDArray[np.float32], actual: NDArray[np.float32], head: NDArray[np.float32] | None
) -> Drift:
    """Drift of pooled states [n, H]; the difference is of scores given a `head` [H], else of embeddings."""
    wanted, given = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(all="ignore"):
        unit = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True)
        other = given / np.linalg.norm(given, axis=-1, keepdims=True)
        cosine = float(np.min(np.sum(unit * other, axis=-1)))
        difference = np.abs(unit - other)
        if head is not None:
            difference = np.abs(sigmoid(wanted @ head) - sigmoid(given @ head))
    return Drift(max_abs_diff=float(np.max(difference)), min_cosine=cosine)


def save_records(path: Path, records: Mapping[Role, Sequence[PromptRecord]]) -> None:
    """Write `parity.npz`. Arrays are named `role.case.field` and `role.case.vision0.field`."""
    arrays: dict[str, NDArray[Any]] = {}
    for role, cases in records.items():
        for case in cases:
            prefix = f"{role}.{case.name}"
            for field in ("ids", "is_visual", "cos", "sin", "last", "pooled"):
                arrays[f"{prefix}.{field}"] = getattr(case, field)
            for number, vision in enumerate(case.visions):
                for entry in fields(vision):
                    arrays[f"{prefix}.vision{number}.{entry.name}"] = getattr(vision, entry.name)
    with path.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def load_records(path: Path) -> dict[str, list[PromptRecord]]:
    """Read `parity.npz`: records by role.

    Raises:
        BundleError: the file is missing or damaged.
    """
    tree: dict[str, dict[str, dict[str, Any]]] = {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            for key in arrays.files:
                role, case, *rest = key.split(".")
                here = tree.setdefault(role, {}).setdefault(case, {"visions": {}})
                if len(rest) == 2:
                    here = here["visions"].setdefault(int(rest[0].removeprefix("vision")), {})
                here[rest[-1]] = arrays[key]
        return {
            role: [_record(name, values) for name, values in cases.items()] for role, cases in tree.items()
        }
    except FileNotFoundError:
        raise BundleError(f"{path}: missing. Export the bundle again.") from None
    except Exception as error:  # a damaged archive fails in zipfile, zlib or numpy, each in its own way
        raise BundleError(f"{path}: cannot be read ({error}). Export the bundle again.") from error


def _record(name: str, values: dict[str, Any]) -> PromptRecord:
    visions = values.pop("visions")
    return PromptRecord(
        name=name, visions=tuple(VisionRecord(**visions[number]) for number in sorted(visions)), **values
    )


def _run_all(
    graph: Path, feeds: Sequence[dict[str, NDArray[Any]]], options: SessionOptions
) -> list[dict[str, NDArray[np.float32]]]:
    """Run a graph as the runtime would, unless its weights are too large to be loaded for a check."""
    data = graph.with_name(graph.name + "_data")
    if options.device == "cpu" and data.is_file() and data.stat().st_size > _LARGE_BYTES:
        return run_in_pieces(graph, feeds)
    session = OrtSession(graph, options)
    return [session.run(one) for one in feeds]


def _vision_feeds(call: VisionRecord) -> dict[str, NDArray[Any]]:
    return {
        "patches": call.pixels(),
        "pos_idx": call.pos_idx,
        "pos_w": call.pos_w,
        "cos": call.cos,
        "sin": call.sin,
    }


def _decoder_feeds(
    record: PromptRecord,
    seen: Mapping[int, Mapping[str, NDArray[np.float32]]],
    table: NDArray[Any],
    levels: int,
) -> dict[str, NDArray[Any]]:
    """Inputs of the decoder; `seen` holds the vision graph's outputs by the id of their call."""
    embeds = table[record.ids].astype(np.float32)
    width = embeds.shape[-1]
    deepstack = np.zeros((levels, 1, 1, width), np.float32)
    if record.visions:
        outputs = [seen[id(call)] for call in record.visions]
        embeds[record.is_visual] = np.concatenate([one["features"].reshape(-1, width) for one in outputs])
        deepstack = np.zeros((levels, *embeds.shape), np.float32)
        for level in range(levels):
            deepstack[level, record.is_visual] = np.concatenate(
                [one["deepstack"][level].reshape(-1, width) for one in outputs]
            )
    return {
        "embeds": embeds,
        "cos": record.cos,
        "sin": record.sin,
        "deepstack": deepstack,
        "last": record.last,
    }


def _graphs(bundle: Bundle) -> set[str]:
    parts = bundle.manifest.parts.values()
    return {part.vision for part in parts} | {part.decoder for part in parts}


def _check_graph(bundle: Bundle, relative: str) -> Finding:
    """Every weight that a graph keeps outside must lie in a file of the bundle, within its size."""
    folder = PurePosixPath(relative).parent
    try:
        graph = read_graph(bundle.file(relative))
    except BundleError as error:
        return Finding("graphs", False, str(error))
    for weight in graph.weights.values():
        if weight.location is None:
            continue
        location = (folder / weight.location).as_posix()
        record = bundle.manifest.files.get(location)
        if record is None:
            return Finding(
                "graphs", False, f"{relative}: {weight.name} lies in {location}, outside the bundle"
            )
        if weight.offset + weight.length > record.size:
            return Finding("graphs", False, f"{relative}: {weight.name} lies behind the end of {location}")
    return Finding("graphs", True, f"{relative}: {len(graph.nodes)} nodes, weights inside the bundle")


def _check_parity(bundle: Bundle, role: Role, options: SessionOptions) -> Finding:
    promised = next((figure for figure in bundle.manifest.parity if figure.role == role), None)
    if promised is None:
        return Finding("parity", False, f"{role}: the manifest states no tolerance")
    try:
        drift = measure_parity(bundle, role, options)
    except QvlError as error:
        return Finding("parity", False, f"{role}: {error}")
    text = (
        f"{role}: largest difference {drift.max_abs_diff:.2g} (allowed {promised.max_abs_diff_allowed:.2g}), "
        f"smallest cosine {drift.min_cosine:.7f} (allowed {promised.min_cosine_allowed})"
    )
    within = drift.within(promised.max_abs_diff_allowed, promised.min_cosine_allowed)
    return Finding("parity", within, text)


def _ignore(_: str) -> None:
    return None
