"""Measures a pair of checkpoints on held-out galleries, with exact relevance.

Photographs and clips are drawn at 512 pixels, photographs go through JPEG, and all are scaled down by the
checkpoint's budget, as in a library. The fusion weight is measured on galleries of another seed than the
figures. The forward is that of `model.py`, which a test compares with the one of `transformers`.
"""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from qvl_local.runtime.world.galleries import Gallery, Question, attribute_probes, held_out_galleries
from qvl_local.runtime.world.queries import Style
from qvl_local.runtime.world.render import Renderer
from qvl_local.runtime.world.vocabulary import Kind
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize

from .batches import embed_texts
from .features import encode
from .metrics import auc, ndcg, recall, reranked
from .model import Features, TextForward, VisionForward, load
from .prompts import CLIP_8, CLIP_16, IMAGE, Grid, Prompts

TOP = 20
FREE = (Style.PARTIAL, Style.SHORT, Style.TERSE)
WEIGHTS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 18.0, 22.0, 27.0, 33.0, 40.0, 60.0, 90.0)
TEST_SEED, VALIDATION_SEED = 7070, 1717


@dataclass(frozen=True, slots=True)
class Drawn:
    """A gallery, and what the vision tower makes of it."""

    gallery: Gallery
    grid: Grid
    seconds: tuple[float, ...]
    features: Features


@dataclass(frozen=True, slots=True)
class Candidates:
    """Questions with the embedder's scores [Q, N], its first TOP documents [Q, TOP] and the exact relevance
    [Q, N].
    """

    questions: tuple[Question, ...]
    scores: NDArray[np.float32]
    top: NDArray[np.int64]
    relevant: NDArray[np.bool_]


