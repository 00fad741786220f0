"""Searching: words, pictures, and what is like an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as Parameter
from pydantic import BaseModel
from starlette.requests import Request

from ..library.records import Filters, Hit, SearchResult
from .limits import while_connected
from .service import Query

if TYPE_CHECKING:
    from .service import Service

MOST_HITS = 10_000


class HitModel(BaseModel):
    """One item of a result."""

    id: int
    rank: int
    path: str
    name: str
    kind: Literal["photo", "video"]
    score: float
    embedding_score: float
    reranker_score: float | None
    start_s: float | None
    end_s: float | None
    taken_at: str | None
    width: int
    height: int
    duration_s: float | None = None


class SearchModel(BaseModel):
    """The hits of a search, best first."""

    query: str | None
    results: list[HitModel]
    timings_ms: dict[str, float]
    reranked: bool
    no_good_match: bool


def router(service: Service) -> APIRouter:
    """The routes that search."""
    routes = APIRouter(prefix="/api", tags=["search"])

    @routes.get("/search")
    async def search(
        request: Request,
        q: Annotated[str, Parameter(max_length=10_000)],
        limit: Annotated[int, Parameter(ge=1, le=MOST_HITS)] = 20,
        kind: Literal["photo", "video"] | None = None,
        rerank: bool = True,
    ) -> SearchModel:
        """Find photos and moments of videos by words."""
        query = Query(text=q, limit=limit, filters=Filters(kind=kind), rerank=rerank)
        with service.searching():
            found = await while_connected(request, service.searches.run(service.find, query))
            if not rerank:
                return _answer(found.result(), reranked=False)
            result = await while_connected(request, service.searches.run(found.rerank))
        return _answer(result, reranked=True)

    return routes


def _answer(result: SearchResult, *, reranked: bool) -> SearchModel:
    return SearchModel(
        query=result.query,
        results=[_hit(hit) for hit in result.hits],
        timings_ms={name: round(ms, 3) for name, ms in result.timings_ms.items()},
        reranked=reranked,
        no_good_match=False,
    )


def _hit(hit: Hit) -> HitModel:
    path = hit.path.encode("utf-8", "replace").decode("utf-8")
    return HitModel(
        id=hit.media_id,
        rank=hit.rank,
        path=path,
        name=path.rpartition("/")[2],
        kind=hit.kind,
        score=hit.score,
        embedding_score=hit.embedding_score,
        reranker_score=hit.reranker_score,
        start_s=hit.start_s,
        end_s=hit.end_s,
        taken_at=None if hit.taken_at is None else hit.taken_at.isoformat(timespec="seconds"),
        width=hit.width,
        height=hit.height,
    )
