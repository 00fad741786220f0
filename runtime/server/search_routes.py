"""Searching: by words, by a picture, by what an item is like; at once, or in two steps on one stream.

    found       the embedder's order, in well under a second
    reranked    the final order, when the reranker has read the best hits; or `failed`
    done        nothing follows

A search whose client goes ends before its next step.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, Path
from fastapi import Query as Parameter
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from ..errors import InputError, QvlError
from ..model.session import Interruption
from .filtering import FilterParameters
from .hits import SearchModel, search_json
from .limits import ClientGoneError, OverloadedError, while_connected
from .problems import Problem, response_to
from .service import Query, Search

if TYPE_CHECKING:
    from .service import Service

MOST_HITS = 10_000
MOST_CHARACTERS = 10_000

MediaId = Annotated[int, Path(ge=0, lt=2**63)]

_HELP = "Time of the steps of a search."
_SPOOLED = 1 << 20
_EVENTS = "text/event-stream"


class SearchParameters(FilterParameters):
    """What to look for, and among what."""

    q: str = Field("", max_length=MOST_CHARACTERS, description="Words.")
    query: str = Field("", max_length=MOST_CHARACTERS, description="The same as `q`.")
    picture: str = Field("", max_length=64, description="Id of a picture, as `POST /api/picture` gave it.")
    like: MediaId | None = Field(
        None, description="Id of an item: what is like it; with words, what they add to it."
    )
    limit: int = Field(20, ge=1, le=MOST_HITS)
    rerank: bool = Field(True, description="Whether the reranker looks at the best hits.")

    @property
    def is_search(self) -> bool:
        """Whether anything is looked for."""
        return bool(self.q.strip() or self.query.strip() or self.picture or self.like is not None)


class SearchBody(SearchParameters):
    """The same as JSON, where a picture itself may be, too."""

    image: str = Field("", description="A picture as data URI: data:image/jpeg;base64,...")


class SimilarParameters(FilterParameters):
    """How many, and among what."""

    limit: int = Field(20, ge=1, le=MOST_HITS)


class PictureModel(BaseModel):
    """A picture to search by that is held for a while."""

    picture: str = Field(description="Its id, for `picture=` of a search.")
    width: int = Field(description="Of the picture as it is searched by, which may be smaller than the file.")
    height: int


_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": SearchModel},
    400: {"model": Problem},
    404: {"model": Problem},
    409: {"model": Problem},
    503: {"model": Problem},
}
_EVENT_SCHEMA = {
    "type": "object",
    "properties": {
        "event": {"enum": ["status", "changed", "found", "reranked", "failed", "done"]},
        "data": {
            "type": "string",
            "description": "JSON: of status what `/api/status` says, of found and reranked what "
            "`/api/search` says, of failed a problem.",
        },
    },
    "required": ["event", "data"],
}
_STREAM: dict[int | str, dict[str, Any]] = {
    **_ANSWER,
    200: {
        "content": {_EVENTS: {"schema": _EVENT_SCHEMA}},
        "description": "Named events, each with one line of JSON; the schema is that of an event.",
    },
}


def router(service: Service) -> APIRouter:
    """The routes that search."""
    routes = APIRouter(prefix="/api", tags=["search"])

    @routes.get("/search", response_class=Response, responses=_ANSWER)
    async def search(request: Request, asked: Annotated[SearchParameters, Parameter()]) -> Response:
        """Find photos and moments of videos by words, by a picture, or by both."""
        return await _answer(service, request, asked)

    @routes.post("/search", response_class=Response, responses=_ANSWER)
    async def search_by_body(request: Request, asked: SearchBody) -> Response:
        """The same with everything in JSON, where a picture may be, too."""
        return await _answer(service, request, await _held(service, request, asked))

    @routes.get("/similar/{media_id}", response_class=Response, responses=_ANSWER)
    async def similar(
        request: Request, media_id: MediaId, asked: Annotated[SimilarParameters, Parameter()]
    ) -> Response:
        """What resembles an item, which is left out."""
        like = SearchParameters.model_construct(**{**dict(asked), "like": media_id})
        return await _answer(service, request, like)

    @routes.get("/events", response_class=Response, responses=_STREAM)
    async def events(request: Request, asked: Annotated[SearchParameters, Parameter()]) -> Response:
        """Server-sent events: of a search in two steps, or, where nothing is looked for, of the library."""
        if asked.is_search:
            return await _steps(service, request, asked)
        return await _news(service)

    @routes.post("/events", response_class=Response, responses=_STREAM)
    async def events_by_body(request: Request, asked: SearchBody) -> Response:
        """A search in two steps with everything in JSON, for words that are too long for an address."""
        return await _steps(service, request, await _held(service, request, asked))

    @routes.post("/picture", responses={400: {"model": Problem}, 413: {"model": Problem}})
    async def picture(request: Request) -> PictureModel:
        """Hold a picture to search by: a form with the field `file`, or the file alone as the body."""
        async with _uploaded(request) as source:
            pixels = await service.decodes.run(service.read_picture, source)
        height, width = pixels.shape[:2]
        return PictureModel(picture=service.pictures.add(pixels), width=width, height=height)

    return routes


async def _held(service: Service, request: Request, asked: SearchBody) -> SearchBody:
    """The same search with the id of a picture in place of the picture."""
    if not asked.image:
        return asked
    source = BytesIO(_from_data_uri(asked.image))
    pixels = await while_connected(request, service.decodes.run(service.read_picture, source))
    return asked.model_copy(update={"picture": service.pictures.add(pixels), "image": ""})


async def _answer(service: Service, request: Request, asked: SearchParameters) -> Response:
    with service.searching():
        search, content = await while_connected(request, service.searches.run(_find, service, asked))
        if search.has_second_step:
            content = await while_connected(request, _second_step(service, search))
    return Response(content, media_type="application/json")


async def _steps(service: Service, request: Request, asked: SearchParameters) -> Response:
    """Both steps on one stream. What goes wrong before the first is a response of its own."""
    with service.searching():
        search, first = await while_connected(request, service.searches.run(_find, service, asked))

    async def stream() -> AsyncIterator[bytes]:
        yield _event("found", first)
        if search.has_second_step:
            try:
                with service.searching():
                    yield _event("reranked", await _second_step(service, search))
            except QvlError as error:
                yield _event("failed", bytes(response_to(error, "/api/events").body))
        yield _event("done", b"{}")

    return StreamingResponse(stream(), media_type=_EVENTS)


async def _news(service: Service) -> Response:
    """The library's own events, until the client goes or the server stops."""
    if not service.events.has_room:
        raise OverloadedError("Too many pages listen already. Close some of them.", retry_after_s=5)
    now = await service.reads.run(service.board.status)
    return StreamingResponse(service.events.stream(first=("status", now)), media_type=_EVENTS)


