"""The bytes of pictures: thumbnails, and the files themselves, by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import Response

from .problems import NotFoundError

if TYPE_CHECKING:
    from .service import Service


def router(service: Service) -> APIRouter:
    """The routes that give out pictures."""
    routes = APIRouter(tags=["files"])

    @routes.get("/thumb/{media_id}", response_class=Response)
    async def thumb(media_id: int) -> Response:
        """A small JPEG of an item."""
        jpeg = await service.reads.run(service.library.thumbnail, media_id)
        if jpeg is None:
            raise NotFoundError(f"There is no picture of an item {media_id}.")
        return Response(jpeg, media_type="image/jpeg")

    return routes
