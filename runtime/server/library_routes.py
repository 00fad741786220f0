"""The library as the page shows it: folders, items, what is being indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from ..errors import InputError
from . import file_manager
from .folders import Place
from .names import shown
from .problems import ForbiddenError, NotFoundError, Problem
from .security import client_address
from .settings import is_loopback
from .usual_folders import MOST_COUNTED

if TYPE_CHECKING:
    from .service import Service

Id = Annotated[int, Path(ge=0, lt=2**63)]


class ModelModel(BaseModel):
    """Where the models stand; `step` and `fraction` while they are made ready."""

    name: str
    state: Literal["unloaded", "loading", "ready", "failed"]
    step: str | None
    fraction: float | None
    error: str | None


class IndexingModel(BaseModel):
    """What indexing is doing. `total` is null while files are still being found."""

    state: Literal["idle", "running", "paused"]
    stage: str | None
    done: int
    total: int | None
    failed: int
    per_s: float | None
    eta_s: float | None
    path_name: str | None
    error: str | None = Field(description="Why the last run did not end well.")
    retry_s: float | None = Field(description="Seconds until it is tried again.")


class StatusModel(BaseModel):
    """What the library holds, and what the server is doing."""

    version: str
    library: str
    items: int
    photos: int
    videos: int
    segments: int
    failed: int
    generation: int = Field(description="Rises when the library's content changes.")
    model: ModelModel
    indexing: IndexingModel
    watching: bool
    can_show_in_folder: bool
    can_pick_folder: bool


class FolderModel(BaseModel):
    """A folder that is searched. `note` says what is unusual about it."""

    id: int
    name: str
    path: str
    items: int
    available: bool
    note: str | None


class FoldersModel(BaseModel):
    """The folders that are searched, oldest first."""

    folders: list[FolderModel]


class NewFolder(BaseModel):
    """A folder to search, by its path or as a place from `/api/places`."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field("", max_length=8192)
    place: str = Field("", max_length=64)


class AddedModel(BaseModel):
    """The folder that will be searched."""

    path: str


class RemovedModel(BaseModel):
    """How many items were forgotten; the files are where they were."""

    removed: int


class PlaceModel(BaseModel):
    """A folder to look into or to choose."""

    id: str
    name: str
    path: str
    kind: Literal["home", "pictures", "videos", "disk", "folder"]
    count: int | None = Field(
        description=f"Photos and videos in it, at most {MOST_COUNTED}; null where nobody counted."
    )


class PlacesModel(BaseModel):
    """Folders to choose from."""

    places: list[PlaceModel]


class IndexAction(BaseModel):
    """What indexing shall do."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["start", "pause", "resume", "stop"]


class FailureModel(BaseModel):
    """A file that cannot be searched, and why."""

    path: str
    name: str
    error: str
    id: int


class FailuresModel(BaseModel):
    """All files that cannot be searched, by path."""

    failures: list[FailureModel]


class Chosen(BaseModel):
    """An item."""

    model_config = ConfigDict(extra="forbid")

    id: int = Field(ge=0, lt=2**63)


_BAD: dict[int | str, dict[str, type[BaseModel]]] = {400: {"model": Problem}}
_GONE: dict[int | str, dict[str, type[BaseModel]]] = {404: {"model": Problem}}
_BUSY: dict[int | str, dict[str, type[BaseModel]]] = {409: {"model": Problem}}


def router(service: Service) -> APIRouter:
    """The routes over the library's content."""
    routes = APIRouter(prefix="/api", tags=["library"])

    @routes.get("/status")
    async def status() -> StatusModel:
        """What the library holds, and what the server is doing."""
        return StatusModel(**await service.reads.run(service.board.status))

    @routes.get("/folders")
    async def folders() -> FoldersModel:
        """The folders that are searched."""
        return FoldersModel(
            folders=[FolderModel(**one) for one in await service.reads.run(service.board.folders)]
        )

    @routes.post("/folders", status_code=202, responses={**_BAD, **_GONE})
    async def add_folder(body: NewFolder) -> AddedModel:
        """Search one more folder. It is indexed in the background; its files are only ever read."""
        return AddedModel(path=shown(await service.reads.run(_add_folder, service, body)))

    @routes.delete("/folders/{folder_id}", responses={**_GONE, **_BUSY})
    async def remove_folder(folder_id: Id) -> RemovedModel:
        """Search a folder no more. Its files are not touched."""
        return RemovedModel(removed=await service.reads.run(_remove_folder, service, folder_id))

    @routes.get("/places")
    async def places() -> PlacesModel:
        """Where pictures usually are, to choose a folder without typing."""
        return PlacesModel(places=await service.reads.run(_usual_places, service))

    @routes.get("/places/{place_id}", responses={**_BAD, **_GONE})
    async def places_below(place_id: Annotated[str, Path(max_length=64)]) -> PlacesModel:
        """The folders in a place."""
        found = await service.reads.run(service.places.below, place_id)
        return PlacesModel(places=[_place(place) for place in found])

    @routes.post("/index", responses=_BAD)
    async def index(body: IndexAction) -> IndexingModel:
        """Start indexing everything anew, pause it, go on, or stop it."""
        act = {
            "start": service.jobs.start,
            "pause": service.jobs.pause,
            "resume": service.jobs.resume,
            "stop": service.jobs.stop,
        }
        act[body.action]()
        return IndexingModel(**service.board.indexing())

    @routes.get("/failures")
    async def failures() -> FailuresModel:
        """The files that cannot be searched, and why."""
        found = await service.reads.run(service.board.failures)
        return FailuresModel(failures=[FailureModel(**one) for one in found])

    @routes.post(
        "/open",
        status_code=204,
        response_class=Response,
        responses={403: {"model": Problem}, 501: {"model": Problem}, **_GONE},
    )
    async def show_in_folder(request: Request, body: Chosen) -> Response:
        """Show a file in the file manager of this machine; only for who sits at it."""
        if not (is_loopback(service.settings.host) and is_loopback(client_address(request.scope))):
            raise ForbiddenError("Files are shown only on the machine that they are on.")
        await service.reads.run(_show, service, body.id)
        return Response(status_code=204)

    return routes


def _add_folder(service: Service, body: NewFolder) -> str:
    if bool(body.path.strip()) == bool(body.place):
        raise InputError("Give the path of a folder, such as ~/Pictures.")
    return service.add_folder(service.places.path(body.place) if body.place else body.path)


def _remove_folder(service: Service, folder_id: int) -> int:
    if all(folder.id != folder_id for folder in service.library.folders()):
        raise NotFoundError("This folder is not searched any more.")
    return service.jobs.remove_folder(folder_id)


def _show(service: Service, media_id: int) -> None:
    path = service.item(media_id).path
    if not file_manager.is_there(path):
        raise NotFoundError(f"{shown(path)}: the file is not there any more. Is its disk connected?")
    file_manager.show(path)


def _usual_places(service: Service) -> list[PlaceModel]:
    known = [folder.path for folder in service.library.folders() if folder.is_whole]
    return [_place(place) for place in service.places.first(known)]


def _place(place: Place) -> PlaceModel:
    return PlaceModel(
        id=place.id, name=shown(place.name), path=shown(place.path), kind=place.kind, count=place.count
    )
