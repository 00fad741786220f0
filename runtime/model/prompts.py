"""Prompts: what the two models are asked, in the words of the official code, as messages and as text.

The text around the messages comes from the checkpoint's own chat template, rendered by Jinja in a sandbox.
Since loading Jinja takes longer than a short query, the frame that a template puts around texts is kept on
disk once it is known that the template passes texts through untouched.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import CheckpointError
from .storage import write_atomically

EMBEDDING_INSTRUCTION = "Represent the user's input."
RERANKING_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
RERANKING_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
EMPTY = "NULL"

# Shapes of conversations whose frames are kept on disk; a search knows a handful.
_FRAMES_KEPT = 64


# Texts, number of images, number of videos.
Content: TypeAlias = tuple[Sequence[str], int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a message: a text, or the place of an image or a video."""

    type: Literal["text", "image", "video"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that a chat template renders."""

    role: Literal["system", "user"]
    pieces: tuple[Piece, ...]


def embedding_messages(
    texts: Sequence[str], *, images: int, videos: int, instruction: str | None
) -> list[Message]:
    """The embedder's conversation: the instruction, then videos, images, texts; nothing at all is "NULL"."""
    system = _instruction(instruction) or EMBEDDING_INSTRUCTION
    return [
        Message("system", (Piece("text", system),)),
        Message("user", tuple(_content(texts, images=images, videos=videos))),
    ]


def reranking_messages(query: Content, document: Content, *, instruction: str | None) -> list[Message]:
    """The reranker's conversation for one pair."""
    pieces = [
        Piece("text", f"<Instruct>: {instruction or RERANKING_INSTRUCTION}"),
        Piece("text", "<Query>:"),
        *_content(query[0], images=query[1], videos=query[2]),
        Piece("text", "\n<Document>:"),
        *_content(document[0], images=document[1], videos=document[2]),
    ]
    return [Message("system", (Piece("text", RERANKING_SYSTEM),)), Message("user", tuple(pieces))]


class ChatTemplate:
    """A checkpoint's chat template. `frames` is a folder that remembers rendered frames, or None."""

    def __init__(self, source: str, *, name: str, frames: Path | None = None) -> None:
        self._source = source
        self._name = name
        self._compiled: Any = None
        self._known: dict[str, list[str]] = {}
        self._sha256 = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        self._store = None if frames is None else frames / f"{self._sha256[:32]}.json"
        if self._store is not None:
            self._known = _read_frames(self._store)

    @property
    def digest(self) -> str:
        """Short hash of the template's text; part of a vector space's identity."""
        return self._sha256[:16]

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt's text, ending in the header of the answer (the "generation prompt").

        Raises:
            CheckpointError: the template does not work.
        """
        texts = [piece.text for message in messages for piece in message.pieces if piece.type == "text"]
        frame = self._frame(messages, len(texts))
        if not frame:
            return self._run(messages)
        return _filled(frame, texts)

    def _frame(self, messages: Sequence[Message], slots: int) -> list[str]:
        """What the template writes between the texts of messages of this shape; empty if it touches texts."""
        shape = ";".join(
            message.role + ":" + ",".join(piece.type for piece in message.pieces) for message in messages
        )
        if shape not in self._known:
            self._known[shape] = self._find_frame(messages, slots)
            if self._store is not None and len(self._known) <= _FRAMES_KEPT:
                write_atomically(self._store, json.dumps(self._known))
        return self._known[shape]

    def _find_frame(self, messages: Sequence[Message], slots: int) -> list[str]:
        """Render the shape with marks for texts; accept it if awkward texts come out as given, too."""
        marks = [f"mark{i}mark" for i in range(slots)]
        rest = self._run(_with_texts(messages, marks))
        frame = []
        for mark in marks:
            before, found, rest = rest.partition(mark)
            if not found:
                return []
            frame.append(before)
        frame.append(rest)
        for awkward in ("", " \n {{ x }} <b>&amp;</b>\t\n ", "é\u0301ß\U0001f415"):
            texts = [awkward] * slots
            if self._run(_with_texts(messages, texts)) != _filled(frame, texts):
                return []
        return frame

    def _run(self, messages: Sequence[Message]) -> str:
        """Render with Jinja."""
        from jinja2 import TemplateError

        if self._compiled is None:
            self._compiled = _compile(self._source, self._name)
        turns = [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": piece.text}
                    if piece.type == "text"
                    else {"type": piece.type, piece.type: ""}
                    for piece in message.pieces
                ],
            }
            for message in messages
        ]
        try:
            text: str = self._compiled.render(messages=turns, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise CheckpointError(f"{self._name}: the chat template fails ({error}).") from error
        return text


def load_template(folder: Path, *, frames: Path | None = None) -> ChatTemplate:
    """Find a checkpoint's chat template, wherever it is kept.

    In this order: `chat_template.jinja`, `chat_template.json`, `tokenizer_config.json`, then
    `additional_chat_templates/` (`default.jinja`, or the only one that takes messages).

    Raises:
        CheckpointError: there is none.
    """
    for name, source in _candidates(folder):
        if "messages" in source:  # others are written for another caller, such as vLLM's query and document
            return ChatTemplate(source, name=name, frames=frames)
    raise CheckpointError(
        f"{folder}: no chat template (chat_template.jinja, chat_template.json, tokenizer_config.json or "
        "additional_chat_templates/). Download the checkpoint again."
    )


def _candidates(folder: Path) -> Iterator[tuple[str, str]]:
    plain = folder / "chat_template.jinja"
    if plain.is_file():
        yield str(plain), _read(plain)
    for name in ("chat_template.json", "tokenizer_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            raw = json.loads(_read(file))
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{file}: is not JSON ({error}). Download the checkpoint again.") from error
        template = raw.get("chat_template") if isinstance(raw, dict) else None
        if isinstance(template, str):
            yield str(file), template
        elif isinstance(template, list):
            named = {str(entry["name"]): str(entry["template"]) for entry in template}
            for key in sorted(named, key=lambda key: (key != "default", key)):
                yield f"{file} ({key})", named[key]
    for file in sorted(folder.glob("additional_chat_templates/*.jinja"), key=_default_first):
        yield str(file), _read(file)


def _default_first(file: Path) -> tuple[bool, str]:
    return file.name != "default.jinja", file.name


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}). Download the checkpoint again.") from error


def _compile(source: str, name: str) -> Any:
    """Compile as transformers does: trimmed blocks, loop controls, sandboxed and immutable."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> str:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise CheckpointError(f"{name}: the chat template is broken ({error}).") from error


def _content(texts: Sequence[str], *, images: int, videos: int) -> list[Piece]:
    """Videos, then images, then texts, as the official code orders them."""
    if not texts and not images and not videos:
        return [Piece("text", EMPTY)]
    return [
        *(Piece("video") for _ in range(videos)),
        *(Piece("image") for _ in range(images)),
        *(Piece("text", text) for text in texts),
    ]


def _instruction(instruction: str | None) -> str:
    """Without spaces around it, and ending in punctuation."""
    stripped = (instruction or "").strip()
    if stripped and not unicodedata.category(stripped[-1]).startswith("P"):
        return stripped + "."
    return stripped


def _with_texts(messages: Sequence[Message], texts: Sequence[str]) -> list[Message]:
    """The same messages with other texts."""
    rest = iter(texts)
    return [
        Message(
            message.role,
            tuple(Piece("text", next(rest)) if piece.type == "text" else piece for piece in message.pieces),
        )
        for message in messages
    ]


def _filled(frame: Sequence[str], texts: Sequence[str]) -> str:
    """The frame with a text in each gap; a frame has one part more than there are texts."""
    return "".join(part for pair in zip(frame, [*texts, ""]) for part in pair)


def _read_frames(store: Path) -> dict[str, list[str]]:
    """Frames kept by an earlier process; a missing or damaged file means none."""
    try:
        raw = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(raw, dict) or not all(isinstance(frame, list) for frame in raw.values()):
        return {}
    return raw
