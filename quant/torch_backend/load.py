"""Loads the two towers of a Qwen3-VL checkpoint with transformers, and bitsandbytes where a precision asks.

What the host does itself (token lookup, positions, the head) is left out of memory again once it is loaded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from qvl_local.runtime.errors import CheckpointError, ModelError

Quantization = Literal["nf4", "int8"]

# The published checkpoints say `model.language_model.` and `model.visual.`; others leave `model.` out, or are
# the bare decoder's names beside the tower's. transformers would leave what it cannot place random.
_NAMES = {
    r"^(?:model\.)*visual\.": "model.visual.",
    r"^(?:model\.)*language_model\.lm_head\.": "lm_head.",
    r"^(?:model\.)*language_model\.(?:model\.)?": "model.language_model.",
    r"^(?:model\.)*(?=(?:layers|embed_tokens|norm)\.)": "model.language_model.",
}
# The host reads the head's two rows by itself; with tied weights the tensor is absent anyway.
_NOT_NEEDED = {"lm_head.weight"}


@dataclass(frozen=True, slots=True)
class Format:
    """How the weights of one precision are held: a type, or a bitsandbytes format with its own arithmetic."""

    dtype: torch.dtype
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Towers:
    """transformers' own modules: `vision` a `Qwen3VLVisionModel`, `decoder` a `Qwen3VLTextModel`."""

    vision: Any
    decoder: Any


def weight_format(precision: str, device: torch.device) -> Format:
    """The format of a precision on a device: what bitsandbytes does not hold is bfloat16 on a GPU.

    On a CPU, where bfloat16 is no faster, it is float32.
    """
    plain = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision in plain:
        return Format(plain[precision])
    compute = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Format(compute, "nf4" if precision == "nf4" else "int8")


def load_towers(folder: Path, *, precision: str, device: torch.device) -> Towers:
    """Load both towers of the checkpoint in `folder`.

    Raises:
        CheckpointError: a tensor is missing or has another shape, or a file is damaged.
        ModelError: the libraries refuse the device or the format.
        torch.OutOfMemoryError: the weights do not fit.
    """
    transformers = import_module("transformers")  # untyped, and its types would change with every version
    chosen = weight_format(precision, device)
    try:
        with _quiet():
            model, report = transformers.Qwen3VLForConditionalGeneration.from_pretrained(
                folder,
                config=_read_config(folder),
                dtype=chosen.dtype,
                device_map={"": device},
                quantization_config=_quantization_config(chosen),
                key_mapping=_NAMES,
                attn_implementation="sdpa",
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, KeyError, ValueError, ImportError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{folder}: torch could not load the checkpoint as {precision} ({line}). "
            "Check the folder, or choose another precision or device."
        ) from error
    _refuse_gaps(folder, report)
    model.eval().requires_grad_(False)
    towers = Towers(vision=model.model.visual, decoder=model.model.language_model)
    towers.decoder.embed_tokens = None
    return towers


def _read_config(folder: Path) -> Any:
    """The configuration for transformers 4.57, from either dialect of rotary settings."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        text = raw["text_config"]
        rope = text.pop("rope_parameters", None)
        if rope is not None:
            text.setdefault("rope_theta", rope.pop("rope_theta", None))
            text["rope_scaling"] = rope
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Download the checkpoint again.") from error
    return import_module("transformers").Qwen3VLConfig(**raw)


def _quantization_config(chosen: Format) -> Any:
    """What bitsandbytes is asked for; None for plain weights."""
    if chosen.quantization is None:
        return None
    configure = import_module("transformers").BitsAndBytesConfig
    if chosen.quantization == "nf4":
        return configure(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=chosen.dtype)
    # It says at every product that the inputs are cast to float16, which is how LLM.int8 works.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return configure(load_in_8bit=True)


def _refuse_gaps(folder: Path, report: dict[str, Any]) -> None:
    """A tensor that was not found would stay random, with no more than a warning from transformers."""
    missing = sorted(set(report["missing_keys"]) - _NOT_NEEDED)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{folder}: the weights lack {missing[0]}{more}. "
            "Download the checkpoint again, or use a complete one."
        )
    wrong = report.get("mismatched_keys") or report.get("error_msgs")
    if wrong:
        raise CheckpointError(
            f"{folder}: weights and config.json do not belong together ({next(iter(wrong))}). "
            "Download both again."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and remarks, which would go between our own."""
    theirs = import_module("transformers.utils.logging")
    bars, level = theirs.is_progress_bar_enabled(), theirs.get_verbosity()
    theirs.disable_progress_bar()
    theirs.set_verbosity_error()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
