"""`build_app`: the whole path of a request in one place.

Observed        counts, times and logs, whatever happens inside
Guard           Host, Origin, token; security headers on every response
Problems        whatever goes wrong becomes one JSON object
RequestLimits   size and pace of what comes in
routes          one module each; they talk to the `Service` and to nothing else
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from ..machine import installed_version
from . import (
    browse_routes,
    file_routes,
    library_routes,
    openai_routes,
    problems,
    rerank_routes,
    search_routes,
    system_routes,
)
from .limits import RequestLimits
from .logs import Observed
from .openapi import DescribedApp
from .page import read_page
from .problems import Problems
from .security import Guard, Sessions

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .service import Service
    from .settings import ServerSettings

_ROUTES = (search_routes, library_routes, browse_routes, file_routes, openai_routes, rerank_routes)


def build_app(settings: ServerSettings, service: Service) -> FastAPI:
    """The application of one service. Whoever made the service closes it."""
    sessions, page = Sessions(settings.token), read_page(settings.page)
    app = DescribedApp(
        title="qvl-local",
        version=installed_version() or "0",
        summary="Search your own photos and videos by meaning, on your own machine.",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        # An address is one of those that are described, or there is nothing: no 307 to a similar one.
        redirect_slashes=False,
        # Environment variables of other programs could make the framework report requests to somebody.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        middleware=[
            Middleware(Observed, metrics=service.metrics),
            Middleware(Guard, settings=settings, sessions=sessions, page=frozenset(page)),
            Middleware(Problems),
            Middleware(RequestLimits, max_body_bytes=settings.max_body_bytes),
        ],
    )
    routers = [system_routes.router(service, sessions=sessions, page=page)]
    routers += [routes.router(service) for routes in _ROUTES]
    for router in routers:
        app.include_router(router)
    problems.install(app, [route for router in routers for route in router.routes])
    return app
