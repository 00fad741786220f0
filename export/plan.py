"""What an export is going to write: which model has which files, in which precision, and what both share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from qvl_local.runtime.errors import InputError
from qvl_local.runtime.model.bundle import Part, Role, Source, Table
from qvl_local.runtime.model.checkpoints import Checkpoint as CheckpointFolder
from qvl_local.runtime.model.checkpoints import snapshot_revision
from qvl_local.runtime.model.fusion_weight import read_fusion
from qvl_local.runtime.model.progress import Progress

from .bundle_writer import PartLayout, lay_out
from .calibration import Example
from .checkpoint import EMBEDDINGS, Checkpoint
from .layout import AskedLayout, DecoderLayout, choose_layout
from .recipe import PRECISIONS, Recipe, Tolerance, is_layer
from .spool import Spool


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of a bundle, what their decoders share, and the weights with which scores are fused."""

    parts: dict[Role, Part]
    layout: DecoderLayout
    fusion: dict[str, float]


def make_plan(
    sources: Mapping[Role, CheckpointFolder],
    checkpoints: Mapping[Role, Checkpoint],
    recipe: Recipe,
    asked: AskedLayout,
    examples: Sequence[Example] | None,
    spool: Spool,
    report: Progress,
) -> Plan:
    """Hash the checkpoints, find what they share, and decide every file's place."""
    hashes = {}
    for number, (role, checkpoint) in enumerate(checkpoints.items()):
        step = partial(_report_part, report, "reading", number, len(checkpoints))
        hashes[role] = checkpoint.content_hash(step)
    layout = choose_layout(
        checkpoints,
        asked,
        quantized=recipe.shares_decoders,
        spool=spool,
        progress=partial(report, "comparing"),
    )
    places = lay_out(
        list(checkpoints),
        vision=recipe.vision,
        decoder=recipe.decoder,
        shared_vision=_same([(c.prefix_digest("visual."), c.config.vision) for c in checkpoints.values()]),
        shared_table=_same([c.digest(EMBEDDINGS) for c in checkpoints.values()]),
        shared_decoder=layout.name == "shared",
    )
    parts = {
        role: replace(
            _part(sources[role], hashes[role], checkpoints[role], places[role], recipe),
            adapter=layout.switch(role),
            calibration=_calibration(recipe, layout, examples),
        )
        for role in checkpoints
    }
    fusion = read_fusion(checkpoints["reranker"].folder) if "reranker" in checkpoints else {}
    return Plan(parts, layout, fusion)


def check_dims(
    recipe: Recipe, checkpoints: Mapping[Role, Checkpoint], sources: Mapping[Role, CheckpointFolder]
) -> None:
    """Refuse to serve more dimensions than the embedder has.

    Raises:
        InputError: more were asked for.
    """
    embedder = checkpoints.get("embedder")
    if recipe.dims is None or embedder is None:
        return
    width = embedder.config.text.hidden_size
    if recipe.dims > width:
        raise InputError(
            f"The embedder {sources['embedder'].name} has {width} dimensions; {recipe.dims} were asked for. "
            f"Ask for {width} or fewer."
        )


def tolerance_of(recipe: Recipe, layout: DecoderLayout) -> Tolerance:
    """The recipe's tolerance, but not below that of float16, which adapters are stored in."""
    tolerance, half = recipe.tolerance, PRECISIONS["fp16"].tolerance
    if not layout.adapters:
        return tolerance
    return Tolerance(
        max_abs_diff=max(tolerance.max_abs_diff, half.max_abs_diff),
        min_cosine=min(tolerance.min_cosine, half.min_cosine),
    )


def _calibration(recipe: Recipe, layout: DecoderLayout, examples: Sequence[Example] | None) -> str | None:
    """What the manifest says of calibration."""
    if not recipe.tuned:
        return None
    seen = "sample world"
    if examples is not None:
        seen = f"{len(examples)} own picture{'' if len(examples) == 1 else 's'}"
    return f"{seen}, both models" if needs_scales_of_both(recipe, layout) else seen


def needs_scales_of_both(recipe: Recipe, layout: DecoderLayout) -> bool:
    """Do static scales have to hold the inputs of both models?"""
    return layout.name == "shared" and recipe.has_static_scales


def _part(
    source: CheckpointFolder, sha256: str, checkpoint: Checkpoint, layout: PartLayout, recipe: Recipe
) -> Part:
    text = checkpoint.config.text
    return Part(
        source=Source(
            name=source.name,
            revision=source.revision or snapshot_revision(source.path.resolve()),
            sha256=sha256,
        ),
        folder=layout.folder,
        vision=layout.vision,
        decoder=layout.decoder,
        table=Table(
            file=layout.table,
            dtype=recipe.table_type,
            rows=text.vocab_size,
            columns=text.hidden_size,
        ),
        vision_precision=recipe.vision,
        decoder_precision=recipe.decoder,
        dims=recipe.dims or text.hidden_size,
        head=layout.head,
        exceptions={
            **recipe.exceptions(checkpoint.names()),
            **recipe.padded(
                {name: _columns(checkpoint, name) for name in checkpoint.names() if is_layer(name)}
            ),
        },
    )


def _columns(checkpoint: Checkpoint, name: str) -> int:
    return math.prod(checkpoint.stored(name).shape[1:])


def _same(values: Sequence[object]) -> bool:
    return all(value == values[0] for value in values)


def _report_part(report: Progress, stage: str, number: int, count: int, done: float) -> None:
    report(stage, (number + done) / count)
