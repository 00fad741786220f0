"""Reranking for programs, in the words that Jina's, Cohere's (both versions) and vLLM's clients use.

`POST /v1/rerank`, the same at `/rerank` and `/v2/rerank`. What a query or a document may look like is in
`inputs.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, SkipValidation
from starlette.requests import Request
from starlette.responses import Response

from ..errors import PartError
from .inputs import Draft, parse_input
from .model_names import chosen, names_of
from .openai_routes import ContentInput, InputPart, Part, Usage
from .programs import ProgramRequest, answer, batches, body_schema, dumps, models_for

if TYPE_CHECKING:
    from ..model.reranker import Reranker
    from .service import Service

MOST_DOCUMENTS = 1000
_MOST_TOKENS = 10_240


class RerankRequest(ProgramRequest):
    """A query, and the documents to order by how well they answer it."""

    model_config = ConfigDict(title="RerankRequest")

    query: Annotated[str | InputPart | ContentInput, SkipValidation] = Field(
        description="A text, or an object of text, image and video."
    )
    documents: Annotated[list[str | Part | ContentInput], SkipValidation] = Field(
        description=f"Up to {MOST_DOCUMENTS:,} texts, or objects of text, image and video.",
    )
    model: str | None = Field(None, max_length=500, description="The served reranker by any of its names.")
    top_n: int | None = Field(None, ge=1, description="How many results to give; all when left out.")
    return_documents: bool | None = Field(None, description="Whether results repeat their documents.")
    instruction: str | None = Field(
        None, max_length=10_000, description="What makes a document relevant; the model's own when left out."
    )
    max_tokens_per_doc: int | None = Field(
        None, ge=1, description="Longer texts of documents are cut to so many tokens (Cohere's version 2)."
    )
    user: str | None = Field(None, description="Taken and not used.")
    priority: int | None = Field(None, description="Cohere's; taken and not used.")
    max_chunks_per_doc: int | None = Field(
        None, description="Cohere's version 1; taken and not used: a document is read as a whole."
    )


class RerankResult(BaseModel):
    """One document: its place in the request, the probability that it answers the query, and itself."""

    index: int
    relevance_score: float = Field(ge=0, le=1)
    document: dict[str, Any] | None = Field(
        None, description='As it was given, a text as {"text": ...}; only with `return_documents`.'
    )


class ApiVersion(BaseModel):
    """Which of Cohere's interfaces the response is like."""

    version: str


class BilledUnits(BaseModel):
    """Cohere's measure of a request; nothing is billed here."""

    search_units: int


class RerankTokens(BaseModel):
    """Tokens that the model read."""

    input_tokens: int


class RerankMeta(BaseModel):
    """What Cohere's clients read."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: RerankTokens


class RerankResponse(BaseModel):
    """The documents, the most relevant first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: RerankMeta


_EXAMPLES: dict[str, Any] = {
    "texts": {"query": "two dogs", "documents": ["a cat on a sofa", "dogs at play"], "top_n": 1},
    "a picture": {
        "query": "two dogs",
        "documents": [
            {"image": "data:image/png;base64,iVBORw0KGgo="},
            {"content": [{"type": "text", "text": "dogs at play"}]},
        ],
        "return_documents": False,
    },
}

_ROUTE: dict[str, Any] = {
    "summary": "Order documents by how well they answer a query",
    "response_model": RerankResponse,
    "openapi_extra": body_schema(RerankRequest, _EXAMPLES),
}


def router(service: Service) -> APIRouter:
    """The routes that rerank."""
    routes = APIRouter(tags=["programs"])

    @routes.post("/v2/rerank", **_ROUTE)
    @routes.post("/rerank", **_ROUTE)
    @routes.post("/v1/rerank", **_ROUTE)
    async def rerank(request: Request) -> Response:
        """Score each document with the reranker and give them back in order.

        The same at `/v1/rerank`, `/rerank` and `/v2/rerank`, the names that different clients ask. The model
        is loaded by the first request.
        """
        version = "2" if request.url.path.startswith("/v2/") else "1"
        return await answer(
            request, RerankRequest, service, lambda asked, go_on: _rerank(asked, service, go_on, version)
        )

    return routes


def _rerank(asked: RerankRequest, service: Service, go_on: Callable[[], None], version: str) -> Iterator[str]:
    """The response to a request in one piece of JSON."""
    names = chosen(asked.model, "reranker", names_of(service.library.model))
    query, documents = parse_input(asked.query, part="query"), _documents(asked)
    if query.instruction is not None and asked.instruction is not None:
        raise PartError("instruction", "the query holds one already.")
    service.inputs.check([query, *documents])
    scores: list[float] = []
    tokens = 0
    with models_for(service, documents):
        reranker = service.reranker()
        if asked.max_tokens_per_doc is not None:
            documents = [_shortened(one, reranker, asked.max_tokens_per_doc) for one in documents]
        subject = service.inputs.read(query, reranker.budget, go_on=go_on)
        for batch in batches(documents):
            go_on()
            inputs = [service.inputs.read(document, reranker.budget, go_on=go_on) for document in batch]
            judged = reranker.judge(subject, inputs, instruction=asked.instruction)
            scores += judged.scores.tolist()
            tokens += sum(judged.tokens)
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: asked.top_n]
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if asked.return_documents:
        for result in results:
            given = asked.documents[result["index"]]
            result["document"] = {"text": given} if isinstance(given, str) else given
    yield dumps(
        {
            "id": f"rerank-{uuid.uuid4().hex}",
            "object": "list",
            "model": names.id,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {
                "api_version": {"version": version},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": tokens},
            },
        }
    )


def _documents(asked: RerankRequest) -> list[Draft]:
    given: object = asked.documents
    if not isinstance(given, list) or not given:
        raise PartError("documents", "must be a list of at least one document.")
    if len(given) > MOST_DOCUMENTS:
        raise PartError("documents", f"holds {len(given):,} documents; {MOST_DOCUMENTS:,} are the limit.")
    documents = [parse_input(one, part=f"documents[{i}]") for i, one in enumerate(given)]
    for document in documents:
        if document.instruction is not None:
            raise PartError(document.part, "takes no instruction. Give it to the query, or to the request.")
    return documents


def _shortened(document: Draft, reranker: Reranker, tokens: int) -> Draft:
    """A document whose texts take at most so many tokens each."""
    limit = min(tokens, _MOST_TOKENS)
    return replace(document, texts=tuple(reranker.shortened(text, tokens=limit) for text in document.texts))
