"""What the routes for programs share: JSON is read, answered and written in threads, a few at a time.

A request whose client goes, or whose server stops, ends between two batches.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..errors import InputError, PartError, StoppedError
from .inputs import Draft
from .limits import ClientGoneError, while_connected
from .problems import NOT_JSON, SEND_JSON

if TYPE_CHECKING:
    from .service import Service

# A batch between two looks at whether anybody still waits for it: texts, and media, which take longer.
_TEXTS_A_BATCH = 32
_MEDIA_A_BATCH = 8


class ProgramRequest(BaseModel):
    """The JSON of a request by a program. Unknown fields are errors: a misspelt option must not be lost."""

    model_config = ConfigDict(extra="forbid", strict=True)


Asked = TypeVar("Asked", bound=ProgramRequest)


async def answer(
    request: Request,
    kind: type[Asked],
    service: Service,
    work: Callable[[Asked, Callable[[], None]], Iterator[str]],
) -> Response:
    """The JSON that `work(asked, go_on)` gives in pieces. `go_on` raises when nobody waits any more.

    Raises:
        InputError: the body is no JSON, or not of this kind.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise HTTPException(415, SEND_JSON)
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise ClientGoneError("The client closed the connection.") from error
    given_up = threading.Event()

    def go_on() -> None:
        if given_up.is_set() or service.stopping.is_set():
            raise StoppedError("The server is stopping." if service.stopping.is_set() else "Given up.")

    def run() -> bytes:
        return "".join(work(parsed(body, kind), go_on)).encode("ascii")

    try:
        content = await while_connected(request, service.programs.run(run))
    finally:
        given_up.set()
    return Response(content, media_type="application/json")


def parsed(body: bytes, kind: type[Asked]) -> Asked:
    """A request's JSON, checked.

    Raises:
        InputError: it is no JSON object.
        PartError: a field is missing, unknown, or of the wrong kind.
    """
    try:
        raw = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # among the former: bytes that are no text
        raise InputError(NOT_JSON) from error
    if not isinstance(raw, dict):
        raise InputError("The request's body must be a JSON object.")
    try:
        # Clients send null for what they leave out, also for options of other services.
        return kind.model_validate({name: value for name, value in raw.items() if value is not None})
    except ValidationError as error:
        raise _fault(error, kind) from error


@contextmanager
def models_for(service: Service, drafts: Sequence[Draft]) -> Iterator[None]:
    """For so long the models are kept, and indexing makes room if there is little to do for them.

    Of thousands of inputs nobody waits for the first: such a request and indexing share the machine.
    """
    with service.library.using_models():
        if len(drafts) > _TEXTS_A_BATCH:
            yield
            return
        with service.searching():
            yield


def batches(drafts: Sequence[Draft]) -> Iterator[Sequence[Draft]]:
    """Neighbours that are read and embedded together."""
    start = media = 0
    for i, draft in enumerate(drafts):
        if i > start and (i - start >= _TEXTS_A_BATCH or media + len(draft.media) > _MEDIA_A_BATCH):
            yield drafts[start:i]
            start, media = i, 0
        media += len(draft.media)
    if start < len(drafts):
        yield drafts[start:]


def body_schema(kind: type[ProgramRequest], examples: dict[str, Any]) -> dict[str, Any]:
    """What a route says of its body, which it reads itself; `openapi.py` moves the definitions."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    named = {name: {"summary": name, "value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": schema, "examples": named}}
    return {"requestBody": {"required": True, "content": content}}


def dumps(value: object) -> str:
    """JSON in ASCII: half a surrogate pair, which JSON can hold and UTF-8 cannot, stays an escape."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _fault(error: ValidationError, kind: type[ProgramRequest]) -> PartError:
    """The first fault, without the value: that may be somebody's query."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in fault["loc"]).lstrip(".")
    if fault["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return PartError(ascii(place)[1:-1][:80], f"is an unknown field. Known fields: {known}.")
    return PartError(place or "body", f"{fault['msg'][:1].lower()}{fault['msg'][1:]}.")