class Checkpoint:
    """A checkpoint, ready to embed or to judge."""

    def __init__(self, folder: Path) -> None:
        self.prompts = Prompts(Tokenizer.from_file(str(folder / "tokenizer.json")))
        self.model = load(folder)
        self.text, self.vision = TextForward(self.model, self.prompts), VisionForward(self.model)

    @torch.no_grad()
    def documents(self, drawn: Drawn) -> Tensor:
        layout = self.prompts.document(drawn.grid, drawn.seconds)
        rows = range(0, len(drawn.features.merged), 100)
        parts = [Features(drawn.features.merged[i : i + 100], drawn.features.deep[i : i + 100]) for i in rows]
        return torch.cat([self.text.documents(layout, part) for part in parts])

    @torch.no_grad()
    def scores(self, drawn: Drawn, texts: list[str], top: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of yes over no, [Q, K] for documents `top` [Q, K]."""
        layout, out = self.prompts.judged(drawn.grid, drawn.seconds), []
        for start in range(0, len(texts), 8):
            rows = torch.from_numpy(top[start : start + 8].reshape(-1))
            features = Features(drawn.features.merged[rows], drawn.features.deep[rows])
            last, _ = self.text.judged(texts[start : start + 8], layout, features)
            out.append(self.text.yes_no(last).view(-1, top.shape[1]))
        return torch.cat(out).numpy()


def draw(checkpoint: Checkpoint, gallery: Gallery, *, frames: int = 16) -> Drawn:
    """Render a gallery large, scale it down, and run the vision tower."""
    renderer, pixels = Renderer(), []
    grid = IMAGE if gallery.kind == Kind.PHOTO else CLIP_16 if frames == 16 else CLIP_8
    side = grid.side * 32
    for scene, seed in zip(gallery.scenes, gallery.seeds, strict=True):
        if gallery.kind == Kind.PHOTO:
            pixels.append(photographed(renderer.image(scene, seed, 512), side)[None])
        else:
            clip = renderer.clip(scene, seed, 512, frames=frames, smooth=True)
            pixels.append(np.stack([scaled(frame, side) for frame in clip]))
    merged, deep = encode(checkpoint.vision, np.stack(pixels), grid)
    seconds = tuple((2 * i + 0.5) / 2 for i in range(grid.slices)) if grid.video else ()
    return Drawn(
        gallery, grid, seconds, Features(torch.from_numpy(merged).float(), torch.from_numpy(deep).float())
    )


def photographed(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return scaled(np.asarray(Image.open(buffer).convert("RGB")), side)


def scaled(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def candidates(
    checkpoint: Checkpoint,
    drawn: Drawn,
    documents: Tensor,
    styles: tuple[Style, ...],
    limit: int | None = None,
) -> Candidates:
    questions = drawn.gallery.asked(*styles)[:limit]
    texts = embed_texts(checkpoint.text, [q.text for q in questions])
    scores = (texts @ normalize(documents, dim=-1).T).numpy()
    top = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    return Candidates(questions, scores, top, drawn.gallery.relevance(questions))


def embedder_figures(
    checkpoint: Checkpoint, drawn: Drawn, *, dims: tuple[int, ...] = (32, 64, 128, 256)
) -> dict[str, object]:
    """Full captions: recall at 1, 5, 10; other questions: nDCG@10 and precision at 1; at every MRL size."""
    documents, figures = checkpoint.documents(drawn), {}
    for name, styles in (("full", (Style.FULL,)), ("free", FREE), *((s.name.lower(), (s,)) for s in FREE)):
        questions = drawn.gallery.asked(*styles)
        relevant = drawn.gallery.relevance(questions)
        with torch.no_grad():
            raw = embed_texts(checkpoint.text, [q.text for q in questions])
        sizes = dims if name in ("full", "free") else dims[-1:]
        for d in sizes:
            scores = (normalize(raw[:, :d], dim=-1) @ normalize(documents[:, :d], dim=-1).T).numpy()
            figures[name if d == dims[-1] else f"{name}@{d}"] = ranking(scores, relevant)
    return figures


def ranking(scores: NDArray[np.float32], relevant: NDArray[np.bool_]) -> dict[str, float]:
    return {
        "recall@1": round(recall(scores, relevant, 1), 4),
        "recall@5": round(recall(scores, relevant, 5), 4),
        "recall@10": round(recall(scores, relevant, 10), 4),
        "ndcg@10": round(ndcg(scores, relevant), 4),
    }


def probe_figures(checkpoint: Checkpoint, *, each: int, seed: int = 5) -> dict[str, float]:
    """Share of probes whose true caption is nearest to the picture, by attribute."""
    hits: dict[str, list[bool]] = {}
    probes = attribute_probes(seed=seed, each=each)
    for kind in Kind:
        chosen = [p for p in probes if (p.attribute == "motion") == (kind == Kind.CLIP)]
        scenes, seeds = np.stack([p.scene for p in chosen]), tuple(p.seed for p in chosen)
        drawn = draw(checkpoint, Gallery("probes", kind, scenes, seeds, ()))
        documents = normalize(checkpoint.documents(drawn), dim=-1)
        with torch.no_grad():
            texts = embed_texts(checkpoint.text, [text for p in chosen for text in p.texts])
        start = 0
        for probe, document in zip(chosen, documents, strict=True):
            own = texts[start : start + len(probe.texts)] @ document
            start += len(probe.texts)
            hits.setdefault(probe.attribute, []).append(int(own.argmax()) == 0)
    return {name: round(float(np.mean(values)), 3) for name, values in hits.items()}


@dataclass(frozen=True, slots=True)
class Judged:
    """What the reranker says of the embedder's first documents: logits, cosines, truth [Q, TOP]."""

    found: Candidates
    logits: NDArray[np.float32]

    @property
    def cosines(self) -> NDArray[np.float32]:
        return np.take_along_axis(self.found.scores, self.found.top, 1)

    @property
    def truth(self) -> NDArray[np.bool_]:
        return np.take_along_axis(self.found.relevant, self.found.top, 1)

    def fused(self, weight: float) -> NDArray[np.float32]:
        """Scores [Q, N] with the judged first, ordered by logit + weight * cosine."""
        return reranked(self.found.scores, self.found.top, self.logits + weight * self.cosines)

    def figures(self, weight: float) -> dict[str, object]:
        """nDCG@10 and recall of the embedder, the reranker alone, and both; how well the logit separates."""
        relevant, truth = self.found.relevant, self.truth
        return {
            "embedder": ranking(self.found.scores, relevant),
            "reranker": ranking(self.fused(0.0), relevant),
            "fused": ranking(self.fused(weight), relevant),
            "auc": round(auc(self.logits, truth), 4),
            "yes_no_accuracy": round(float(((self.logits > 0) == truth).mean()), 4),
            "always_no_accuracy": round(float(1 - truth.mean()), 4),
            "questions": len(self.found.questions),
        }


def judge(
    embedder: Checkpoint,
    reranker: Checkpoint,
    drawn: Drawn,
    styles: tuple[Style, ...],
    *,
    limit: int | None = None,
) -> Judged:
    """Rerank the embedder's top documents of the first `limit` questions."""
    found = candidates(embedder, drawn, embedder.documents(drawn), styles, limit)
    return Judged(found, reranker.scores(drawn, [q.text for q in found.questions], found.top))


def fusion_record(judged: list[Judged]) -> dict[str, object]:
    """The weight of the cosine in `logit + weight * cosine` with the best mean nDCG@10 over galleries."""
    curves = [[ndcg(j.fused(weight), j.found.relevant) for weight in WEIGHTS] for j in judged]
    mean = np.mean(curves, 0)
    # One lucky query must move no weight: neighbours on the grid count too.
    smooth = np.convolve(np.pad(mean, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return {
        "formula": "logit + weight * cosine",
        "weight": WEIGHTS[int(smooth.argmax())],
        "measured_on": f"validation galleries, seed {VALIDATION_SEED}, partial, short and terse queries: "
        + ", ".join(f"{len(j.found.scores[0])} documents" for j in judged),
        "ndcg@10": {str(w): round(float(v), 4) for w, v in zip(WEIGHTS, mean, strict=True)},
    }


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: questions a gallery, probes an attribute, questions that are reranked."""

    queries: int = 500
    probes: int = 150
    reranked: int | None = 250
    validation: int = 200


@dataclass(frozen=True, slots=True)
class Job:
    """One part of the measurement, for a process of its own: a gallery's number, or the probes."""

    embedding: Path
    reranker: Path
    effort: Effort
    seed: int
    gallery: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a job found: embedder figures by name, and rankings by style."""

    figures: dict[str, object]
    judged: dict[str, Judged]


def run(job: Job) -> Result:
    """Measure one part; needs nothing but the checkpoints."""
    torch.set_num_threads(1)
    embedder = Checkpoint(job.embedding)
    if job.gallery is None:
        return Result({"probes": probe_figures(embedder, each=job.effort.probes)}, {})
    reranker = Checkpoint(job.reranker)
    if job.seed == VALIDATION_SEED:
        sizes = {"images": 600, "clips": 150, "families": 150}
        gallery = held_out_galleries(seed=job.seed, queries=job.effort.validation, **sizes)[job.gallery]
        drawn = draw(embedder, gallery)
        return Result({}, {"free": judge(embedder, reranker, drawn, FREE)})
    gallery = held_out_galleries(seed=job.seed, queries=job.effort.queries)[job.gallery]
    drawn = draw(embedder, gallery)
    figures: dict[str, object] = {"embedder": embedder_figures(embedder, drawn)}
    if gallery.kind == Kind.CLIP:
        figures["embedder_8_frames"] = embedder_figures(
            embedder, draw(embedder, gallery, frames=8), dims=(256,)
        )
    judged = {
        name: judge(embedder, reranker, drawn, styles, limit=job.effort.reranked)
        for name, styles in (("full", (Style.FULL,)), ("free", FREE))
    }
    return Result({gallery.name: figures}, judged)


def measure(
    embedding: Path, reranker: Path, *, workers: int, effort: Effort | None = None
) -> tuple[dict[str, object], dict[str, object]]:
    """All figures of the card, and the fusion record."""
    effort = effort or Effort()
    jobs = [
        Job(embedding, reranker, effort, seed, g) for seed in (TEST_SEED, VALIDATION_SEED) for g in range(3)
    ]
    jobs.append(Job(embedding, reranker, effort, TEST_SEED, None))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        *tests, v1, v2, v3, probes = pool.map(run, jobs)
    fusion = fusion_record([v.judged["free"] for v in (v1, v2, v3)])
    weight = float(str(fusion["weight"]))
    figures: dict[str, object] = {"fusion_weight": weight} | probes.figures
    for test in tests:
        ((name, entry),) = test.figures.items()
        reranking = {style: judged.figures(weight) for style, judged in test.judged.items()}
        figures[name] = dict(entry) | {"reranker": reranking}  # type: ignore[call-overload]
    return figures, fusion
