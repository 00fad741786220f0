"""The bundle: the one contract between export and runtime.

A bundle is a folder laid out as a Hugging Face repository with a manifest, `qvl.json`, that says what each
file is. This module reads, checks and writes the manifest; it does not know how graphs are built or run.

    qvl.json
    config.json tokenizer.json chat_template.jinja ...    the embedder's, at the root
    reranker/config.json reranker/tokenizer.json ...      the reranker's
    onnx/vision_encoder_fp32.onnx (+ .onnx_data)
    onnx/embedder_fp32.onnx  onnx/reranker_fp32.onnx      layout "separate"; "shared": onnx/decoder_nf4.onnx
    embed_tokens_fp32.bin  token_head.npy  parity.npz
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ..errors import BundleError
from .replacement import recover

FORMAT = 1
MANIFEST = "qvl.json"

# Precisions that are not named like what their decoder has.
_NAMED_OTHERWISE = {"int8-fine": "int8-safe"}

Role = Literal["embedder", "reranker"]
Layout = Literal["separate", "shared"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a part came from: its name as the user gave it, the revision if known, and a content hash."""

    name: str
    revision: str | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Table:
    """The token embedding table: a raw little-endian row-major array, memory-mapped at run time."""

    file: str
    dtype: Literal["float32", "float16"]
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Part:
    """One model of the pair. Paths are relative to the bundle, with forward slashes.

    `folder` holds config, tokenizer, chat template and preprocessor files ("." or "reranker").
    `head` is the float32 [H] difference W_yes - W_no of a reranker, absent for an embedder.
    `dims` is the embedding width that the bundle serves by default (MRL), at most the hidden size.
    `exceptions` names the layers that have not their tower's precision, and what they have. `calibration`
    says with what layers were tuned to data, if they were.
    `adapter` is what a decoder that serves both models is fed to be this one: 0 without its adapters, 1 with
    them; None for a decoder that has no such input.
    """

    source: Source
    folder: str
    vision: str
    decoder: str
    table: Table
    vision_precision: str
    decoder_precision: str
    dims: int
    head: str | None = None
    exceptions: dict[str, str] = field(default_factory=dict)
    calibration: str | None = None
    adapter: float | None = None


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """The adapters of a decoder that serves both models: the reranker is the embedder and so much more.

    `matrices` have one, of `rank` at most; together they take `bytes`. `error` is the largest part of a
    matrix's norm that an adapter leaves out, `noise` the part that the rounding of the two checkpoints to
    their storage types explains.
    """

    matrices: int
    rank: int
    bytes: int
    error: float
    noise: float


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and sha256 of one file of the bundle."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Parity:
    """Measured agreement with the checkpoint on recorded inputs, and the tolerance that was demanded.

    `max_abs_diff` is over L2-normalised embeddings (embedder) or scores in [0, 1] (reranker);
    `min_cosine` is over pooled states before normalisation.
    """

    role: Role
    max_abs_diff: float
    min_cosine: float
    max_abs_diff_allowed: float
    min_cosine_allowed: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `qvl.json` says. Of the flavour "torch" is a checkpoint run as it lies, which no file describes.

    `opset` is the version of ONNX's operators that the graphs are written with, where it is recorded.
    `layout` "shared": one decoder serves both models, by `adapters` where they differ. `layout_reason` says
    why a pair that could have shared one does not.
    """

    flavour: Literal["ort", "portable", "torch"]
    created_by: str
    parts: dict[Role, Part]
    files: dict[str, FileRecord]
    parity: tuple[Parity, ...] = ()
    fusion: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    opset: int | None = None
    layout: Layout = "separate"
    adapters: AdapterRecord | None = None
    layout_reason: str | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of `qvl.json`."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its folder and its manifest."""

    path: Path
    manifest: Manifest

    def part(self, role: Role) -> Part:
        """The embedder or the reranker.

        Raises:
            BundleError: the bundle holds only the other one.
        """
        part = self.manifest.parts.get(role)
        if part is None:
            raise BundleError(
                f"{self.path}: holds no {role}. Export a pair: qvl-local export EMBEDDER RERANKER -o DIR"
            )
        return part

    def file(self, relative: str) -> Path:
        """Absolute path of a file that the manifest names."""
        return self.path.joinpath(*PurePosixPath(relative).parts)

    @property
    def revision(self) -> str:
        """Short hash of what shapes an embedding, wherever it came from; part of the vector space's identity.

        Weights and configuration, tokenizer, precision and flavour; the chat template has its own digest.
        """
        part = self.part("embedder")
        tokenizer = self.manifest.files.get((PurePosixPath(part.folder) / "tokenizer.json").as_posix())
        text = json.dumps(
            [
                part.source.sha256,
                tokenizer.sha256 if tokenizer is not None else None,
                part.vision_precision,
                part.decoder_precision,
                part.table.dtype,
                self.manifest.flavour,
                *sorted(part.exceptions.items()),
                *([part.calibration] if part.calibration is not None else []),
            ]
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def precision_name(decoder: str) -> str:
    """What a precision is called that gives decoders weights of this format, as far as it has a name."""
    return _NAMED_OTHERWISE.get(decoder, decoder)


def holds_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle. One whose replacement was cut short is brought back for that.

    Raises:
        BundleError: it cannot be brought back.
    """
    if (folder / MANIFEST).is_file():
        return True
    recover(folder)
    return (folder / MANIFEST).is_file()


def open_bundle(folder: Path) -> Bundle:
    """Read and check the manifest of a bundle folder. Hashes are not recomputed; see `verify_files`.

    Raises:
        BundleError: no manifest, a manifest of a newer format, or a file that it names is missing.
    """
    path = folder / MANIFEST
    if not holds_bundle(folder):
        raise BundleError(
            f"{folder}: no {MANIFEST}, so it is not a bundle. Make one: qvl-local export MODEL -o DIR"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}). Export the bundle again.") from error
    manifest = _parse_manifest(raw, path)
    bundle = Bundle(path=folder, manifest=manifest)
    for part in manifest.parts.values():
        _confine(part.folder, path)
        for relative in (part.vision, part.decoder, part.table.file, part.head):
            if relative is not None and relative not in manifest.files:
                raise BundleError(
                    f"{path}: uses {relative!r} without listing it among its files. Export the bundle again."
                )
    for relative, record in manifest.files.items():
        _confine(relative, path)
        file = bundle.file(relative)
        if not file.is_file():
            raise BundleError(f"{file}: missing, but {MANIFEST} lists it. Export the bundle again.")
        if file.stat().st_size != record.size:
            raise BundleError(
                f"{file}: has {file.stat().st_size} bytes instead of {record.size}. Export the bundle again."
            )
    return bundle


def verify_files(bundle: Bundle, *, progress: Callable[[str], None] | None = None) -> list[str]:
    """Recompute every hash of the manifest; return one line for each file that does not match."""
    problems = []
    for relative, record in bundle.manifest.files.items():
        if progress is not None:
            progress(relative)
        if sha256_file(bundle.file(relative)) != record.sha256:
            problems.append(f"{relative}: content differs from the manifest")
    return problems


def record_files(folder: Path, relatives: Iterable[str]) -> dict[str, FileRecord]:
    """Sizes and hashes of files of a bundle that is being written."""
    records = {}
    for relative in sorted(relatives):
        file = folder.joinpath(*PurePosixPath(relative).parts)
        records[relative] = FileRecord(size=file.stat().st_size, sha256=sha256_file(file))
    return records


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parse_manifest(raw: Any, path: Path) -> Manifest:
    if not isinstance(raw, dict) or not isinstance(raw.get("format"), int):
        raise BundleError(f"{path}: is not a qvl-local manifest. Export the bundle again.")
    if raw["format"] > FORMAT:
        raise BundleError(
            f"{path}: has format {raw['format']}, this version reads up to {FORMAT}. "
            "Upgrade: pip install -U qvl-local"
        )
    try:
        return Manifest(
            flavour=raw["flavour"],
            created_by=raw["created_by"],
            parts={role: _parse_part(part) for role, part in raw["parts"].items()},
            files={name: FileRecord(**record) for name, record in raw["files"].items()},
            parity=tuple(Parity(**figure) for figure in raw.get("parity", ())),
            fusion=dict(raw.get("fusion", {})),
            accuracy=dict(raw.get("accuracy", {})),
            opset=raw.get("opset"),
            layout=raw.get("layout", "separate"),
            adapters=AdapterRecord(**raw["adapters"]) if raw.get("adapters") else None,
            layout_reason=raw.get("layout_reason"),
            format=raw["format"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: is damaged ({error}). Export the bundle again.") from error


def _parse_part(raw: dict[str, Any]) -> Part:
    return Part(**{**raw, "source": Source(**raw["source"]), "table": Table(**raw["table"])})


def _confine(relative: str, manifest: Path) -> None:
    """Refuse a manifest whose paths leave the bundle."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or ":" in relative:
        raise BundleError(
            f"{manifest}: names {relative!r}, which lies outside the bundle. Do not use this bundle."
        )
