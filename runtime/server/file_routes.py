"""The bytes of pictures and films: thumbnails, the files themselves, several in one archive. By id only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Path
from fastapi import Query as Parameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..errors import InputError
from .archive import zip_pieces
from .limits import Gate
from .media_file import OpenMedia
from .names import content_disposition
from .problems import NotFoundError, Problem
from .ranges import ByteRange, UnsatisfiableError, asked_range, http_date, is_current, is_known
from .security import FILE_POLICY

if TYPE_CHECKING:
    from .service import Service

MOST_ZIPPED = 2_000

_PIECE = 256 << 10
# A file may change and keep its id: after a while the browser asks again, and mostly hears 304.
_A_WHILE = "private, max-age=600, stale-while-revalidate=86400"
_ASK_AGAIN = "private, no-cache"

MediaId = Annotated[int, Path(ge=0, lt=2**63)]


class ZipBody(BaseModel):
    """Which items."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(min_length=1, max_length=MOST_ZIPPED)


_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_THUMB: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": _BYTES}, "description": "The picture."},
    304: {"description": "As the client has it."},
    404: {"model": Problem},
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": _BYTES, "video/*": _BYTES}, "description": "The whole file."},
    206: {"content": {"image/*": _BYTES, "video/*": _BYTES}, "description": "The range that was asked for."},
    304: {"description": "As the client has it."},
    400: {"model": Problem},
    403: {"model": Problem},
    404: {"model": Problem},
    415: {"model": Problem},
    416: {"description": "The range begins behind the file's end."},
    422: {"model": Problem},
}
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": _BYTES}, "description": "The archive."},
    400: {"model": Problem},
    404: {"model": Problem},
}


def router(service: Service) -> APIRouter:
    """The routes that give out files."""
    routes = APIRouter(tags=["files"])

    @routes.api_route("/thumb/{media_id}", methods=["GET", "HEAD"], response_class=Response, responses=_THUMB)
    async def thumb(
        request: Request,
        media_id: MediaId,
        w: Annotated[
            Literal[320, 640],
            BeforeValidator(_number),  # a query holds text, which is none of these numbers
            Parameter(description="Its longer side at most, in pixels."),
        ] = 320,
        v: Annotated[
            int | None,
            Parameter(ge=0, lt=2**53, description="Milliseconds where a video's moment begins."),
        ] = None,
    ) -> Response:
        """A small JPEG of a photo, a video, or the moment of a video that begins at `v`."""
        jpeg = await service.reads.run(service.thumbnail, media_id, w, v)
        etag = f'"{blake2b(jpeg, digest_size=16).hexdigest()}"'
        headers = {"etag": etag, "cache-control": _A_WHILE}
        if is_known(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        return Response(jpeg, headers=headers, media_type="image/jpeg")

    @routes.api_route("/file/{media_id}", methods=["GET", "HEAD"], response_class=Response, responses=_FILE)
    async def file(
        request: Request,
        media_id: MediaId,
        as_: Annotated[
            Literal["jpeg"] | None,
            Parameter(
                alias="as", description="A photo that browsers do not show, such as HEIC or raw, made one."
            ),
        ] = None,
        download: Annotated[bool, Parameter(description="Save it instead of showing it.")] = False,
    ) -> Response:
        """The original file of an item, whole or in ranges; or a photo rendered as JPEG."""
        item = await service.reads.run(service.item, media_id)
        if as_ == "jpeg":
            if item.kind != "photo":
                raise InputError("Only photos are rendered as JPEG.")
            opened = await service.reads.run(service.open_file, item)
            return await _rendered(service, request, opened, item.path, is_attachment=download)
        opened = await service.reads.run(service.open_file, item)
        return _original(service, request, opened, item.path, is_attachment=download)

    @routes.post("/api/zip", response_class=Response, responses=_ZIP)
    async def archive(body: ZipBody) -> Response:
        """Several files as they are, in one archive that is made while it is sent."""
        wanted = list(dict.fromkeys(body.ids))
        items = await service.reads.run(lambda: [service.item(media_id) for media_id in wanted])
        pieces = zip_pieces(items, service.open_file)
        headers = {"content-disposition": content_disposition("qvl-local.zip", is_attachment=True)}
        return StreamingResponse(
            _in_thread(service.files, pieces), headers=headers, media_type="application/zip"
        )

    return routes


def _number(text: object) -> object:
    return int(text) if isinstance(text, str) and text.isdecimal() else text


def _original(
    service: Service, request: Request, opened: OpenMedia, path: str, *, is_attachment: bool
) -> Response:
    headers = {
        "accept-ranges": "bytes",
        "cache-control": _ASK_AGAIN,
        "content-disposition": content_disposition(path, is_attachment=is_attachment),
        "content-security-policy": FILE_POLICY,
        "content-type": opened.media_type,
        "etag": opened.etag,
        "last-modified": http_date(opened.modified_s),
    }
    asked = request.headers
    if is_known(asked.get("if-none-match"), opened.etag):
        opened.file.close()
        return Response(status_code=304, headers=headers)
    part, status = ByteRange(0, opened.size), 200
    is_part = request.method == "GET" and is_current(
        asked.get("if-range"), etag=opened.etag, modified_s=opened.modified_s
    )
    try:
        if is_part and (range_ := asked_range(asked.get("range"), opened.size)) is not None:
            part, status = range_, 206
            headers["content-range"] = part.content_range(opened.size)
    except UnsatisfiableError:
        opened.file.close()
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{opened.size}"})
    headers["content-length"] = str(part.length)
    if request.method == "HEAD":
        opened.file.close()
        return Response(status_code=status, headers=headers)
    return _FileResponse(service.files, opened.file, part, status, headers)


async def _rendered(
    service: Service, request: Request, opened: OpenMedia, path: str, *, is_attachment: bool
) -> Response:
    etag = f'{opened.etag[:-1]}-jpeg"'
    headers = {
        "cache-control": _ASK_AGAIN,
        "content-disposition": content_disposition(f"{path}.jpg", is_attachment=is_attachment),
        "content-security-policy": FILE_POLICY,
        "etag": etag,
    }
    with opened.file as source:
        if is_known(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        jpeg = await service.decodes.run(service.render, source, etag, path)
    return Response(jpeg, headers=headers, media_type="image/jpeg")


class _FileResponse(StreamingResponse):
    """Part of an open file, read in threads; the file is closed whatever becomes of the client."""

    def __init__(
        self, gate: Gate, file: BinaryIO, part: ByteRange, status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(_part_of(gate, file, part), status, headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._file:
            await super().__call__(scope, receive, send)


async def _part_of(gate: Gate, file: BinaryIO, part: ByteRange) -> AsyncIterator[bytes]:
    def read(length: int) -> bytes:
        return file.read(length)

    await gate.run(file.seek, part.start)
    left = part.length
    while left > 0:
        piece = await gate.run(read, min(_PIECE, left))
        if not piece:  # the file became shorter: the connection is cut, so that nobody takes it for whole
            raise NotFoundError("The file became shorter while it was read.")
        left -= len(piece)
        yield piece


async def _in_thread(gate: Gate, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await gate.run(next, pieces, None)) is not None:
        if piece:
            yield piece
