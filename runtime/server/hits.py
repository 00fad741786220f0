"""The hits of a search as JSON: the fields of the command line's `--json`, and what a page needs beside them.

Ten thousand hits are a few megabytes. They are written straight from records, in the thread that searched;
the models here describe them for OpenAPI.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, Field

from ..library.hit_fields import hit_fields, rounded_seconds
from ..library.no_match import is_no_match
from ..library.records import Companion, Hit, SearchResult
from ..library.search import Found
from .names import base_name, shown


class CompanionModel(BaseModel):
    """A file that is shown with a photo: its raw file, or the film of a Live Photo."""

    kind: Literal["raw", "live"]
    name: str
    id: int | None = Field(description="Of the film; null for a raw file.")


class HitModel(BaseModel):
    """One item of a result. Scores: higher is better."""

    id: int
    rank: int = Field(description="1 for the best.")
    path: str
    name: str = Field(description="The last part of the path.")
    kind: Literal["photo", "video"]
    score: float = Field(description="What the order follows, in [0, 1].")
    embedding_score: float = Field(description="The cosine of query and item, in [-1, 1].")
    reranker_score: float | None = Field(description="The reranker's P(yes); null where it did not look.")
    start_s: float | None = Field(description="Where a video's moment begins; null for photos.")
    end_s: float | None
    taken_at: str | None = Field(description="Local time of the camera, as 2023-05-06T18:30:00.")
    width: int
    height: int
    duration_s: float | None
    companions: list[CompanionModel] = Field(description="Files that are shown as one with this item.")


class SearchModel(BaseModel):
    """The hits of a search, best first."""

    query: str | None = Field(description="The words; null for a search by picture alone.")
    results: list[HitModel]
    timings_ms: dict[str, float]
    reranked: bool = Field(description="Whether the reranker has looked at the best hits.")
    no_good_match: bool = Field(description="The reranker finds that not even the best hit is an answer.")


def search_json(found: Found, result: SearchResult, *, reranked: bool) -> bytes:
    """A search's answer as JSON; `found` is what `result` came from."""
    durations = {candidate.item.id: candidate.item.duration_s for candidate in found.candidates}
    body = {
        "query": None if result.query is None else shown(result.query),
        "results": [_hit(hit, durations[hit.media_id]) for hit in result.hits],
        "timings_ms": {step: round(float(ms), 3) for step, ms in result.timings_ms.items()},
        "reranked": reranked,
        "no_good_match": reranked and is_no_match(result),
    }
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def companions_json(companions: tuple[Companion, ...]) -> list[dict[str, Any]]:
    """The files that are shown with an item."""
    return [{"kind": one.kind, "name": shown(one.name), "id": one.id} for one in companions]


def _hit(hit: Hit, duration_s: float | None) -> dict[str, Any]:
    return {
        "id": hit.media_id,
        "rank": hit.rank,
        "path": shown(hit.path),
        "name": shown(base_name(hit.path)),
        **hit_fields(hit),
        "duration_s": rounded_seconds(duration_s),
        "companions": companions_json(hit.companions),
    }
