"""Shapes of the published models, for planning before a checkpoint is here."""

from __future__ import annotations

from .config import ModelConfig, TextConfig, VisionConfig


def published_name(model: str) -> str | None:
    """The short name of a published pair, for itself and for its ids of any revision; None for others."""
    name = model.partition("@")[0].lower()
    for role in ("embedding", "reranker"):
        name = name.removeprefix(f"qwen/qwen3-vl-{role}-")
    return name if published_config(name) is not None else None


def published_config(name: str) -> ModelConfig | None:
    """The shapes of "2b" and "8b" (Qwen3-VL technical report, and the published config.json files)."""
    if name == "2b":
        text, vision = (2048, 28, 16, 6144, True), (1024, 24, 16, 4096, (5, 11, 17))
    elif name == "8b":
        text, vision = (4096, 36, 32, 12288, False), (1152, 27, 16, 4304, (8, 16, 24))
    else:
        return None
    hidden, layers, heads, inner, tied = text
    vision_hidden, depth, vision_heads, vision_inner, deepstack = vision
    return ModelConfig(
        text=TextConfig(
            vocab_size=151_936,
            hidden_size=hidden,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=8,
            head_dim=128,
            intermediate_size=inner,
            rms_norm_eps=1e-6,
            rope_theta=5_000_000.0,
            mrope_section=(24, 20, 20),
            max_positions=262_144,
            tied_head=tied,
        ),
        vision=VisionConfig(
            depth=depth,
            hidden_size=vision_hidden,
            num_heads=vision_heads,
            intermediate_size=vision_inner,
            out_hidden_size=hidden,
            patch_size=16,
            temporal_patch_size=2,
            merge_size=2,
            in_channels=3,
            grid_side=48,
            deepstack_layers=deepstack,
        ),
        image_token_id=151_655,
        video_token_id=151_656,
        vision_start_token_id=151_652,
        vision_end_token_id=151_653,
    )
