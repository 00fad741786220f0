"""Looking through the library without a query: items by date, counts, one item, how its moments fit a query.

Lists are written straight from records, in the thread that read them; the models describe them for OpenAPI.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Query as Parameter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from ..errors import InputError
from ..library.browse import Entry
from ..library.place_names import has_place_names, place_name_soon
from .duplicate_search import DuplicateSearch
from .filtering import FilterParameters
from .hits import CompanionModel, companions_json
from .limits import while_connected
from .names import base_name, shown
from .problems import Problem
from .search_routes import MOST_CHARACTERS, MOST_HITS, MediaId
from .service import Query

if TYPE_CHECKING:
    from .service import Service


class ItemModel(BaseModel):
    """An item in a list."""

    id: int
    kind: Literal["photo", "video"]
    name: str
    taken_at: str | None = Field(description="Local time of the camera, as 2023-05-06T18:30:00.")
    width: int
    height: int
    duration_s: float | None
    size: int = Field(description="Bytes.")
    companions: list[CompanionModel]


class ItemsModel(BaseModel):
    """A stretch of a list of `total` items."""

    total: int
    items: list[ItemModel]


class MonthCount(BaseModel):
    """Items of a month, YYYY-MM."""

    month: str
    count: int


class CameraCount(BaseModel):
    """Items of a camera."""

    name: str
    count: int


class PlaceCount(BaseModel):
    """Items taken within `km` of a point; `id` is one of them."""

    latitude: float
    longitude: float
    km: float
    count: int
    id: int
    first: str | None = Field(description="When the oldest was taken.")
    last: str | None
    name: str | None = Field(description="Lisbon, Portugal; null where nobody knows. Goes into `place`.")


class FolderCountModel(BaseModel):
    """Items in a folder and below. `id` goes into `under`; subfolders follow their root."""

    id: str
    name: str
    path: str
    count: int
    is_root: bool


class KindCounts(BaseModel):
    """Items of each kind."""

    photo: int
    video: int


class FacetsModel(BaseModel):
    """What the items have in common, counted."""

    total: int
    kinds: KindCounts
    months: list[MonthCount]
    undated: int
    cameras: list[CameraCount]
    places: list[PlaceCount]
    place_names: bool = Field(description="Whether the extra `places` is there, and tells names.")
    folders: list[FolderCountModel]


class SegmentModel(BaseModel):
    """A stretch of a video that is searched by itself; 0 to 0 for a photo."""

    start_s: float
    end_s: float


class MediaModel(BaseModel):
    """Everything that is known about an item."""

    id: int
    kind: Literal["photo", "video"] | None
    name: str
    path: str
    folder: str
    size: int
    modified_at: str
    taken_at: str | None
    camera: str | None
    latitude: float | None
    longitude: float | None
    place: str | None = Field(description="Lisbon, Portugal; null, too, while the names are read at first.")
    width: int
    height: int
    duration_s: float | None
    error: str | None = Field(description="Why the file cannot be used.")
    segments: list[SegmentModel]
    companions: list[CompanionModel]


class MomentModel(BaseModel):
    """A stretch of an item and its cosine with the query, in [-1, 1]."""

    start_s: float
    end_s: float
    score: float


class MomentsModel(BaseModel):
    """How well every stretch of an item fits, in order of time."""

    moments: list[MomentModel]


class GroupModel(BaseModel):
    """Items that belong together, the best first."""

    kind: Literal["same", "near"] = Field(
        description="same: one picture or film in several files; near: pictures that look nearly the same."
    )
    distance: float = Field(description="Of the member least like the best, in [0, 1]; 0: the same bytes.")
    items: list[ItemModel]


class DuplicatesModel(BaseModel):
    """A stretch of the `total` groups, once they are known; until then how far the search is."""

    state: Literal["ready", "working"]
    stage: Literal["look", "compare"] | None
    done: int
    of: int
    total: int
    groups: list[GroupModel]


class DuplicatesParameters(BaseModel):
    """Which stretch of the groups, and of which kind."""

    model_config = ConfigDict(extra="forbid")

    offset: int = Field(0, ge=0, lt=2**31)
    limit: int = Field(50, ge=0, le=1000)
    kind: Literal["same", "near"] | None = Field(None, description="Only groups of this kind.")


class ItemsParameters(FilterParameters):
    """Which stretch of which list."""

    order: Literal["newest", "oldest"] = "newest"
    offset: int = Field(0, ge=0, lt=2**31)
    limit: int = Field(100, ge=0, le=MOST_HITS)


class MomentsParameters(BaseModel):
    """What the moments of an item are compared with: words, a picture, an item."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field("", max_length=MOST_CHARACTERS, description="Words.")
    picture: str = Field("", max_length=64, description="Id of a picture, as `POST /api/picture` gave it.")
    like: MediaId | None = Field(None, description="Id of an item.")


