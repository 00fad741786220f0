"""Which layers cost most when they are quantized: leave one kind out at a time.

    python -m benchmarks.layer_sensitivity [--precision int8 nf4 int4] [--checkpoint models/tiny/embedding]

For each precision the whole model is exported plain (nothing tuned), and again with one kind of layer kept in
float32. The JSON holds how much of the lost cosine comes back, on the inputs of the parity check. The default
recipes follow from it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import LayerRule, Recipe
from qvl_local.runtime.model.checkpoints import Checkpoint

from .runner import ROOT, in_one_thread, record

KINDS = (
    "visual.patch_embed.*",
    "visual.blocks.*.attn.qkv",
    "visual.blocks.*.attn.proj",
    "visual.blocks.*.mlp.linear_fc1",
    "visual.blocks.*.mlp.linear_fc2",
    "visual.*merger*",
    "language_model.layers.*.self_attn.q_proj",
    "language_model.layers.*.self_attn.k_proj",
    "language_model.layers.*.self_attn.v_proj",
    "language_model.layers.*.self_attn.o_proj",
    "language_model.layers.*.mlp.gate_proj",
    "language_model.layers.*.mlp.up_proj",
    "language_model.layers.*.mlp.down_proj",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", nargs="+", default=["int8", "nf4", "int4"])
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "tiny" / "embedding")
    options = parser.parse_args()
    in_one_thread("benchmarks.layer_sensitivity")
    rows = [row for precision in options.precision for row in leave_one_out(options.checkpoint, precision)]
    print(record("layer_sensitivity", {"checkpoint": options.checkpoint.name, "rows": rows}))


def leave_one_out(checkpoint: Path, precision: str) -> list[dict[str, Any]]:
    """Lost cosine of a precision, and with each kind of layer left out; the costliest kind first."""
    whole = lost_cosine(checkpoint, precision, None)
    rows = []
    for kind in KINDS:
        lost = lost_cosine(checkpoint, precision, kind)
        gained = round((whole - lost) / whole, 4)
        rows.append({"precision": precision, "kept": kind, "lost_cosine": lost, "gained": gained})
    rows.sort(key=lambda row: -row["gained"])
    return [{"precision": precision, "kept": None, "lost_cosine": whole, "gained": 0.0}, *rows]


def lost_cosine(checkpoint: Path, precision: str, kept: str | None) -> float:
    """1 - the smallest cosine to the checkpoint, with the layers that match `kept` in float32."""
    rules = () if kept is None else (LayerRule(kept, "fp32"),)
    recipe = Recipe(vision=precision, decoder=precision, layers=rules)
    source = Checkpoint(path=checkpoint, name=checkpoint.name)
    with tempfile.TemporaryDirectory() as folder:
        manifest = export_bundle({"embedder": source}, Path(folder) / "bundle", recipe=recipe)
    return round(1 - manifest.parity[0].min_cosine, 7)


if __name__ == "__main__":
    main()
