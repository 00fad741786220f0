"""Loads the two towers of a Qwen3-VL checkpoint with transformers, and bitsandbytes where a precision asks.

Token embeddings and head stay on disk: the host looks them up itself.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from qvl_local.runtime.errors import CheckpointError, ModelError

from .memory import first_line, is_out_of_memory
from .weights import EMBEDDINGS, HEAD, MappedWeights

Quantization = Literal["nf4", "int8"]

# transformers changes torch's default type, and how modules are made, for the whole process while it loads.
_loading = threading.Lock()


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


def load_towers(folder: Path, weights: MappedWeights, *, precision: str, device: torch.device) -> Towers:
    """Load both towers of the checkpoint in `folder`, whose `weights` are mapped.

    Raises:
        CheckpointError: a tensor is missing or has another shape, or a file is damaged.
        ModelError: the libraries refuse the device or the format.
        RuntimeError: the weights do not fit; see `is_out_of_memory`.
    """
    transformers = import_module("transformers")  # untyped, and its types would change with every version
    chosen = weight_format(precision, device)
    try:
        with _loading, _quiet():
            # The weights come by name, not by folder, where names may have another dress than transformers
            # expects: what it could not place it would leave random, with no more than a warning.
            model, report = transformers.Qwen3VLForConditionalGeneration.from_pretrained(
                None,
                config=_read_config(folder),
                state_dict=_without_vocabulary(weights),
                dtype=chosen.dtype,
                device_map={"": device},
                quantization_config=_quantization_config(chosen),
                attn_implementation="sdpa",
                output_loading_info=True,
            )
    except (OSError, KeyError, ValueError, ImportError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        if "size mismatch" in str(error):
            raise CheckpointError(
                f"{folder}: the weights have other shapes than config.json says. Download both again."
            ) from error
        raise ModelError(
            f"{folder}: torch could not load the checkpoint as {precision} ({first_line(error)}). "
            "Check the folder, or choose another precision or device."
        ) from error
    _refuse_gaps(folder, report)
    model.eval().requires_grad_(False)
    return Towers(vision=model.model.visual, decoder=model.model.language_model)


def _without_vocabulary(weights: MappedWeights) -> dict[str, torch.Tensor]:
    """Tensors by the names of transformers, with one empty row each for the embeddings and the head."""
    row = torch.zeros(1, weights[EMBEDDINGS].shape[1])
    tensors = {f"model.{name}": weights[name] for name in weights.names()}
    return tensors | {f"model.{EMBEDDINGS}": row, HEAD: row.clone()}


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
        # A model of one token: see `_without_vocabulary`.
        text.update(vocab_size=1, pad_token_id=None)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Download the checkpoint again.") from error
    return import_module("transformers").Qwen3VLConfig(**raw)


def _quantization_config(chosen: Format) -> Any:
    """What bitsandbytes is asked for; None for plain weights."""
    if chosen.quantization is None:
        return None
    configure = import_module("transformers").BitsAndBytesConfig
    if chosen.quantization == "nf4":
        # The vision tower, a tenth to a fifth of the weights, loses most: on qvl-tiny the smallest cosine of
        # pictures against float32 is 0.984 with it in nf4, 0.997 without.
        return configure(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=chosen.dtype,
            llm_int8_skip_modules=["visual", "lm_head"],
        )
    # It says at every product that the inputs are cast to float16, which is how LLM.int8 works.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return configure(load_in_8bit=True)


def _refuse_gaps(folder: Path, report: dict[str, Any]) -> None:
    """A tensor that was not found would stay random, with no more than a warning from transformers."""
    missing = sorted(report["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{folder}: its weights lack {missing[0].removeprefix('model.')}{more}. "
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
