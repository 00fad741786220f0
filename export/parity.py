"""Parity: the bundle must compute what the checkpoint computes, on inputs that are then kept in it.

The inputs are real prompts through the checkpoint's own tokenizer (the largest activations of these models
sit at the prompt's special first tokens), with one image, several images, a video's frame pairs, and a padded
batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import CheckpointError, ParityError
from qvl_local.runtime.model.bundle import Bundle, Parity, Role
from qvl_local.runtime.model.config import ModelConfig
from qvl_local.runtime.model.ort_session import SessionOptions
from qvl_local.runtime.model.positions import patch_positions, token_positions, token_rotary
from qvl_local.runtime.model.tokenizer import load_tokenizer
from qvl_local.runtime.model.verify import PARITY, PromptRecord, VisionRecord, measure_parity, save_records
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from .checkpoint import EMBEDDINGS, Checkpoint
from .recipe import Tolerance
from .reference import DecoderInputs, VisionInputs, run_decoder, run_vision

_SYSTEM = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n"
_END = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True)
class _Images:
    """`count` images or frame pairs of one grid of rows x columns visual tokens."""

    count: int
    rows: int
    columns: int


# A prompt is text and images in order; a case is a batch of prompts.
_Prompt = tuple[str | _Images, ...]
_CASES: Mapping[str, tuple[_Prompt, ...]] = {
    "text": ((_SYSTEM, "two dogs on a beach at night", _END),),
    "image": ((_SYSTEM, _Images(1, 2, 3), _END),),
    "images": ((_SYSTEM, _Images(1, 2, 2), _Images(1, 3, 1), "which came first?", _END),),
    "video": ((_SYSTEM, "<0.5 seconds>", _Images(2, 2, 2), "a red car turns left", _END),),
    "batch": (
        (_SYSTEM, "receipt", _END),
        (_SYSTEM, _Images(1, 1, 3), "the same place in winter", _END),
        ("NULL",),
    ),
}


def record_parity(checkpoints: Mapping[Role, Checkpoint], folder: Path) -> None:
    """Compute the expected states of every role from its checkpoint and write `folder/parity.npz`."""
    save_records(folder / PARITY, {role: _expected(checkpoint) for role, checkpoint in checkpoints.items()})


def check_parity(bundle: Bundle, role: Role, tolerance: Tolerance, options: SessionOptions) -> Parity:
    """Run the recorded inputs through the bundle.

    Raises:
        ParityError: it drifts further than `tolerance` allows.
    """
    drift = measure_parity(bundle, role, options)
    if not drift.within(tolerance.max_abs_diff, tolerance.min_cosine):
        raise ParityError(
            f"{bundle.part(role).source.name}: the exported {role} differs from its checkpoint by "
            f"{drift.max_abs_diff:.3g} (allowed {tolerance.max_abs_diff:.3g}), cosine {drift.min_cosine:.6f} "
            f"(allowed {tolerance.min_cosine}). Nothing was written; export with --precision fp32, or report "
            "this as a bug if it was fp32."
        )
    return Parity(
        role=role,
        max_abs_diff=drift.max_abs_diff,
        min_cosine=drift.min_cosine,
        max_abs_diff_allowed=tolerance.max_abs_diff,
        min_cosine_allowed=tolerance.min_cosine,
    )


def _expected(checkpoint: Checkpoint) -> list[PromptRecord]:
    """All cases with the states that the numpy reference gives for them."""
    tokenizer = load_tokenizer(checkpoint.folder)
    generator = np.random.default_rng(0)
    records = [
        _record(name, prompts, checkpoint.config, tokenizer, generator) for name, prompts in _CASES.items()
    ]
    calls = [call for record in records for call in record.visions]
    outputs = run_vision(
        checkpoint,
        [VisionInputs(call.pixels(), call.pos_idx, call.pos_w, call.cos, call.sin) for call in calls],
    )
    by_call = {id(call): output for call, output in zip(calls, outputs, strict=True)}
    table = checkpoint.stored(EMBEDDINGS)
    inputs = []
    for record in records:
        embeds = table.rows(record.ids)
        levels = len(checkpoint.config.vision.deepstack_layers)
        deepstack = np.zeros((levels, *embeds.shape), np.float32)
        if record.visions:
            seen = [by_call[id(call)] for call in record.visions]
            width = embeds.shape[-1]
            embeds[record.is_visual] = np.concatenate([one.features.reshape(-1, width) for one in seen])
            deepstack[:, record.is_visual] = np.concatenate(
                [one.deepstack.reshape(levels, one.features.size // width, width) for one in seen], axis=1
            )
        inputs.append(DecoderInputs(embeds, record.cos, record.sin, deepstack, record.last))
    states = run_decoder(checkpoint, inputs)
    return [replace(record, pooled=state) for record, state in zip(records, states, strict=True)]


def _record(
    name: str,
    prompts: Sequence[_Prompt],
    config: ModelConfig,
    tokenizer: Tokenizer,
    generator: np.random.Generator,
) -> PromptRecord:
    """One case, its `pooled` still empty."""
    rows = [_tokens(prompt, config, tokenizer) for prompt in prompts]
    longest = max(len(ids) for ids, _ in rows)
    ids = np.zeros((len(rows), longest), np.int64)
    is_visual = np.zeros(ids.shape, np.bool_)
    positions = np.zeros((3, *ids.shape), np.int64)
    for row, (tokens, visual) in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        is_visual[row, : len(tokens)] = visual
        grids = [
            (part.rows, part.columns)
            for part in prompts[row]
            if isinstance(part, _Images)
            for _ in range(part.count)
        ]
        positions[:, row, : len(tokens)] = token_positions(visual, grids)
    cos, sin = token_rotary(positions, config.text)
    images = [part for prompt in prompts for part in prompt if isinstance(part, _Images)]
    return PromptRecord(
        name=name,
        ids=ids,
        is_visual=is_visual,
        cos=cos,
        sin=sin,
        last=np.array([len(tokens) - 1 for tokens, _ in rows], np.int64),
        pooled=np.zeros((len(rows), config.text.hidden_size), np.float32),
        visions=tuple(_vision(image, config, generator) for image in images),
    )


def _tokens(
    prompt: _Prompt, config: ModelConfig, tokenizer: Tokenizer
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Token ids [T] of one prompt, and which of them stand for visual features."""
    ids: list[int] = []
    visual: list[bool] = []
    for part in prompt:
        if isinstance(part, str):
            tokens = tokenizer.encode(part, add_special_tokens=False).ids
            marks = [False] * len(tokens)
        else:
            one = part.rows * part.columns
            tokens = [
                config.vision_start_token_id,
                *[config.image_token_id] * one,
                config.vision_end_token_id,
            ]
            tokens = tokens * part.count
            marks = [False, *[True] * one, False] * part.count
        ids += tokens
        visual += marks
    if max(ids) >= config.text.vocab_size:
        raise CheckpointError(
            f"tokenizer.json gives the id {max(ids)}, but config.json knows {config.text.vocab_size} tokens. "
            "The two belong to different checkpoints; download both again."
        )
    return np.array(ids, np.int64), np.array(visual, np.bool_)


def _vision(image: _Images, config: ModelConfig, generator: np.random.Generator) -> VisionRecord:
    vision = config.vision
    rows, columns = image.rows * vision.merge_size, image.columns * vision.merge_size
    place = patch_positions(rows, columns, vision)
    return VisionRecord(
        patches=generator.integers(0, 256, (image.count, rows * columns, vision.patch_dim), np.uint8),
        pos_idx=place.index,
        pos_w=place.weight,
        cos=place.cos,
        sin=place.sin,
    )
