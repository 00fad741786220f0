"""The model card of a bundle: the README.md that the Hub and a person read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from qvl_local.runtime.model.bundle import Manifest

_LICENCE = re.compile(r"^license:\s*([\w.+-]+)\s*$", re.MULTILINE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def write_card(path: Path, manifest: Manifest, *, sources: Sequence[Path]) -> None:
    """Write the card. `sources` are checkpoint folders, asked for their licence."""
    path.write_text(_front_matter(manifest, sources) + _body(manifest), encoding="utf-8")


def _front_matter(manifest: Manifest, sources: Sequence[Path]) -> str:
    bases = [part.source.name for part in manifest.parts.values() if _HUB_ID.fullmatch(part.source.name)]
    lines = ["library_name: onnx", "base_model_relation: quantized" if bases else ""]
    if bases:
        lines += ["base_model:", *[f"- {base}" for base in bases]]
    licences = sorted({licence for source in sources if (licence := _licence(source))})
    if len(licences) == 1:
        lines.append(f"license: {licences[0]}")
    lines += ["pipeline_tag: feature-extraction", "tags:", "- qvl-local", "- qwen3_vl", "- onnx"]
    return "---\n" + "".join(f"{line}\n" for line in lines if line) + "---\n\n"


def _body(manifest: Manifest) -> str:
    names = " and ".join(part.source.name for part in manifest.parts.values())
    text = [
        f"# {names}, for qvl-local",
        "",
        f"ONNX graphs of {names}, made by {manifest.created_by} ({manifest.flavour} flavour). "
        "`qvl.json` lists every file with its size and sha256.",
        "",
        "| part | source | revision | vision | decoder | dimensions |",
        "|---|---|---|---|---|---|",
    ]
    text += [
        f"| {role} | {part.source.name} | {part.source.revision or part.source.sha256[:12]} "
        f"| {part.vision_precision} | {part.decoder_precision} | {part.dims} |"
        for role, part in manifest.parts.items()
    ]
    if manifest.adapters is not None:
        adapters = manifest.adapters
        text += [
            "",
            f"One decoder serves both models: adapters of rank {adapters.rank} on {adapters.matrices} "
            f"matrices make it the reranker, and leave out {adapters.error:.2%} of a matrix at most "
            f"({adapters.noise:.2%} is the rounding of the checkpoints).",
        ]
    text += [
        "",
        "Agreement with the checkpoint on the inputs in `parity.npz` (of unit embeddings, or of scores):",
        "",
        "| part | largest difference | allowed | smallest cosine | allowed |",
        "|---|---|---|---|---|",
    ]
    text += [
        f"| {figure.role} | {figure.max_abs_diff:.2g} | {figure.max_abs_diff_allowed:.2g} "
        f"| {figure.min_cosine:.7f} | {figure.min_cosine_allowed} |"
        for figure in manifest.parity
    ]
    text += [
        "",
        "```",
        "qvl-local verify DIR                          check hashes, and run the inputs again",
        "qvl-local search QUERY --model DIR            search with it",
        "```",
        "",
    ]
    return "\n".join(text)


def _licence(source: Path) -> str | None:
    """The licence that a checkpoint's own card names."""
    try:
        card = (source / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not card.startswith("---"):
        return None
    found = _LICENCE.search(card.split("---")[1])
    return found.group(1) if found else None
