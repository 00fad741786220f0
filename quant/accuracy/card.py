"""The accuracy section of a bundle's model card, and its place in README.md and in the manifest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvl_local.runtime.errors import BundleError, InputError
from qvl_local.runtime.model.bundle import MANIFEST, Bundle, open_bundle, record_files

from .gate import METRIC
from .report import BundleReport, Figure, GalleryFacts, Report, report_object

BEGIN = "<!-- accuracy: written by qvl-local bench accuracy -->"
END = "<!-- /accuracy -->"
CARD = "README.md"


def write_into_bundle(bundle: Bundle, report: Report) -> None:
    """Put a bundle's figures into its manifest and its card; other files stay as they are.

    Raises:
        InputError: the report says nothing about this bundle.
        BundleError: the folder cannot be written.
    """
    found = next((one for one in report.bundles if one.subject.path == str(bundle.path)), None)
    if found is None:
        raise InputError(f"{bundle.path}: the report has no figures of this bundle.")
    path = bundle.path / CARD
    try:
        old = path.read_text(encoding="utf-8") if path.is_file() else f"# {bundle.path.name}\n"
        # The manifest is read again: measuring takes long, and whatever was written since shall stay.
        manifest = open_bundle(bundle.path).manifest
        _replace(path, with_section(old, card_section(report, found)))
        files = {**manifest.files, **record_files(bundle.path, [CARD])}
        manifest = replace(manifest, files=files, accuracy=manifest_object(report, found))
        _replace(bundle.path / MANIFEST, manifest.to_json())
    except OSError as error:
        raise BundleError(
            f"{bundle.path}: the card cannot be written ({error.strerror or error}). "
            "Check that the folder is yours to write, or leave --update-card out."
        ) from error


def manifest_object(report: Report, bundle: BundleReport) -> dict[str, Any]:
    """What `accuracy` in qvl.json holds: one bundle of the report's object, and what it was compared with."""
    whole = report_object(report)
    own = next(one for one in whole["bundles"] if one["label"] == bundle.subject.label)
    datasets = [
        {key: dataset[key] for key in ("name", "labels", "documents", "questions", "digest")}
        for dataset in whole["datasets"]
    ]
    kept = {key: own[key] for key in ("cost", "agreement", "rows")}
    reference = {"label": whole["reference"], "precision": whole["bundles"][0]["precision"]}
    head = {key: whole[key] for key in ("created_by", "machine", "confidence", "resamples")}
    return {**head, "reference": reference, "datasets": datasets, **kept}


def with_section(card: str, section: str) -> str:
    """A card with its accuracy section replaced, or added at the end."""
    block = f"{BEGIN}\n{section.strip()}\n{END}"
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        return before + block + after
    return f"{card.rstrip()}\n\n{block}\n"


def card_section(report: Report, bundle: BundleReport) -> str:
    """Markdown: how well it finds things, and what it keeps of the reference."""
    reference = report.reference
    lines = ["## Accuracy", "", _intro(report, bundle), ""]
    lines += ["| search | recall@1 | recall@10 | nDCG@10 | MRR@10 | nDCG@10 against the reference |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in bundle.rows:
        way = f"{row.dims} {row.vectors}" + (", reranked" if row.rerank else "")
        plain = " | ".join(
            f"{row.figures[name].mean.value:.3f}" for name in ("recall@1", "recall@10", "ndcg@10", "mrr@10")
        )
        change = (
            ""
            if bundle is reference and row == bundle.headline(rerank=row.rerank)
            else _change(row.figures[METRIC])
        )
        lines.append(f"| {way} | {plain} | {change} |")
    lines += ["", *_agreement_lines(bundle), *_cost_lines(bundle, report.machine), ""]
    return "\n".join(lines)


def describe_galleries(galleries: tuple[GalleryFacts, ...]) -> str:
    """What was asked, in words."""
    questions = sum(gallery.questions for gallery in galleries)
    documents = sum(gallery.documents for gallery in galleries)
    names = ", ".join(dict.fromkeys(_source(gallery) for gallery in galleries))
    return f"{questions} questions to {documents} documents ({names})"


def _source(gallery: GalleryFacts) -> str:
    how = {
        "exact": "exact relevance",
        "given": "relevance from queries.jsonl",
        "reference": "the reference's first ten count as relevant",
    }[gallery.labels]
    name = gallery.source if gallery.source == "sample world" else "a folder of the one who measured"
    return f"{name}, {how}"


def _intro(report: Report, bundle: BundleReport) -> str:
    against = (
        "It is its own reference."
        if bundle is report.reference
        else (
            f"The reference is {report.reference.subject.label}, full width, float32 vectors, with reranking "
            "where the row reranks."
        )
    )
    return (
        f"{describe_galleries(report.galleries)}, measured by {report.created_by}. {against} "
        "In brackets: 95 % bootstrap intervals over questions."
    )


def _change(figure: Figure) -> str:
    change = figure.change
    return f"{change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"


def _agreement_lines(bundle: BundleReport) -> list[str]:
    found = bundle.agreement
    if found is None:
        return []
    lines = [
        f"Cosine with the reference's embeddings: mean {found.cosine_mean:.6f}, "
        f"smallest {found.cosine_min:.6f}."
    ]
    if found.yes_change_max is not None:
        lines.append(
            f"P(yes) over {found.pairs} pairs: largest change {found.yes_change_max:.4f}, "
            f"mean {found.yes_change_mean:.5f}."
        )
    return lines


def _cost_lines(bundle: BundleReport, machine: str) -> list[str]:
    cost = bundle.cost
    parts = [f"{bundle.subject.size / 1e6:.1f} MB on disk"]
    if cost.peak_bytes is not None:
        parts.append(f"{cost.peak_bytes / 1e6:.0f} MB of memory at most")
    for value, noun in (
        (cost.document_ms, "document"),
        (cost.question_ms, "question"),
        (cost.pair_ms, "reranked pair"),
    ):
        if value is not None:
            parts.append(f"{value:.1f} ms a {noun}")
    return [f"On {machine}: {', '.join(parts)}."]


def _replace(path: Path, text: str) -> None:
    """Write a file beside its place and rename it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
