"""The library as the page shows it: folders, items, what is being indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic import BaseModel

from ..library.status import LibraryStatus

if TYPE_CHECKING:
    from .service import Service


class StatusModel(BaseModel):
    """What the library holds."""

    library: str
    items: int
    photos: int
    videos: int
    segments: int
    failed: int


def router(service: Service) -> APIRouter:
    """The routes over the library's content."""
    routes = APIRouter(prefix="/api", tags=["library"])

    @routes.get("/status")
    async def status() -> StatusModel:
        """What the library holds, and what the server is doing."""
        return _status(service, await service.reads.run(service.library.status))

    return routes


def _status(service: Service, found: LibraryStatus) -> StatusModel:
    counts = found.counts
    return StatusModel(
        library=str(service.library.path),
        items=counts.items,
        photos=counts.photos,
        videos=counts.videos,
        segments=counts.segments,
        failed=counts.failed,
    )
