"""One name for each tensor of a checkpoint, in whatever dress it was saved."""

from __future__ import annotations

import re

_BARE_TEXT = re.compile(r"(layers\.|embed_tokens\.|norm\.)")


def canonical_name(stored: str) -> str:
    """One name for a tensor in every dress.

    `model.language_model.layers.0...` (transformers 4.57 and 5), `language_model.model.layers.0...` and
    `model.layers.0...` (older), `layers.0...` (the bare decoder) all become `language_model.layers.0...`;
    `model.visual...` becomes `visual...`.
    """
    name = stored
    while name.startswith("model."):
        name = name.removeprefix("model.")
    if name.startswith("language_model."):
        name = name.removeprefix("language_model.").removeprefix("model.")
        if name.startswith("lm_head."):
            return name
        return "language_model." + name
    if _BARE_TEXT.match(name):
        return "language_model." + name
    return name
