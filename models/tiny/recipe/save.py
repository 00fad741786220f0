"""Writes a trained checkpoint as the Hugging Face folder that ships: fp16 weights in the hub's dress."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

DRESS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
"""Files that training never changes; they come from the folder that is replaced."""


def save(weights: Path, folder: Path) -> None:
    """Replace the weights of `folder` by those in `weights`, in fp16; every other file of it stays.

    Raises ValueError when the tensors do not have the names and shapes of those they replace, or leave fp16's
    range.
    """
    new, old = load_file(weights / "model.safetensors"), load_file(folder / "model.safetensors")
    new = {
        name: tensor for name, tensor in new.items() if name in old or name != "lm_head.weight"
    }  # the head is tied
    shapes = {name: tuple(tensor.shape) for name, tensor in new.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in old.items()}:
        raise ValueError(f"{weights} holds other tensors than {folder}: both must be one architecture")
    halved = {name: tensor.to(torch.float16).contiguous() for name, tensor in new.items()}
    if not all(torch.isfinite(tensor).all() for tensor in halved.values()):
        raise ValueError(f"{weights} has weights beyond fp16's range")
    partial = folder / "model.safetensors.partial"
    save_file(halved, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")


def dress(folder: Path, like: Path) -> None:
    """Copy configuration, tokenizer and template beside freshly trained weights, so that the folder loads."""
    for name in DRESS:
        shutil.copy(like / name, folder / name)


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
