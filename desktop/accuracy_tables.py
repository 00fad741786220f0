"""The tables of a fidelity report. Programs read `jsonout.accuracy_report` instead."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .console import print_table, stdout_console
from .text import count, duration, home_relative, printable, size

if TYPE_CHECKING:
    from qvl_local.quant.accuracy.bootstrap import Estimate
    from qvl_local.quant.accuracy.report import BundleReport, Figure, Report, Row
    from qvl_local.runtime.model.bundle import Manifest
    from rich.console import Console
    from rich.table import Table

_SHOWN_UNREADABLE = 10
# Below so many questions, or with half an interval above this nDCG, chance is as large as what one looks for.
_FEW_QUESTIONS = 30
_WIDE = 0.02
_METRIC = "ndcg@10"


def print_accuracy(report: Report, target: Path | None = None, *, console: Console | None = None) -> None:
    """What was asked, the bundles, every way to search with them, and the verdict of the gate."""
    console = console or stdout_console()
    for gallery in report.galleries:
        answers = {
            "exact": "exact answers",
            "given": "answers from queries.jsonl",
            "reference": "the reference's first ten count as right",
        }[gallery.labels]
        console.print(
            f"{printable(gallery.name)}: {count(gallery.questions, 'question')}, "
            f"{count(gallery.documents, 'document')}; {answers}",
            style="dim",
        )
        for path, reason in list(gallery.unreadable.items())[:_SHOWN_UNREADABLE]:
            console.print(f"  left out: {printable(path)}  {printable(reason)}", style="yellow")
    print_table(_bundle_table(report), console)
    print_table(_row_table(report), console)
    console.print(
        "± is half of the 95 % interval; changes are against the reference's full width as float32.",
        style="dim",
    )
    if doubt := _doubt(report):
        console.print(doubt, style="yellow")
    if report.gate is not None:
        for check in report.gate.checks:
            mark, style = ("ok   ", "green") if check.ok else ("fail ", "red")
            console.print(mark + printable(check.text), style=style)
    if target is not None:
        console.print(f"Written to {home_relative(str(target))}: accuracy.json, accuracy.svg, accuracy.md")
    console.print(f"Measured in {duration(report.seconds)} on {printable(report.machine)}.", style="dim")
    if len(report.bundles) == 1:
        console.print("Verdict: the bundle is the reference itself, so there was nothing to compare it with.")
    for bundle in report.bundles[1:]:
        row = bundle.headline(rerank=True) or bundle.headline(rerank=False)
        if row is not None:
            names = printable(bundle.subject.label), printable(report.reference.subject.label)
            console.print(verdict(*names, row.figures[_METRIC].change, rerank=row.rerank), style="bold")


def verdict(label: str, reference: str, change: Estimate, *, rerank: bool) -> str:
    """What the change of a bundle's nDCG@10 at full width comes to, in one sentence."""
    how = "with reranking" if rerank else "without reranking"
    if change.low == change.value == change.high == 0:
        return f"Verdict: {label} ranks as well as {reference}, question by question ({how})."
    by = f"nDCG@10 {how} changes by {change.value:+.4f} ({change.low:+.3f} to {change.high:+.3f})"
    if change.excludes_zero:
        word = "better" if change.value > 0 else "worse"
        return f"Verdict: {label} ranks {word} than {reference}: {by}, which is more than chance."
    return f"Verdict: no difference between {label} and {reference} can be told: {by}, which may be chance."


def is_doubtful(changes: Iterable[Estimate], questions: int) -> bool:
    """Whether one of the changes may be chance because there were too few questions."""
    return any(
        not change.excludes_zero and (questions < _FEW_QUESTIONS or change.high - change.low > 2 * _WIDE)
        for change in changes
    )


def _doubt(report: Report) -> str:
    """A word of caution where rows cannot be told apart; empty where they can."""
    questions = sum(gallery.questions for gallery in report.galleries)
    changes = (
        row.figures[_METRIC].change
        for bundle in report.bundles
        for row in bundle.rows
        if bundle is not report.reference or row != bundle.headline(rerank=row.rerank)
    )
    if not is_doubtful(changes, questions):
        return ""
    return (
        f"With {count(questions, 'question')}, not every row can be told from the reference: where the "
        "interval of a change holds 0, better or worse may be chance. More questions tell more."
    )


def accuracy_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What a bundle's own report says of its first rows, for a list of facts; empty without a report."""
    written = manifest.accuracy
    if not written:
        return []
    first = written["rows"][0]
    questions = sum(dataset["questions"] for dataset in written["datasets"])
    facts = []
    for row in written["rows"]:
        if (row["dims"], row["vectors"]) == (first["dims"], first["vectors"]):
            figure = row["figures"]["ndcg@10"]
            facts.append(
                (
                    "reranked" if row["rerank"] else "accuracy",
                    f"nDCG@10 {figure['value']:.3f}, {figure['change']:+.4f} against "
                    f"{written['reference']['label']} ({figure['change_low']:+.4f} to "
                    f"{figure['change_high']:+.4f}) over {count(questions, 'question')}",
                )
            )
    return facts


def _bundle_table(report: Report) -> Table:
    table = _table(
        "bundle", "size", "memory", "ms a document", "a question", "a pair", "cosine", "P(yes) moves"
    )
    for bundle in report.bundles:
        cost, found = bundle.cost, bundle.agreement
        smallest = "" if found is None else f"{found.cosine_mean:.5f} (min {found.cosine_min:.5f})"
        moves = "" if found is None or found.yes_change_max is None else f"≤ {found.yes_change_max:.4f}"
        table.add_row(
            printable(bundle.subject.label),
            size(bundle.subject.size),
            "" if cost.peak_bytes is None else size(cost.peak_bytes),
            _ms(cost.document_ms),
            _ms(cost.question_ms),
            _ms(cost.pair_ms),
            "reference" if found is None and bundle is report.reference else smallest,
            moves,
        )
    return table


def _row_table(report: Report) -> Table:
    table = _table(
        "bundle",
        "dims",
        "vectors",
        "rerank",
        "R@1",
        "R@5",
        "R@10",
        "nDCG@10",
        "MRR@10",
        "change of nDCG@10",
        "order",
    )
    for bundle in report.bundles:
        for row in bundle.rows:
            figures = row.figures
            table.add_row(
                printable(bundle.subject.label),
                str(row.dims),
                row.vectors,
                "yes" if row.rerank else "no",
                *(f"{figures[name].mean.value:.3f}" for name in ("recall@1", "recall@5", "recall@10")),
                _with_interval(figures["ndcg@10"]),
                f"{figures['mrr@10'].mean.value:.3f}",
                _change(report, bundle, row),
                "" if row.spearman is None else f"{row.spearman:.3f}",
                style=None if row == bundle.headline(rerank=row.rerank) else "dim",
            )
    return table


def _with_interval(figure: Figure) -> str:
    return f"{figure.mean.value:.3f} ± {(figure.mean.high - figure.mean.low) / 2:.3f}"


def _change(report: Report, bundle: BundleReport, row: Row) -> str:
    if bundle is report.reference and row == bundle.headline(rerank=row.rerank):
        return "reference"
    change = row.figures["ndcg@10"].change
    return f"{change.value:+.4f} ({change.low:+.3f} to {change.high:+.3f})"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _table(*names: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in names:
        words = name in ("bundle", "vectors", "rerank", "change of nDCG@10", "cosine", "P(yes) moves")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "bundle")
    return table
