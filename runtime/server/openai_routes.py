"""Embeddings for programs, in the words of OpenAI's interface with what Jina and vLLM added for pictures.

`POST /v1/embeddings` and `GET /v1/models`. What an input may look like is in `inputs.py`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SkipValidation
from starlette.requests import Request
from starlette.responses import Response

from ..errors import InputError, PartError
from .inputs import Draft, parse_inputs, parse_messages
from .model_names import ModelNames, chosen, names_of, not_served
from .programs import ProgramRequest, answer, batches, body_schema, dumps, models_for

if TYPE_CHECKING:
    from ..model.embedder import Embedder
    from .service import Service

MOST_INPUTS = 2048
"""In one request, as OpenAI has it."""


class ImageAddress(BaseModel):
    """OpenAI's form of an address. `detail` is taken and has no effect: sizes are the model's own."""

    model_config = ConfigDict(extra="forbid")

    url: str
    detail: str | None = None


class Part(BaseModel):
    """A text, an image or a video; several keys at once are one input.

    Images and videos are data URIs, base64 alone, or, where the server was started so, `file://` paths below
    indexed folders and `https://` addresses.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "image", "video", "image_url", "video_url"] | None = Field(
        None, description="Which of the keys is there; may be left out."
    )
    text: str | list[str] | None = None
    image: str | list[str] | None = None
    video: str | list[str] | None = None
    image_url: str | ImageAddress | None = Field(None, description="OpenAI's name for `image`.")
    video_url: str | ImageAddress | None = Field(None, description="vLLM's name for `video`.")
    fps: float | None = Field(None, gt=0, le=240, description="Frames a second that a video is looked at.")
    max_frames: int | None = Field(None, ge=1, le=64, description="At most so many frames of a video.")


class InputPart(Part):
    """A part that is an input of its own."""

    instruction: str | None = Field(None, description="Instead of the request's.")


class ContentInput(BaseModel):
    """Several parts that are one input, and get one vector."""

    model_config = ConfigDict(extra="forbid")

    content: str | Part | list[str | Part]
    instruction: str | None = Field(None, description="Instead of the request's.")
    fps: float | None = Field(None, gt=0, le=240)
    max_frames: int | None = Field(None, ge=1, le=64)


class ChatMessage(BaseModel):
    """A message of OpenAI's chat. The system's is the instruction; the assistant's must be empty."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: str | Part | list[str | Part]
    name: str | None = None


AnyInput = str | InputPart | ContentInput


class EmbeddingRequest(ProgramRequest):
    """What to embed, and how."""

    model_config = ConfigDict(title="EmbeddingRequest")

    input: Annotated[AnyInput | list[AnyInput] | None, SkipValidation] = Field(
        None, description=f"One input, or up to {MOST_INPUTS:,}: texts, or objects of text, image and video."
    )
    messages: Annotated[list[ChatMessage] | None, SkipValidation] = Field(
        None, description="Instead of `input`: one input as chat messages, as vLLM takes them."
    )
    model: str | None = Field(None, max_length=500, description="The served embedder by any of its names.")
    dimensions: int | None = Field(
        None, ge=1, description="Width of the vectors: so many leading components, normalised again (MRL)."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="`base64`: the little-endian float32 numbers of a vector as one string."
    )
    embedding_type: Literal["float", "base64"] | None = Field(
        None, description="Jina's name for `encoding_format`."
    )
    instruction: str | None = Field(
        None, max_length=10_000, description="What the vectors are for; the model's own when left out."
    )
    user: str | None = Field(None, description="Taken and not used.")
    normalized: Literal[True] | None = Field(None, description="Vectors always are.")
    truncate: Literal[True] | None = Field(None, description="Texts beyond the model's limit always are.")
    add_special_tokens: bool | None = Field(None, description="vLLM's; the prompt is the model's own.")
    add_generation_prompt: bool | None = Field(None, description="vLLM's; the prompt is the model's own.")
    continue_final_message: bool | None = Field(None, description="vLLM's; the prompt is the model's own.")


class Embedding(BaseModel):
    """One vector, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that the model read, those of pictures and of its own prompt among them."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """The vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served. `aliases`: other names that requests may use; `task`: what it does."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: Literal["embedding", "rerank"]
    aliases: list[str]


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"]
    data: list[ModelCard]


_EXAMPLES: dict[str, Any] = {
    "a text": {"input": "two dogs on a beach", "dimensions": 128},
    "several texts": {"input": ["two dogs", "a boat at night"], "encoding_format": "base64"},
    "a picture and words": {
        "input": [
            {"content": [{"image": "data:image/png;base64,iVBORw0KGgo="}, {"text": "but at night"}]},
            {"text": "two dogs"},
        ]
    },
    "chat messages": {
        "messages": [
            {"role": "system", "content": "Retrieve images relevant to the user's query."},
            {"role": "user", "content": [{"type": "text", "text": "two dogs"}]},
        ]
    },
}


