"""How a report names bundles: short labels, where they are from, how large they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from qvl_local.runtime.model.bundle import Bundle
from qvl_local.runtime.model.config import load_config

from .report import Subject


def describe(bundles: Sequence[Bundle]) -> list[Subject]:
    """One subject a bundle, in order. Bundles of one precision are told apart by their folders' names."""
    labels = [_label(bundle) for bundle in bundles]
    doubled = {label for label, count in Counter(labels).items() if count > 1}
    named = [
        f"{label} ({bundle.path.name})" if label in doubled else label
        for label, bundle in zip(labels, bundles)
    ]
    again = {label for label, count in Counter(named).items() if count > 1}
    named = [f"{label} {number}" if label in again else label for number, label in enumerate(named, start=1)]
    return [_subject(bundle, label) for bundle, label in zip(bundles, named, strict=True)]


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


def _label(bundle: Bundle) -> str:
    """ "int8", "nf4 with fp16 vision", "int8 at 128": what differs from one bundle to the next."""
    parts = bundle.manifest.parts.values()
    decoder = "/".join(dict.fromkeys(part.decoder_precision for part in parts))
    vision = "/".join(dict.fromkeys(part.vision_precision for part in parts))
    text = decoder if vision == decoder else f"{decoder} with {vision} vision"
    if bundle.manifest.flavour != "ort":
        text += f" {bundle.manifest.flavour}"
    if bundle.manifest.layout != "separate":
        text += f" {bundle.manifest.layout}"
    embedder = bundle.part("embedder")
    return text if embedder.dims == embedder.table.columns else f"{text} at {embedder.dims}"
