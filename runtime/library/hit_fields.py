"""What JSON says of a hit, on the command line and over HTTP alike. Paths and ids are the caller's."""

from __future__ import annotations

from typing import Any

from .records import Hit


def hit_fields(hit: Hit) -> dict[str, Any]:
    """The fields of a hit that hold no path and no rank; scores with seven digits, seconds with three."""
    return {
        "kind": hit.kind,
        "score": rounded_score(hit.score),
        "embedding_score": rounded_score(hit.embedding_score),
        "reranker_score": None if hit.reranker_score is None else rounded_score(hit.reranker_score),
        "start_s": rounded_seconds(hit.start_s),
        "end_s": rounded_seconds(hit.end_s),
        "taken_at": None if hit.taken_at is None else hit.taken_at.isoformat(timespec="seconds"),
        "width": hit.width,
        "height": hit.height,
    }


def rounded_score(value: float) -> float:
    """A score as JSON shows it: seven digits hold everything that a float32 knows, and no noise beyond."""
    return round(float(value), 7)


def rounded_seconds(value: float | None) -> float | None:
    """Seconds as JSON shows them."""
    return None if value is None else round(float(value), 3)
