"""One decoder with adapters against two decoders: bytes, drift and time, for both models of qvl-tiny.

    python -m benchmarks.adapters [--part tiny prefill] [--questions 40] [--layers 4] [--smoke]

Size and drift are qvl-tiny's: every layout is exported and asked about the same held-out pictures, and drift
is the distance from the fp32 bundle's answers. Time is that of decoders of the 2B model's width with a few
layers of random weights, since qvl-tiny's products are too small for it: plain, shared as embedder, shared as
reranker, and with the factors fed as inputs of every run instead of lying in the graph. All run in this
process on one thread, in turn, several times over.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from qvl_local.export.adapters import Unshareable, find_adapters
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.export.decoder import build_decoder
from qvl_local.export.onnx_file import ElementType, Model, ValueInfo, write_model
from qvl_local.export.pipeline import export_bundle
from qvl_local.export.recipe import Recipe
from qvl_local.export.spool import open_spool
from qvl_local.runtime import Embedder, Reranker
from qvl_local.runtime.model.bundle import Manifest
from qvl_local.runtime.model.checkpoints import find_checkpoints
from qvl_local.runtime.model.ort_session import OrtSession, SessionOptions
from qvl_local.runtime.model.session import Array
from qvl_local.runtime.world.galleries import held_out_galleries
from qvl_local.runtime.world.queries import Style
from qvl_local.runtime.world.render import Renderer

from benchmarks.runner import RESULTS, record, summary
from benchmarks.true_shapes import SHAPES, write_pair

PRECISIONS = ("int8", "nf4")
SIZED = ("int8", "nf4", "int4", "int8-weight")
DOCUMENTS = 20
TOKENS = (32, 256)
STYLES = (Style.PARTIAL, Style.SHORT, Style.TERSE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=["tiny", "prefill"], help="both unless given")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="a small run that records nothing")
    options = parser.parse_args()
    questions, layers, rounds = (
        (4, 1, 1) if options.smoke else (options.questions, options.layers, options.rounds)
    )
    parts: dict[str, Callable[[Path], Any]] = {
        "tiny": lambda folder: measure_tiny(folder, questions),
        "prefill": lambda folder: measure_prefill(folder, layers, rounds),
    }
    for name in options.part or parts:
        with tempfile.TemporaryDirectory() as folder:
            found = parts[name](Path(folder))
        if not options.smoke:
            path = RESULTS / "adapters.json"
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            print(record("adapters", {**{part: known[part] for part in parts if part in known}, name: found}))


# Size and drift


@dataclass(frozen=True, slots=True)
class Answers:
    """What a bundle says: unit embeddings [n, H] of texts and pictures, and logits [questions, documents]."""

    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]


def measure_tiny(folder: Path, questions: int) -> dict[str, Any]:
    pair = find_checkpoints("tiny")
    export_bundle(pair, folder / "fp32", recipe=Recipe.of("fp32"))
    asked = _asked(questions, folder / "fp32")
    expected = _answers(folder / "fp32", asked)
    rows = []
    for precision in SIZED:
        recipe = Recipe.of(precision)
        alone = export_bundle({"embedder": pair["embedder"]}, folder / f"{precision}-alone", recipe=recipe)
        drifts = {}
        for layout in ("separate", "shared"):
            start = time.perf_counter()
            at = folder / f"{precision}-{layout}"
            manifest = export_bundle(pair, at, recipe=recipe, layout=layout)
            seconds = time.perf_counter() - start
            drifts[layout] = _drift(expected, _answers(at, asked))
            rows.append(
                {
                    "precision": precision,
                    "layout": layout,
                    "bytes": _size(manifest),
                    "of_one_model": round(_size(manifest) / _size(alone), 3),
                    "adapters": None if manifest.adapters is None else manifest.adapters.bytes,
                    "rank": None if manifest.adapters is None else manifest.adapters.rank,
                    "export_s": round(seconds, 2),
                    **drifts[layout],
                }
            )
            print(rows[-1], flush=True)
        rows[-1]["drift_of_separate"] = {
            name: round(value / drifts["separate"][name], 3)
            for name, value in drifts["shared"].items()
            if drifts["separate"][name]
        }
        print(rows[-1]["drift_of_separate"])
    return {"questions": questions, "documents": DOCUMENTS, "pairs": questions * DOCUMENTS, "rows": rows}


def _asked(questions: int, exact: Path) -> list[tuple[str, list[Image.Image]]]:
    """Questions, each with the held-out pictures that the embedder of the `exact` bundle finds first.

    Those are the pairs that a search judges; of pictures drawn at random nearly all are plainly wrong, and a
    plain no hides what a logit drifts.
    """
    gallery = held_out_galleries(images=250, clips=1, families=1, queries=3 * questions)[0]
    chosen = gallery.asked(*STYLES)[:questions]
    renderer = Renderer()
    drawn = [
        Image.fromarray(renderer.image(scene, seed, 256))
        for scene, seed in zip(gallery.scenes, gallery.seeds, strict=True)
    ]
    embedder = Embedder.open(exact)
    pictures = embedder.embed([{"image": picture} for picture in drawn])
    texts = embedder.embed([{"text": question.text} for question in chosen])
    embedder.unload()
    found = np.argsort(-texts @ pictures.T, axis=1)[:, :DOCUMENTS]
    return [
        (question.text, [drawn[number] for number in row])
        for question, row in zip(chosen, found, strict=True)
    ]


def _answers(bundle: Path, asked: Sequence[tuple[str, list[Image.Image]]]) -> Answers:
    embedder, reranker = Embedder.open(bundle), Reranker.open(bundle)
    inputs: list[dict[str, Any]] = [{"text": text} for text, _ in asked]
    inputs += [{"image": picture} for _, pictures in asked for picture in pictures[:2]]
    embeddings = embedder.embed(inputs)
    logits = [
        reranker.logits({"text": text}, [{"image": picture} for picture in pictures])
        for text, pictures in asked
    ]
    embedder.unload()
    reranker.unload()
    return Answers(embeddings, np.stack(logits))


def _drift(expected: Answers, given: Answers) -> dict[str, float]:
    probability = np.abs(1 / (1 + np.exp(-expected.logits)) - 1 / (1 + np.exp(-given.logits)))
    cosine = np.sum(expected.embeddings * given.embeddings, axis=1)
    return {
        "embedder_rms": float(np.sqrt(np.mean((expected.embeddings - given.embeddings) ** 2))),
        "embedder_lost_cosine": float(1 - cosine.mean()),
        "reranker_rms_logit": float(np.sqrt(np.mean((expected.logits - given.logits) ** 2))),
        "reranker_mean_probability": float(probability.mean()),
        "reranker_max_probability": float(probability.max()),
    }


def _size(manifest: Manifest) -> int:
    return sum(file.size for file in manifest.files.values())


# Time


def measure_prefill(folder: Path, layers: int, rounds: int) -> list[dict[str, Any]]:
    shape = SHAPES["2b"].cut(layers)
    pair = {role: Checkpoint(path) for role, path in write_pair(folder / "wide", shape).items()}
    base = pair["embedder"]
    rows = []
    with open_spool() as spool:
        start = time.perf_counter()
        adapters = find_adapters(base, pair["reranker"], spool=spool)
        seconds = time.perf_counter() - start
        if isinstance(adapters, Unshareable):
            raise SystemExit(adapters.reason)
        ranks = [adapter.rank for adapter in adapters]
        print(f"ranks {min(ranks)} to {max(ranks)} in {seconds:.1f} s")
        for precision in ("fp32", *PRECISIONS):
            recipe = Recipe.of(precision)
            precise = recipe.graph("decoder", base.names())
            plain = build_decoder(base, precise, recipe.dialect)
            shared = build_decoder(base, precise, recipe.dialect, adapters=adapters)
            write_model(plain, folder / "plain.onnx")
            write_model(shared, folder / "shared.onnx")
            fed, factors = _with_inputs(shared)
            write_model(fed, folder / "fed.onnx")
            sessions = {
                name: OrtSession(folder / f"{name}.onnx", SessionOptions(threads=1))
                for name in ("plain", "shared", "fed")
            }
            for tokens in TOKENS:
                rows.append(
                    {
                        "precision": precision,
                        "layers": layers,
                        "rank": max(ranks),
                        "tokens": tokens,
                        "factorising_s": round(seconds, 2),
                        **_time(sessions, factors, base, tokens, rounds),
                    }
                )
                print(rows[-1], flush=True)
            del sessions
    return rows


def _with_inputs(shared: Model) -> tuple[Model, dict[str, Array]]:
    """The same graph with the factors as float32 inputs, and what to feed."""
    names = {weight.name for weight in shared.weights if ".adapter_" in weight.name}
    casts = {
        node.outputs[0]: node.inputs[0]
        for node in shared.nodes
        if node.op == "Cast" and node.inputs[0] in names
    }
    factors = {
        output: np.asarray(next(one for one in shared.weights if one.name == name).load(), np.float32)
        for output, name in casts.items()
    }
    inputs = tuple(ValueInfo(name, ElementType.FLOAT, factor.shape) for name, factor in factors.items())
    model = Model(
        name=shared.name,
        opsets=shared.opsets,
        inputs=shared.inputs + inputs,
        outputs=shared.outputs,
        nodes=tuple(node for node in shared.nodes if node.outputs[0] not in casts),
        weights=tuple(weight for weight in shared.weights if weight.name not in names),
        constants=shared.constants,
    )
    return model, factors


def _time(
    sessions: Mapping[str, OrtSession],
    factors: Mapping[str, Array],
    base: Checkpoint,
    tokens: int,
    rounds: int,
) -> dict[str, Any]:
    feeds = _feeds(base, tokens)
    off, on = ({"adapter": np.array([share], np.float32)} for share in (0, 1))
    runs: dict[str, tuple[str, dict[str, Array]]] = {
        "plain": ("plain", feeds),
        "shared_embedder": ("shared", {**feeds, **off}),
        "shared_reranker": ("shared", {**feeds, **on}),
        "fed_reranker": ("fed", {**feeds, **on, **factors}),
    }
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, (session, inputs) in runs.items():
            start = time.perf_counter()
            sessions[session].run(inputs)
            if number:  # the first run warms up
                spent[name].append(1000 * (time.perf_counter() - start))
    fastest = {name: min(times) for name, times in spent.items()}
    return {
        **{name: {**summary(times), "min_ms": round(min(times), 3)} for name, times in spent.items()},
        "overhead": {name: round(value / fastest["plain"], 3) for name, value in fastest.items()},
    }


def _feeds(base: Checkpoint, tokens: int) -> dict[str, Array]:
    text = base.config.text
    generator = np.random.default_rng(0)
    angle = generator.standard_normal((1, tokens, text.head_dim // 2), dtype=np.float32)
    return {
        "embeds": generator.standard_normal((1, tokens, text.hidden_size), dtype=np.float32),
        "cos": np.cos(angle),
        "sin": np.sin(angle),
        "deepstack": np.zeros((len(base.config.vision.deepstack_layers), 1, 1, text.hidden_size), np.float32),
        "last": np.array([tokens - 1], np.int64),
    }


if __name__ == "__main__":
    main()
