"""The training loop of the text layers: one base on both tasks, then LoRA for each.

Vision features come from the cache; the vision tower itself trains in `vision.py`.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .batches import JudgeBatch, Mined, PairBatch, judge_batch, mine, pair_batch, time_stamps
from .features import Documents, open_documents
from .losses import AttributeHeads, JudgeHeads, contrastive, listwise, yes_or_no
from .model import Features, TextForward, load
from .optim import Muon, clip, rate
from .parallel import add_up_gradients, agreed, launch
from .prompts import Prompts

EMBED, JUDGE = "embedding", "reranker"


@dataclass(frozen=True, slots=True)
class Stage:
    """Settings of one run. `minutes` ends a run early on a slow machine, with the decay done in time."""

    tasks: tuple[str, ...] = (EMBED, JUDGE)
    steps: int = 3000
    minutes: float = 600.0
    seed: int = 1
    rank: int = 0  # 0: every weight of the text tower trains
    lr: float = 8e-4  # AdamW
    muon_lr: float = 6e-3
    decay: float = 0.6
    pairs: int = 96
    questions: int = 12
    per_question: int = 8
    siblings: int = 3
    mine_every: int = 800
    mined_queries: int = 5000
    mined_among: int = 6400
    attributes: float = 0.12
    dense: float = 0.5
    clips_every: int = 5
    structure: float | None = None  # share of families of eight in a batch of pairs; None: as in the pool


def train(
    stage: Stage,
    *,
    start: Path,
    out: Path,
    pool: Path,
    features: Path,
    heads: Path | None,
    workers: int,
) -> None:
    """Run a stage from the checkpoint folder `start`; writes weights to `out`, heads to `out`.heads.pt, a log
    to stdout.

    With as many workers as tasks, each process takes one task, and their gradients are added up.
    """
    launch(workers, _train, stage, start, out, pool, features, heads)


def _train(
    rank: int,
    workers: int,
    stage: Stage,
    start: Path,
    out: Path,
    pool: Path,
    features: Path,
    heads: Path | None,
) -> None:
    torch.manual_seed(stage.seed)
    rng = random.Random(stage.seed + 1000 * rank)
    tasks = stage.tasks[rank::workers]
    documents = open_documents(pool, features)
    model = load(start)
    prompts = Prompts(Tokenizer.from_file(str(start / "tokenizer.json")))
    text = TextForward(model, prompts, compiled=True)
    attributes, judge = AttributeHeads(256), JudgeHeads(256)
    temperature = nn.Parameter(torch.tensor(3.6))
    if heads is not None:
        saved = torch.load(heads, weights_only=True)
        attributes.load_state_dict(saved["attributes"])
        if "judge" in saved:
            judge.load_state_dict(saved["judge"])
            temperature.data.copy_(saved["temperature"])
    extra = [*attributes.parameters(), *judge.parameters(), temperature]
    optimisers, trained = _optimisers(stage, text, extra, rank, workers)
    every = [*trained, *extra]
    mined: dict[str, Mined] = {}
    log: dict[str, list[float]] = defaultdict(list)
    began, mining = time.monotonic(), 0.0
    step = 0
    while True:
        progress = agreed(max(step / stage.steps, (time.monotonic() - began) / 60 / stage.minutes))
        if progress >= 1:
            break
        if JUDGE in tasks and (not mined or step % stage.mine_every == 0):
            tick = time.monotonic()
            mined = {
                name: mine(
                    rng,
                    text,
                    part,
                    queries=stage.mined_queries if name == "photos" else stage.mined_queries // 8,
                    among=stage.mined_among if name == "photos" else stage.mined_among // 16,
                )
                for name, part in documents.items()
            }
            mining += time.monotonic() - tick
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["base"] * rate(progress, step, warmup=60, decay=stage.decay)
        loss = torch.zeros(())
        # The same turn in every process: a batch with clips takes twice as long.
        clips = None if step % stage.clips_every else ("clips_8", "clips_16")[step // stage.clips_every % 2]
        weight = stage.attributes * max(0.25, 1 - progress)
        if EMBED in tasks:
            batch = pair_batch(rng, documents, _pair_plan(stage, clips), structure=stage.structure)
            loss = loss + _pair_loss(text, attributes, documents, batch, temperature, weight, rng, log)
        if JUDGE in tasks:
            name = clips or "photos"
            questions = stage.questions // 3 if clips else stage.questions
            judged = judge_batch(
                rng, documents[name], mined[name],
                queries=questions, per_query=stage.per_question, siblings=stage.siblings,
            )  # fmt: skip
            loss = loss + _judge_loss(text, judge, documents[name], judged, stage.dense, rng, log)
        loss.backward()
        add_up_gradients(every)
        log["norm"].append(clip(trained, 2.0))
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        step += 1
        if step % 25 == 0:
            print(
                f"[{rank}]", _line(step, stage, progress, time.monotonic() - began, mining, log), flush=True
            )
            log.clear()
        if step % 400 == 0 and rank == 0:
            _save(text, model, out, attributes, judge, temperature, stage, partial=True)
    if rank:
        return
    _save(text, model, out, attributes, judge, temperature, stage, partial=False)
    print(json.dumps({"steps": step, "minutes": round((time.monotonic() - began) / 60, 1)}), flush=True)


def _optimisers(
    stage: Stage, text: TextForward, extra: list[nn.Parameter], rank: int, workers: int
) -> tuple[list[torch.optim.Optimizer], list[nn.Parameter]]:
    text.tower.requires_grad_(True)
    if stage.rank:
        low = text.adapt(stage.rank, scale=2.0, seed=stage.seed)
        optimisers: list[torch.optim.Optimizer] = [_adam(low + extra, stage.lr)]
        trained = low
    else:
        matrices = [p for layer in text.tower.layers for p in layer.parameters() if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        rest = [p for p in text.tower.parameters() if id(p) not in chosen]
        optimisers = [
            Muon(matrices, lr=stage.muon_lr, decay=0.02, rank=rank, workers=workers),
            _adam(rest + extra, stage.lr),
        ]
        trained = matrices + rest
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["base"] = group["lr"]
    return optimisers, trained


def _adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, betas=(0.9, 0.98), fused=True)


def _pair_plan(stage: Stage, clips: str | None) -> list[tuple[str, int]]:
    return [("photos", stage.pairs // 2), (clips, stage.pairs // 4)] if clips else [("photos", stage.pairs)]


def _pair_loss(
    text: TextForward,
    heads: AttributeHeads,
    documents: dict[str, Documents],
    batch: PairBatch,
    temperature: Tensor,
    weight: float,
    rng: random.Random,
    log: dict[str, list[float]],
) -> Tensor:
    encoded = []
    for name, rows in batch.parts:
        grid = documents[name].grid
        layout = text.prompts.document(grid, time_stamps(rng, grid), outer=grid.video and rng.random() < 0.2)
        encoded.append(text.documents(layout, documents[name].rows(rows)))
    images, queries = torch.cat(encoded), text.texts(batch.instruction, batch.texts)
    loss = contrastive(queries, images, batch.masked, temperature.clamp(max=4.1).exp())
    seen, accuracies = heads.loss(images, batch.scenes)
    asked, _ = heads.loss(queries, batch.constraints)
    log["pair"].append(loss.item())
    log["attr"].append(seen.item())
    for name in ("count A", "side A", "count B", "side B", "a_size", "word", "motion"):
        if name in accuracies:
            log[name].append(accuracies[name])
    with torch.no_grad():
        similarity = nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(images, dim=-1).T
        best = similarity.masked_fill(batch.masked, -1).argmax(1)
        log["hit"].append((best == torch.arange(len(best))).float().mean().item())
    return loss + weight * (seen + asked)


def _judge_loss(
    text: TextForward,
    heads: JudgeHeads,
    documents: Documents,
    batch: JudgeBatch,
    dense: float,
    rng: random.Random,
    log: dict[str, list[float]],
) -> Tensor:
    grid = documents.grid
    layout = text.prompts.judged(grid, time_stamps(rng, grid), outer=grid.video and rng.random() < 0.2)
    features: Features = documents.rows(batch.rows)
    last, visual = text.judged(batch.texts, layout, features)
    logits = text.yes_no(last).view(batch.relevant.shape)
    ranked, judged = listwise(logits, batch.relevant), yes_or_no(logits, batch.relevant)
    flags, cells = heads.loss(last, visual, batch.flags, batch.cells)
    own = logits[:, :1] >= logits.masked_fill(batch.relevant > 0, -1e4).max(1, keepdim=True).values
    for name, value in (("list", ranked), ("bce", judged), ("flags", flags), ("first", own.float().mean())):
        log[name].append(value.item())
    if not grid.video:
        log["cells"].append(cells.item())
    return ranked + judged + dense * (2 * flags + cells)


def _line(
    step: int, stage: Stage, progress: float, elapsed: float, mining: float, log: dict[str, list[float]]
) -> str:
    parts = " ".join(f"{name} {np.mean(values):.3f}" for name, values in log.items())
    return f"{elapsed / 60:.1f}min (mining {mining:.0f}s) {step}/{stage.steps} {progress:.0%} {parts}"


def _save(
    text: TextForward,
    model: nn.Module,
    out: Path,
    attributes: AttributeHeads,
    judge: JudgeHeads,
    temperature: Tensor,
    stage: Stage,
    *,
    partial: bool,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if partial and text.adapters:
        return  # an interrupted LoRA run starts again: folding would end it
    if text.adapters:
        text.fold()
    model.save_pretrained(out)  # type: ignore[operator]
    heads = {
        "attributes": attributes.state_dict(),
        "judge": judge.state_dict(),
        "temperature": temperature.detach(),
    }
    torch.save(heads, out / "heads.pt")
    (out / "stage.json").write_text(json.dumps(asdict(stage), indent=2) + "\n")
