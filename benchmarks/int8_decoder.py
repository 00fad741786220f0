"""int8 decoder against float32 and against ONNX Runtime's own dynamic int8, at the 2B decoder's width.

    python -m benchmarks.int8_decoder [--layers 4] [--tokens 256] [--rounds 7]

All graphs are made from one random checkpoint and run in turn in one process, one thread each, so that
whatever else the machine does hits all of them. The JSON holds medians and ratios. On x86 without VNNI
(`flags` says) integer products take twice the instructions, and the ratio is smaller than on other machines.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.dynamic import quantize_dynamically
from qvl_local.export.onnx_file import write_model
from qvl_local.export.recipe import PRECISIONS, Recipe
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions
from qvl_local.runtime.model.positions import token_positions, token_rotary

from .runner import in_one_thread, record, summary
from .true_shapes import Shape, write_pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    in_one_thread("benchmarks.int8_decoder")
    with tempfile.TemporaryDirectory() as name:
        sessions = prepare(Path(name), layers=options.layers)
        result = measure(sessions, Path(name), tokens=options.tokens, rounds=options.rounds)
    shape = {"hidden": 2048, "intermediate": 6144, "layers": options.layers, "tokens": options.tokens}
    print(record("int8_decoder", {"shape": shape, "threads": 1, **result}))


def prepare(folder: Path, *, layers: int) -> dict[str, OrtSession]:
    """Sessions of each kind, loaded."""
    shape = Shape(
        hidden=2048,
        layers=layers,
        heads=16,
        kv_heads=8,
        head_dim=128,
        intermediate=6144,
        vision_hidden=128,
        vision_depth=1,
        vision_heads=2,
        vision_intermediate=256,
        deepstack=(0,),
        tied=True,
        vocabulary=1280,
    )
    checkpoint = Checkpoint(write_pair(folder / "pair", shape)["embedder"])
    graphs = {
        "fp32": PRECISIONS["fp32"].graph,
        "int8": PRECISIONS["int8"].graph,
        "int8 recipe": Recipe.of("int8").graph("decoder", checkpoint.names()),
    }
    for name, precision in graphs.items():
        write_model(build_decoder(checkpoint, precision), folder / f"{name}.onnx")
    write_model(build_decoder(checkpoint, graphs["fp32"]), folder / "dynamic.onnx")
    quantize_dynamically(folder / "dynamic.onnx")
    options = SessionOptions(threads=1)
    return {name: OrtSession(folder / f"{name}.onnx", options) for name in (*graphs, "dynamic")}


def measure(sessions: Mapping[str, OrtSession], folder: Path, *, tokens: int, rounds: int) -> dict[str, Any]:
    """Medians, and how many times faster than float32 each is; cosines of one random input."""
    feeds = inputs(Checkpoint(folder / "pair" / "embedding"), tokens)
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    outputs = {name: session.run(feeds)["pooled"][0] for name, session in sessions.items()}
    for _ in range(rounds):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(feeds)
            samples[name].append((time.perf_counter() - start) * 1000)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    exact = outputs["fp32"]
    return {
        "rows": [
            {
                "graph": name,
                **summary(values),
                "times_faster_than_fp32": round(medians["fp32"] / medians[name], 3),
                "cosine": round(float(outputs[name] @ exact / norms(outputs[name], exact)), 6),
            }
            for name, values in samples.items()
        ]
    }


def norms(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(a) * np.linalg.norm(b))


def inputs(checkpoint: Checkpoint, tokens: int) -> dict[str, NDArray[Any]]:
    text = checkpoint.config.text
    generator = np.random.default_rng(0)
    positions = token_positions(np.zeros(tokens, np.bool_), [])[:, None]
    cos, sin = token_rotary(positions, text)
    return {
        "embeds": generator.standard_normal((1, tokens, text.hidden_size), dtype=np.float32),
        "cos": cos,
        "sin": sin,
        "deepstack": np.zeros((len(checkpoint.config.vision.deepstack_layers), 1, 1, text.hidden_size)),
        "last": np.array([tokens - 1]),
    }


if __name__ == "__main__":
    main()
