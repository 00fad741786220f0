"""The tables of the model card, from figures.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

START, END = "<!-- figures -->", "<!-- /figures -->"
TITLES = {"images": "1,000 images", "clips": "200 clips", "siblings": "250 families of 4 siblings"}
DIMS = (32, 64, 128, 256)


def table(figures: dict[str, Any]) -> str:
    """Everything that was measured, as Markdown."""
    return "\n\n".join((_embedder(figures), _dims(figures), _probes(figures), _reranker(figures)))


def refresh(card: Path, figures: dict[str, Any]) -> None:
    """Put the tables between the card's two marks."""
    before, rest = card.read_text().split(START, 1)
    _, after = rest.split(END, 1)
    card.write_text(f"{before}{START}\n\n{table(figures)}\n\n{END}{after}")


def _embedder(figures: dict[str, Any]) -> str:
    rows = [
        "| embedder | full captions: recall@1 / @5 | partial | short | terse | all three: nDCG@10 |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        e = figures[name]["embedder"]
        styles = " | ".join(f"{e[style]['ndcg@10']:.3f}" for style in ("partial", "short", "terse"))
        full = f"{e['full']['recall@1']:.3f} / {e['full']['recall@5']:.3f}"
        rows.append(f"| {title} | {full} | {styles} | {e['free']['ndcg@10']:.3f} |")
    e = figures["clips"]["embedder_8_frames"]
    full = f"{e['full']['recall@1']:.3f} / {e['full']['recall@5']:.3f}"
    styles = " | ".join(f"{e[style]['ndcg@10']:.3f}" for style in ("partial", "short", "terse"))
    rows.append(f"| the clips, 8 frames instead of 16 | {full} | {styles} | {e['free']['ndcg@10']:.3f} |")
    return "\n".join(rows)


def _dims(figures: dict[str, Any]) -> str:
    rows = ["| MRL dimensions | " + " | ".join(map(str, DIMS)) + " |", "|---|" + "---|" * len(DIMS)]
    for name, title in TITLES.items():
        e = figures[name]["embedder"]
        for style, metric in (("full", "recall@1"), ("free", "ndcg@10")):
            values = [e[style if d == DIMS[-1] else f"{style}@{d}"][metric] for d in DIMS]
            label = "full captions, recall@1" if style == "full" else "other queries, nDCG@10"
            rows.append(f"| {title}: {label} | " + " | ".join(f"{v:.3f}" for v in values) + " |")
    return "\n".join(rows)


def _probes(figures: dict[str, Any]) -> str:
    probes = figures["probes"]
    head = (
        "| one attribute changed in the caption, 4-way (time 3, weather 2, size 2 or 3) | "
        + " | ".join(probes)
        + " |"
    )
    return "\n".join(
        (
            head,
            "|---|" + "---|" * len(probes),
            "| right | " + " | ".join(f"{v:.2f}" for v in probes.values()) + " |",
        )
    )


def _reranker(figures: dict[str, Any]) -> str:
    rows = [
        "| top 20 reranked, nDCG@10 (recall@1) | embedder | reranker alone | fused | AUC of the logit |",
        "|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        for style, label in (("full", "full captions"), ("free", "other queries")):
            r = figures[name]["reranker"][style]
            cells = " | ".join(
                f"{r[k]['ndcg@10']:.3f} ({r[k]['recall@1']:.3f})" for k in ("embedder", "reranker", "fused")
            )
            rows.append(f"| {title}, {label} | {cells} | {r['auc']:.3f} |")
    return "\n".join(rows)
