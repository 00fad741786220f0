"""How a report names bundles: short labels, where they are from, how large they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from qvl_local.runtime.model.bundle import Bundle, precision_name
from qvl_local.runtime.model.config import load_config

from .report import Subject


def describe(bundles: Sequence[Bundle]) -> list[Subject]:
    """One subject a bundle, in order, named by its decoders' precision and by what tells it from others."""
    labels = [_precision(bundle) for bundle in bundles]
    for fact in (_vision, _layout, _folder):
        doubled = {label for label, count in Counter(labels).items() if count > 1}
        labels = [
            f"{label} {fact(bundle)}".rstrip() if label in doubled else label
            for label, bundle in zip(labels, bundles, strict=True)
        ]
    doubled = {label for label, count in Counter(labels).items() if count > 1}
    labels = [f"{label} {number}" if label in doubled else label for number, label in enumerate(labels, 1)]
    return [_subject(bundle, label) for bundle, label in zip(bundles, labels, strict=True)]


def width_of(bundle: Bundle) -> int:
    """The full width of a bundle's embeddings."""
    return load_config(bundle.file(bundle.part("embedder").folder)).text.hidden_size


def _subject(bundle: Bundle, label: str) -> Subject:
    parts = bundle.manifest.parts
    return Subject(
        label=label,
        path=str(bundle.path),
        sources={role: part.source.name for role, part in parts.items()},
        precision={role: part.decoder_precision for role, part in parts.items()},
        vision_precision={role: part.vision_precision for role, part in parts.items()},
        dims=bundle.part("embedder").dims,
        size=sum(record.size for record in bundle.manifest.files.values()),
    )


def _precision(bundle: Bundle) -> str:
    """ "int8", "fp32 portable", "nf4 at 128"."""
    parts = bundle.manifest.parts.values()
    text = "/".join(dict.fromkeys(precision_name(part.decoder_precision) for part in parts))
    if bundle.manifest.flavour != "ort":
        text += f" {bundle.manifest.flavour}"
    embedder = bundle.part("embedder")
    return text if embedder.dims == embedder.table.columns else f"{text} at {embedder.dims}"


def _vision(bundle: Bundle) -> str:
    parts = bundle.manifest.parts.values()
    if all(part.vision_precision == part.decoder_precision for part in parts):
        return ""
    return f"with {'/'.join(dict.fromkeys(part.vision_precision for part in parts))} vision"


def _layout(bundle: Bundle) -> str:
    return "" if bundle.manifest.layout == "separate" else bundle.manifest.layout


def _folder(bundle: Bundle) -> str:
    return f"({bundle.path.name})"
