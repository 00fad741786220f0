"""The numbers of a Qwen3-VL checkpoint, read from its `config.json`.

Nothing here is a table of known sizes: every figure comes from the file. Two dialects are read:
`rope_scaling` with `rope_theta` (transformers 4.57, the published models) and `rope_parameters`
(transformers 5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The decoder. `mrope_section` counts rotary pairs for time, height, width: together head_dim / 2."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    max_positions: int
    tied_head: bool


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower. `grid_side` is the side of the square table of learned positions."""

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    in_channels: int
    grid_side: int
    deepstack_layers: tuple[int, ...]

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Values in one flattened patch: channels * temporal * patch * patch (1536 as published)."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One Qwen3-VL checkpoint: decoder, vision tower, and the ids that mark vision in a prompt."""

    text: TextConfig
    vision: VisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int


def load_config(folder: Path) -> ModelConfig:
    """Read `folder/config.json`.

    Raises:
        CheckpointError: the file is missing, is not JSON, or describes another architecture.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: no config.json. Give the folder of a Qwen3-VL checkpoint or of a bundle."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Download the checkpoint again.") from error
    return parse_config(raw, source=str(path))


def parse_config(raw: Mapping[str, Any], *, source: str) -> ModelConfig:
    """Turn the JSON object of a `config.json` into a `ModelConfig`; `source` names it in errors."""
    if raw.get("model_type") != "qwen3_vl":
        raise CheckpointError(
            f"{source}: model_type is {raw.get('model_type')!r}, not 'qwen3_vl'. "
            "Use a Qwen3-VL-Embedding or Qwen3-VL-Reranker checkpoint."
        )
    try:
        config = ModelConfig(
            text=_text_config(raw),
            vision=_vision_config(raw["vision_config"]),
            image_token_id=int(raw["image_token_id"]),
            video_token_id=int(raw["video_token_id"]),
            vision_start_token_id=int(raw["vision_start_token_id"]),
            vision_end_token_id=int(raw["vision_end_token_id"]),
        )
    except KeyError as error:
        raise CheckpointError(f"{source}: lacks {error.args[0]!r}. Download the checkpoint again.") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: {error}") from error
    _check(config, source)
    return config


def _text_config(raw: Mapping[str, Any]) -> TextConfig:
    text = raw["text_config"]
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    theta = text.get("rope_theta", rope.get("rope_theta"))
    if theta is None:
        raise KeyError("rope_theta")
    section = rope["mrope_section"]
    heads = int(text["num_attention_heads"])
    hidden = int(text["hidden_size"])
    return TextConfig(
        vocab_size=int(text["vocab_size"]),
        hidden_size=hidden,
        num_layers=int(text["num_hidden_layers"]),
        num_heads=heads,
        num_kv_heads=int(text["num_key_value_heads"]),
        head_dim=int(text.get("head_dim") or hidden // heads),
        intermediate_size=int(text["intermediate_size"]),
        rms_norm_eps=float(text.get("rms_norm_eps", 1e-6)),
        rope_theta=float(theta),
        mrope_section=(int(section[0]), int(section[1]), int(section[2])),
        max_positions=int(text["max_position_embeddings"]),
        tied_head=bool(raw.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
    )


def _vision_config(vision: Mapping[str, Any]) -> VisionConfig:
    positions = int(vision["num_position_embeddings"])
    return VisionConfig(
        depth=int(vision["depth"]),
        hidden_size=int(vision["hidden_size"]),
        num_heads=int(vision["num_heads"]),
        intermediate_size=int(vision["intermediate_size"]),
        out_hidden_size=int(vision["out_hidden_size"]),
        patch_size=int(vision["patch_size"]),
        temporal_patch_size=int(vision["temporal_patch_size"]),
        merge_size=int(vision["spatial_merge_size"]),
        in_channels=int(vision.get("in_channels", 3)),
        grid_side=round(positions**0.5),
        deepstack_layers=tuple(int(i) for i in vision["deepstack_visual_indexes"]),
    )


def _check(config: ModelConfig, source: str) -> None:
    text, vision = config.text, config.vision
    if sum(text.mrope_section) * 2 != text.head_dim:
        raise CheckpointError(
            f"{source}: mrope_section {list(text.mrope_section)} does not cover head_dim {text.head_dim}."
        )
    if text.num_heads % text.num_kv_heads:
        raise CheckpointError(f"{source}: {text.num_heads} heads cannot share {text.num_kv_heads} kv heads.")
    if vision.hidden_size % vision.num_heads:
        raise CheckpointError(f"{source}: vision hidden size does not divide into its heads.")
    if vision.out_hidden_size != text.hidden_size:
        raise CheckpointError(f"{source}: vision features do not have the decoder's width.")
    if any(not 0 <= layer < vision.depth for layer in vision.deepstack_layers):
        raise CheckpointError(f"{source}: a deepstack layer lies outside the vision tower.")