_PATIENCE_S = 1.0

_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 404, 409, 503)}


def router(service: Service) -> APIRouter:
    """The routes of looking around."""
    routes = APIRouter(prefix="/api", tags=["library"], responses=_PROBLEMS)
    search = DuplicateSearch(service)

    @routes.get("/items", response_class=Response, responses={200: {"model": ItemsModel}})
    async def items(asked: Annotated[ItemsParameters, Parameter()]) -> Response:
        """Items by date, those without one last."""
        return _json(await service.reads.run(_items, service, asked))

    @routes.get("/facets", response_class=Response, responses={200: {"model": FacetsModel}})
    async def facets(asked: Annotated[FilterParameters, Parameter()]) -> Response:
        """How many items there are of each kind, month, camera, folder and place under these filters."""
        return _json(await service.reads.run(_facets, service, asked))

    @routes.get("/duplicates", response_class=Response, responses={200: {"model": DuplicatesModel}})
    async def found_twice(asked: Annotated[DuplicatesParameters, Parameter()]) -> Response:
        """Items that the library holds more than once. The first search takes a while: ask again."""
        return _json(await service.reads.run(_duplicates, service, search, asked))

    @routes.get("/media/{media_id}", response_class=Response, responses={200: {"model": MediaModel}})
    async def media(media_id: MediaId) -> Response:
        """Everything that is known about an item."""
        return _json(await service.reads.run(_media, service, media_id))

    @routes.get("/moments/{media_id}", response_class=Response, responses={200: {"model": MomentsModel}})
    async def moments(
        request: Request, media_id: MediaId, asked: Annotated[MomentsParameters, Parameter()]
    ) -> Response:
        """How well every stretch of a video fits what is looked for."""
        return await _compared(service, request, media_id, asked)

    @routes.post("/moments/{media_id}", response_class=Response, responses={200: {"model": MomentsModel}})
    async def moments_by_body(request: Request, media_id: MediaId, asked: MomentsParameters) -> Response:
        """The same with everything in JSON, for words that are too long for an address."""
        return await _compared(service, request, media_id, asked)

    return routes


async def _compared(service: Service, request: Request, media_id: int, asked: MomentsParameters) -> Response:
    with service.searching():
        work = service.searches.run(_moments, service, media_id, asked)
        return _json(await while_connected(request, work))


def _items(service: Service, asked: ItemsParameters) -> bytes:
    page = service.library.browse(
        order=asked.order, offset=asked.offset, limit=asked.limit, filters=asked.filters()
    )
    return encoded({"total": page.total, "items": [item_json(item) for item in page.items]})