def _find(service: Service, asked: SearchParameters) -> tuple[Search, bytes]:
    """The fast step, and its answer as JSON, made in the same thread."""
    text = asked.q.strip() or asked.query.strip() or None
    if asked.picture and asked.like is not None:
        raise InputError("Search by a picture, or by what an item is like: not by both.")
    query = Query(
        text=text,
        picture=service.pictures.get(asked.picture) if asked.picture else None,
        like=asked.like,
        limit=asked.limit,
        filters=asked.filters(),
        rerank=asked.rerank,
    )
    began = time.perf_counter()
    search = service.find(query)
    service.metrics.observe("qvl_search_seconds", _HELP, time.perf_counter() - began, step="find")
    return search, search_json(search.found, search.result(), reranked=False)


async def _second_step(service: Service, search: Search) -> bytes:
    stop = Interruption()
    try:
        return await service.reranks.run(_look_closer, service, search, stop)
    finally:
        stop.set()  # for one that is cancelled while it runs


def _look_closer(service: Service, search: Search, stop: Interruption) -> bytes:
    """The slow step, as JSON."""
    began = time.perf_counter()
    result = search.rerank(stop)
    service.metrics.observe("qvl_search_seconds", _HELP, time.perf_counter() - began, step="rerank")
    return search_json(search.found, result, reranked=True)


def _event(name: str, data: bytes) -> bytes:
    # JSON of ours has no line breaks outside of strings, and none in them.
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _from_data_uri(text: str) -> bytes:
    head, comma, encoded = text.partition(",")
    if not comma or not head.lower().startswith("data:") or not head.lower().endswith(";base64"):
        raise InputError("image: give a data URI in base64, as in data:image/jpeg;base64,...")
    try:
        return base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InputError("image: its base64 is broken. Send the whole file.") from error


@asynccontextmanager
async def _uploaded(request: Request) -> AsyncIterator[BinaryIO]:
    """The picture in a request's body: a form's field `file`, or the whole body. On disk when it is large."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if content_type == "multipart/form-data":
            async with request.form(max_files=1, max_fields=8) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise InputError(
                        "Send the picture as the field `file` of the form, or as the whole body."
                    )
                yield file.file
            return
        with tempfile.SpooledTemporaryFile(_SPOOLED) as held:
            async for piece in request.stream():
                held.write(piece)
            if not held.tell():
                raise InputError("Send a picture: the body is empty.")
            held.seek(0)
            yield cast(BinaryIO, held)
    except ClientDisconnect as error:
        raise ClientGoneError("The client closed the connection.") from error
