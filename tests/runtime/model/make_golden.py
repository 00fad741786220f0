"""Recompute the golden vectors of qvl-tiny: `python tests/runtime/model/make_golden.py`.

Run it when the weights of models/tiny change, look at the difference it reports, and commit `golden.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from qvl_local.runtime import Embedder, Reranker
from qvl_local.runtime.model.video import VideoFrames

GOLDEN = Path(__file__).with_name("golden.json")
QUERY = {"text": "two dogs on a beach"}


def inputs() -> dict[str, dict[str, Any]]:
    """Inputs that are the same on every machine."""
    y, x = np.mgrid[0:150, 0:200]
    photo = np.stack([(x + y) % 256, (3 * x) % 256, (x * y // 64) % 256], axis=-1).astype(np.uint8)
    film = np.stack([np.roll(photo, 11 * i, axis=1) for i in range(6)])
    return {
        "text": QUERY,
        "instruction": {"text": "a cat", "instruction": "Find the animal"},
        "image": {"image": photo},
        "images": {"image": [photo, photo[:64, :96]], "text": "which?"},
        "video": {"video": VideoFrames(film, np.arange(6) / 2)},
        "mixed": {
            "text": "at night",
            "image": photo[::-1].copy(),
            "video": VideoFrames(film, np.arange(6) / 2),
        },
    }


def compute() -> dict[str, dict[str, Any]]:
    """Vectors (every eighth component is enough to tell models apart) and scores."""
    named = inputs()
    vectors = Embedder.open("tiny", precision="fp32").embed(named.values())
    scores = Reranker.open("tiny", precision="fp32").score(
        QUERY, [{key: value for key, value in one.items() if key != "instruction"} for one in named.values()]
    )
    return {
        name: {"vector": [round(float(v), 6) for v in vector[::8]], "score": round(float(score), 6)}
        for name, vector, score in zip(named, vectors, scores, strict=True)
    }


def main() -> None:
    """Write the file and say how far it moved."""
    fresh = compute()
    if GOLDEN.exists():
        old = json.loads(GOLDEN.read_text(encoding="utf-8"))
        for name in sorted(set(old) & set(fresh)):
            moved = np.abs(np.subtract(old[name]["vector"], fresh[name]["vector"])).max()
            score = f"score {old[name]['score']} -> {fresh[name]['score']}"
            sys.stdout.write(f"{name}: vector moved by {moved:.2g}, {score}\n")
    GOLDEN.write_text(json.dumps(fresh, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