def _facets(service: Service, asked: FilterParameters) -> bytes:
    found = service.library.facets(filters=asked.filters())
    return encoded(
        {
            "total": found.total,
            "kinds": {"photo": found.photos, "video": found.videos},
            "months": [{"month": month, "count": count} for month, count in found.months],
            "undated": found.undated,
            "cameras": [{"name": name, "count": count} for name, count in found.cameras],
            "places": [
                {
                    "latitude": place.latitude,
                    "longitude": place.longitude,
                    "km": place.km,
                    "count": place.count,
                    "id": place.id,
                    "first": moment_json(place.first),
                    "last": moment_json(place.last),
                    "name": place.name,
                }
                for place in found.places
            ],
            "place_names": has_place_names(),
            "folders": [
                {
                    "id": folder.key,
                    "name": shown(folder.name),
                    "path": shown(folder.path),
                    "count": folder.count,
                    "is_root": folder.is_root,
                }
                for folder in found.folders
            ],
        }
    )


def _duplicates(service: Service, search: DuplicateSearch, asked: DuplicatesParameters) -> bytes:
    groups = search.ask(wait_s=_PATIENCE_S)
    if groups is None:
        progress = search.progress
        state = {"state": "working", "stage": progress.stage, "done": progress.done, "of": progress.total}
        return encoded({**state, "total": 0, "groups": []})
    wanted = [group for group in groups if asked.kind in (None, group.kind)]
    page = wanted[asked.offset : asked.offset + asked.limit]
    items = {item.id: item for item in service.library.items([at for group in page for at in group.ids])}
    listed = [
        {
            "kind": group.kind,
            "distance": group.distance,
            "items": [item_json(items[media_id]) for media_id in group.ids if media_id in items],
        }
        for group in page
    ]
    ready: dict[str, Any] = {"state": "ready", "stage": None, "done": 0, "of": 0}
    return encoded({**ready, "total": len(wanted), "groups": listed})


def _media(service: Service, media_id: int) -> bytes:
    item = service.item(media_id)
    return encoded(
        {
            "id": item.id,
            "kind": item.kind,
            "name": shown(base_name(item.path)),
            "path": shown(item.path),
            "folder": shown(item.path[: -len(base_name(item.path)) - 1] or item.path),
            "size": item.size,
            "modified_at": moment_json(datetime.fromtimestamp(item.mtime_ns // 10**9)),
            "taken_at": moment_json(item.taken_at),
            "camera": item.camera,
            "latitude": item.latitude,
            "longitude": item.longitude,
            "place": place_name_soon(item.latitude, item.longitude),
            "width": item.width,
            "height": item.height,
            "duration_s": seconds_json(item.duration_s),
            "error": item.error,
            "segments": [
                {"start_s": segment.t0_ms / 1000, "end_s": segment.t1_ms / 1000}
                for segment in service.library.segments(media_id)
            ],
            "companions": companions_json(service.library.companions(media_id)),
        }
    )


def _moments(service: Service, media_id: int, asked: MomentsParameters) -> bytes:
    service.item(media_id)
    text = asked.q.strip() or None
    if asked.picture and asked.like is not None:
        raise InputError("Compare with a picture, or with an item: not with both.")
    picture = service.pictures.get(asked.picture) if asked.picture else None
    query = Query(text=text, picture=picture, like=asked.like, limit=1, rerank=False)
    found = service.library.moments(media_id, service.find(query).found.vector)
    moments = [
        {"start_s": moment.start_s, "end_s": moment.end_s, "score": round(moment.score, 6)}
        for moment in found
    ]
    return encoded({"moments": moments})


def item_json(item: Entry) -> dict[str, Any]:
    """An item in a list."""
    return {
        "id": item.id,
        "kind": item.kind,
        "name": shown(item.name),
        "taken_at": moment_json(item.taken_at),
        "width": item.width,
        "height": item.height,
        "duration_s": seconds_json(item.duration_s),
        "size": item.size,
        "companions": companions_json(item.companions),
    }


def moment_json(moment: datetime | None) -> str | None:
    """A local date and time to the second."""
    return None if moment is None else moment.isoformat(timespec="seconds")


def seconds_json(value: float | None) -> float | None:
    """Seconds to the millisecond."""
    return None if value is None else round(value, 3)


def encoded(body: Mapping[str, Any]) -> bytes:
    """An answer as JSON."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
