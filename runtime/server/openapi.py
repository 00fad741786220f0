"""`/openapi.json`: what every route takes and gives, failures among it, for people and for generators.

FastAPI describes the routes; this adds what it cannot know: the failures that the middleware answers, their
two forms, how to sign in, and the bodies that routes read themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from .problems import Problem

_PROGRAMS = ("/v1/", "/rerank", "/v2/rerank")
_OPEN = ("/health", "/api/session")
_WITH_BODY = ("post", "put", "patch", "delete")

_DESCRIPTION = """\
Search the photos and videos of this machine by meaning, and use the two models behind it as a service.

Routes below `/v1` and those that rerank speak the language of OpenAI's, Jina's, Cohere's and vLLM's clients.
The others are the ones that the page uses. Failures are `{"error": {"type", "message"}}`; for programs,
`{"error": {"message", "type", "param", "code"}}`.

Where the server has a token, send `Authorization: Bearer TOKEN`. Nothing here leaves the machine.
"""

_TAGS = {
    "search": "Finding photos and moments of videos.",
    "library": "Folders, items, what is known of them, and indexing.",
    "files": "Pictures, videos and their thumbnails.",
    "programs": "Embedding and reranking for other programs.",
    "system": "The server itself.",
}

_FAILURES = {
    400: ("BadRequest", "Something in the request makes no sense; the message names it."),
    401: ("Unauthorized", "The token is missing or wrong."),
    403: ("Forbidden", "Another site's page asked, or it is not given out."),
    404: ("NotFound", "There is no such thing here."),
    408: ("Timeout", "The request's body did not arrive in time; the connection is closed."),
    409: ("Conflict", "The library cannot do that now: nothing was indexed, or it is busy."),
    413: ("TooLarge", "The request's body is too large."),
    414: ("AddressTooLong", "The address is too long."),
    415: ("MediaType", "The body is not of a type that is taken here."),
    421: ("Misdirected", "The server does not go by the name in the Host header."),
    422: ("Unusable", "A picture or video that was sent cannot be used."),
    429: ("TooManyFailures", "Too many wrong tokens came from this address."),
    431: ("HeadersTooLong", "The headers are too long."),
    500: ("Bug", "A bug; the server's log says where."),
    501: ("NotInstalled", "What this needs is not installed; the message says how to install it."),
    503: ("Unavailable", "Too much is asked for at one time, or the model cannot be had; see the message."),
    507: ("StorageFull", "The library's disk is full, read-only, or gone."),
}
_EVERYWHERE = (400, 401, 403, 414, 421, 429, 431, 500, 503)
_OF_BODIES = (408, 413, 415)
_OF_PROGRAMS = (404, 501, 507)
_OF_THE_LIBRARY = (409, 501, 507)


class ProgramProblemDetail(BaseModel):
    """What happened, as OpenAI's clients read it. `param`: the part of the request that is at fault."""

    message: str
    type: str
    param: str | None = Field(description="Such as `input[3].image`.")
    code: str


class ProgramProblem(BaseModel):
    """The body of every response to a program that tells of a failure."""

    error: ProgramProblemDetail


class DescribedApp(FastAPI):
    """A FastAPI application with a description that is whole."""

    def openapi(self) -> dict[str, Any]:
        """The description, made when it is first asked for."""
        if self.openapi_schema is None:
            with warnings.catch_warnings():
                # A route that answers HEAD, too, has one name for both; only GET is described.
                warnings.filterwarnings("ignore", "Duplicate Operation ID")
                document = super().openapi()
            self.openapi_schema = _completed(document)
        return self.openapi_schema


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    for methods in document["paths"].values():
        methods.pop("head", None)
    document["info"]["description"] = _DESCRIPTION
    document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for kind in (Problem, ProgramProblem):
        _add_model(schemas, kind)
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "Where the server has a token."}
    }
    components["responses"] = {
        f"{form}{name}": _failure(status, text, schema)
        for status, (name, text) in _FAILURES.items()
        for form, schema in (("", "Problem"), ("Program", "ProgramProblem"))
    }
    for path, method, operation in _operations(document):
        _name(operation)
        _hoist(operation, schemas)
        _add_failures(operation, path, method)
        operation["security"] = [] if path in _OPEN else [{}, {"token": []}]
    for name in ("HTTPValidationError", "ValidationError"):  # which are never answered
        schemas.pop(name, None)
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _name(operation: dict[str, Any]) -> None:
    """A route without a summary of its own is called by the first sentence that is said of it."""
    description = operation.get("description", "")
    # FastAPI's own summary is the name of the Python function, of which the id is made, too.
    is_automatic = operation["operationId"].startswith(operation["summary"].lower().replace(" ", "_"))
    if description and is_automatic:
        operation["summary"] = description.split("\n\n")[0].split(". ")[0].replace("\n", " ").rstrip(".")


def _hoist(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Move the definitions of a body that its route reads itself to where the others are."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content.get("schema", {})
        schemas.update(schema.pop("$defs", {}))
        title = schema.get("title")
        if title and "$ref" not in schema:
            schemas[title] = schema
            content["schema"] = {"$ref": f"#/components/schemas/{title}"}


def _add_model(schemas: dict[str, Any], kind: type[BaseModel]) -> None:
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[kind.__name__] = schema


def _failure(status: int, text: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    made: dict[str, Any] = {"description": text, "content": content}
    if status in (429, 503):
        made["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
        }
    return made


def _add_failures(operation: dict[str, Any], path: str, method: str) -> None:
    """Every failure that may be answered, each in the form of the route's clients."""
    responses = operation["responses"]
    # FastAPI's own, for parameters of a wrong kind: here that is a 400.
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    wanted = set(_EVERYWHERE)
    is_for_programs = path.startswith(_PROGRAMS)
    if is_for_programs:
        wanted.update(_OF_PROGRAMS)
    if path.startswith(("/api/", "/thumb/", "/file/")) and path not in _OPEN:
        wanted.update(_OF_THE_LIBRARY)
    if method in _WITH_BODY:
        wanted.update(_OF_BODIES)
    if "{" in path:
        wanted.add(404)
    if path in _OPEN and method == "get":
        wanted -= {401, 429}
    # Those that routes declare are the same failures in the same form.
    wanted.update(int(status) for status in responses if status.isdigit() and int(status) in _FAILURES)
    form = "Program" if is_for_programs else ""
    for status in sorted(wanted):
        responses[str(status)] = {"$ref": f"#/components/responses/{form}{_FAILURES[status][0]}"}
    operation["responses"] = dict(sorted(responses.items()))