def router(service: Service) -> APIRouter:
    """The routes that embed, and say which models there are."""
    routes = APIRouter(prefix="/v1", tags=["programs"])
    started_at = int(time())

    @routes.post(
        "/embeddings",
        summary="Embed texts, images and videos",
        response_model=EmbeddingResponse,
        openapi_extra=body_schema(EmbeddingRequest, _EXAMPLES),
    )
    async def embeddings(request: Request) -> Response:
        """Turn inputs into vectors of one space, for OpenAI's clients and those of Jina and vLLM.

        The model is loaded by the first request. Texts beyond the model's limit are cut at their end.
        """
        return await answer(
            request,
            EmbeddingRequest,
            service,
            lambda asked, go_on: _embeddings(asked, service, go_on),
        )

    @routes.get("/models", summary="List the models that are served")
    async def models() -> ModelList:
        """The embedder and the reranker, with every name that requests may use for them."""
        served = await service.reads.run(names_of, service.library.model)
        return ModelList(object="list", data=[_card(names, started_at) for names in served])

    @routes.get("/models/{model:path}", summary="Look up a model by one of its names")
    async def model(model: str) -> ModelCard:
        """One model; names may hold a slash. A name that both models share gives the embedder."""
        served = await service.reads.run(names_of, service.library.model)
        found = next((names for names in served if names.has(model)), None)
        if found is None:
            raise not_served(model, served)
        return _card(found, started_at)

    return routes


def _card(names: ModelNames, started_at: int) -> ModelCard:
    return ModelCard(
        id=names.id,
        object="model",
        created=started_at,
        owned_by="qvl-local",
        task="embedding" if names.role == "embedder" else "rerank",
        aliases=list(names.aliases),
    )


def _embeddings(asked: EmbeddingRequest, service: Service, go_on: Callable[[], None]) -> Iterator[str]:
    """The response to a request in pieces of JSON."""
    names = chosen(asked.model, "embedder", names_of(service.library.model))
    drafts = _drafts(asked)
    service.inputs.check(drafts)
    form = _format(asked)
    index = tokens = 0
    with models_for(service, drafts):
        embedder = service.embedder()
        width = _width(asked, embedder)
        yield '{"object":"list","data":['
        for batch in batches(drafts):
            go_on()
            inputs = [service.inputs.read(draft, embedder.budget, go_on=go_on) for draft in batch]
            made = embedder.embed_counted(inputs, dims=width)
            tokens += sum(made.tokens)
            for vector in made.vectors:
                given = _base64(vector) if form == "base64" else _numbers(vector)
                row = f'{{"object":"embedding","index":{index},"embedding":{given}}}'
                yield f",{row}" if index else row
                index += 1
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    yield f'],"model":{dumps(names.id)},"usage":{dumps(usage)}}}'


def _drafts(asked: EmbeddingRequest) -> list[Draft]:
    if (asked.input is None) == (asked.messages is None):
        raise InputError("Give either input or messages.")
    drafts = parse_inputs(asked.input) if asked.messages is None else [parse_messages(asked.messages)]
    if len(drafts) > MOST_INPUTS:
        raise PartError("input", f"holds {len(drafts):,} inputs; {MOST_INPUTS:,} are the limit.")
    if asked.instruction is None:
        return drafts
    if asked.messages is not None and drafts[0].instruction is not None:
        raise PartError("instruction", "the messages hold one already, that of the system.")
    return [
        draft if draft.instruction is not None else replace(draft, instruction=asked.instruction)
        for draft in drafts
    ]


def _width(asked: EmbeddingRequest, embedder: Embedder) -> int:
    try:
        return embedder.width(asked.dimensions)
    except InputError as error:
        raise PartError(
            "dimensions", f"must be a whole number from 1 to {embedder.max_dims}, not {asked.dimensions}."
        ) from error


def _format(asked: EmbeddingRequest) -> str:
    wanted = {form for form in (asked.encoding_format, asked.embedding_type) if form is not None}
    if len(wanted) > 1:
        raise PartError("embedding_type", "asks for another form than encoding_format.")
    return wanted.pop() if wanted else "float"


def _base64(vector: NDArray[np.float32]) -> str:
    return f'"{base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")}"'


def _numbers(vector: NDArray[np.float32]) -> str:
    """As JSON: nine digits give every float32 back exactly, half as many as a float64 is written with."""
    return f"[{','.join(f'{number:.9g}' for number in vector.tolist())}]"
