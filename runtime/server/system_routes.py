"""The page and its files, signing in, and what machines ask: is it alive, and how is it doing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from ..machine import installed_version
from .metrics import CONTENT_TYPE
from .page import PageFile
from .problems import Problem, problem
from .security import PAGE_POLICY, SESSION_DAYS, Sessions, client_address, cookie_name, too_many_failures

if TYPE_CHECKING:
    from .service import Service


class Health(BaseModel):
    """The server is there."""

    status: Literal["ok"]
    version: str


class Token(BaseModel):
    """What signs a browser in."""

    token: str = Field(max_length=1024)


def router(service: Service, *, sessions: Sessions, page: Mapping[str, PageFile]) -> APIRouter:
    """The routes of the server itself. `page`: its files by address."""
    routes = APIRouter(tags=["system"])

    @routes.get("/health")
    async def health() -> Health:
        """Whether the server is there; needs no token."""
        return Health(status="ok", version=installed_version() or "0")

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Counts and times, as Prometheus reads them."""
        text = await service.reads.run(service.metrics.render)
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    @routes.post(
        "/api/session",
        status_code=204,
        response_class=Response,
        responses={401: {"model": Problem}, 429: {"model": Problem}},
    )
    async def sign_in(request: Request, body: Token) -> Response:
        """Show the token once; the cookie that comes back stands for it from then on."""
        path, address = request.url.path, client_address(request.scope)
        if not sessions.is_needed:
            return Response(status_code=204)
        if wait := sessions.may_try(address):
            return too_many_failures(path, wait)
        if not sessions.is_token(body.token.strip()):
            sessions.failed(address)
            return problem(path, 401, "TokenError", "This is not the token of this server.")
        response = Response(status_code=204)
        response.set_cookie(
            cookie_name(request.scope),
            sessions.cookie(),
            max_age=SESSION_DAYS * 86_400,
            httponly=True,
            samesite="strict",
            path="/",
        )
        return response

    @routes.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index(request: Request) -> Response:
        """The page."""
        return _page_response(request, page.get("/"))

    for address in page:
        if address != "/":
            routes.add_api_route(address, _page_route(page[address]), include_in_schema=False)
    return routes


def _page_route(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    async def page_file(request: Request) -> Response:
        return _page_response(request, file)

    return page_file


def _page_response(request: Request, file: PageFile | None) -> Response:
    if file is None:
        return PlainTextResponse("This server has no page; it answers programs. See /openapi.json.", 404)
    headers = {
        "content-security-policy": PAGE_POLICY,
        "cache-control": "no-cache",
        "etag": file.etag,
        "vary": "accept-encoding",
    }
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    if file.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        return Response(file.compressed, headers=headers, media_type=file.media_type)
    return Response(file.content, headers=headers, media_type=file.media_type)
