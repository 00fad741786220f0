"""The gate of `--max-drop`: did nDCG@10 of a bundle fall further below the reference's than allowed?"""

from __future__ import annotations

from collections.abc import Sequence

from qvl_local.runtime.errors import InputError

from .report import BundleReport, Check, Gate, Row

METRIC = "ndcg@10"


def check_drop(bundles: Sequence[BundleReport], *, max_drop: float) -> Gate:
    """Compare the headline rows, with and without reranking, of every bundle but the reference, the first.

    A reference that is alone is compared with its own full width: it may serve less.
    """
    if not 0 <= max_drop <= 1:
        raise InputError(f"--max-drop {max_drop}: must be a number from 0 to 1, such as 0.01.")
    checks = [
        _check(bundle.subject.label, row, max_drop)
        for bundle in bundles[1:] or bundles
        for row in (bundle.headline(rerank=False), bundle.headline(rerank=True))
        if row is not None
    ]
    return Gate(max_drop, all(check.ok for check in checks), tuple(checks))


def _check(label: str, row: Row, max_drop: float) -> Check:
    figure = row.figures[METRIC]
    change = figure.change
    drop = -change.value
    ok = drop <= max_drop
    way = "with reranking" if row.rerank else "without reranking"
    before = figure.mean.value - change.value
    side = "excludes" if change.excludes_zero else "includes"
    moved = "fell" if drop > 0 else "rose" if drop < 0 else "did not change"
    by = f" by {abs(drop):.4f}" if drop else ""
    text = (
        f"{label} {way}: nDCG@10 {moved}{by} ({before:.4f} to {figure.mean.value:.4f}; 95 % interval of the "
        f"change {change.low:+.4f} to {change.high:+.4f}, which {side} zero), {max_drop:g} allowed"
    )
    return Check(label, row.rerank, drop, -change.high, -change.low, ok, text)
