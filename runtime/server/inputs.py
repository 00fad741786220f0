"""The inputs of programs: strings, parts and chat messages of a request become inputs of the two models.

    "two dogs"                                    a text
    {"text": ...} {"image": ...} {"video": ...}   Jina's parts, also several keys at once
    {"content": [part, ...]}                      several parts of one input, as vLLM's reranking takes them
    [{"role": ..., "content": ...}, ...]          OpenAI's chat messages, as vLLM's embedding takes them

Everything is checked before anything is decoded, and an error names its part as the sender would
(`input[3].image`). Where the bytes of media come from is the business of `sources.py`, decoding that of
`decoders.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MediaError, PartError
from .decoders import Decoders
from .sources import Sources

if TYPE_CHECKING:
    from ..model.pixels import PixelBudget

MediumKind = Literal["image", "video"]

# What may hold a part's medium. The last two are OpenAI's and vLLM's: an address, or {"url": address}.
_MEDIA: dict[str, MediumKind] = {
    "image": "image",
    "video": "video",
    "image_url": "image",
    "video_url": "video",
}
_OPTIONS = ("fps", "max_frames")
_MOST_FRAMES = 64  # of the models' official code
_MOST_FPS = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    """How much one request may hold: characters of a text and of all, media of an input and of all."""

    text_characters: int = 200_000
    all_characters: int = 4_000_000
    media_an_input: int = 64
    all_media: int = 512


@dataclass(frozen=True, slots=True)
class Medium:
    """One picture or film: its address, and its place in the request."""

    kind: MediumKind
    address: str
    part: str


@dataclass(frozen=True, slots=True)
class Draft:
    """One input, checked but not decoded. `part` is its place in the request."""

    part: str
    texts: tuple[str, ...] = ()
    media: tuple[Medium, ...] = ()
    instruction: str | None = None
    fps: float | None = None
    max_frames: int | None = None

    @property
    def characters(self) -> int:
        """Of all its texts."""
        return sum(map(len, self.texts))


def parse_inputs(raw: object, *, part: str = "input") -> list[Draft]:
    """The inputs of an embedding request: one, or a list of them.

    Raises:
        PartError: something is of the wrong kind, unknown, or empty.
    """
    if not isinstance(raw, list):
        return [parse_input(raw, part=part)]
    if not raw:
        raise PartError(part, "is empty. Give at least one text, image or video.")
    if _is_tokens(raw):
        raise PartError(part, _TOKENS)
    return [parse_input(one, part=f"{part}[{i}]") for i, one in enumerate(raw)]


def parse_input(raw: object, *, part: str) -> Draft:
    """One input: a text, or an object of parts.

    Raises:
        PartError: as for `parse_inputs`.
    """
    if isinstance(raw, str):
        draft = Draft(part, (raw,) if raw else ())
    elif isinstance(raw, dict):
        draft = _object(raw, part)
    elif _is_tokens(raw):
        raise PartError(part, _TOKENS)
    else:
        raise PartError(part, f'must be a text or an object such as {{"text": ...}}, not {_kind(raw)}.')
    if not draft.texts and not draft.media:
        raise PartError(part, "is empty. Give a text, an image or a video.")
    return draft


def parse_messages(raw: object, *, part: str = "messages") -> Draft:
    """The one input that chat messages say; the system's text is the instruction.

    Raises:
        PartError: as for `parse_inputs`, or a message of another role with something in it.
    """
    if not isinstance(raw, list) or not raw:
        raise PartError(part, 'must be a list of messages such as {"role": "user", "content": ...}.')
    whole = Draft(part)
    for i, message in enumerate(raw):
        here = f"{part}[{i}]"
        if not isinstance(message, dict) or "content" not in message:
            raise PartError(here, 'must be an object with "role" and "content".')
        _check_keys(message, ("role", "content", "name"), here)
        role = message.get("role", "user")
        said = _content(message["content"], f"{here}.content")
        if role in ("system", "developer"):
            if said.media or whole.instruction is not None:
                raise PartError(here, "the instruction must be one message of text alone.")
            whole = replace(whole, instruction="".join(said.texts))
        elif role == "user":
            whole = _joined(whole, said)
        elif role != "assistant" or said.texts or said.media:
            # An empty answer is how clients of vLLM end the prompt; ours ends as the model was trained.
            raise PartError(here, f"a message of the role {_shown(role)} is nothing to embed. Leave it out.")
    if not whole.texts and not whole.media:
        raise PartError(part, "are empty. Give a text, an image or a video.")
    return whole


class Inputs:
    """Checks drafts against limits and decodes their media. Safe between threads; done with after `close`."""

    def __init__(
        self, sources: Sources, *, decoders: Decoders | None = None, limits: InputLimits | None = None
    ) -> None:
        self._sources = sources
        self._decoders = decoders or Decoders()
        self._limits = limits or InputLimits()

    def check(self, drafts: Sequence[Draft]) -> None:
        """Refuse what is too much, or comes from where nothing is taken from, before any of it is decoded.

        Raises:
            PartError: it names the part.
        """
        limits = self._limits
        for draft in drafts:
            if len(draft.media) > limits.media_an_input:
                raise PartError(draft.part, f"holds more than {limits.media_an_input} images and videos.")
            for text in draft.texts:
                if len(text) > limits.text_characters:
                    raise PartError(
                        draft.part,
                        f"a text has {len(text):,} characters; {limits.text_characters:,} are the limit.",
                    )
            for medium in draft.media:
                self._sources.check(medium.address, part=medium.part)
        characters = sum(draft.characters for draft in drafts)
        if characters > limits.all_characters:
            raise PartError(
                _root(drafts[0].part),
                f"the texts have {characters:,} characters together; the limit is "
                f"{limits.all_characters:,}. Send them in several requests.",
            )
        media = sum(len(draft.media) for draft in drafts)
        if media > limits.all_media:
            raise PartError(
                _root(drafts[0].part),
                f"holds {media:,} images and videos; {limits.all_media:,} are the limit. "
                "Send them in several requests.",
            )

    def read(self, draft: Draft, budget: PixelBudget, *, go_on: Callable[[], None]) -> dict[str, Any]:
        """An input as `Embedder.embed` takes it, its media fetched, decoded and fitted to the budget.

        Raises:
            PartError: a medium cannot be used; it names the part and says why.
            QvlError: whatever `go_on`, which is called now and then, raises to end it.
        """
        made: dict[str, Any] = {"text": list(draft.texts), "image": [], "video": []}
        for medium in draft.media:
            with self._sources.file(medium.address, part=medium.part, go_on=go_on) as path:
                try:
                    if medium.kind == "image":
                        decoded: Any = self._decoders.picture(path, budget, go_on=go_on)
                    else:
                        decoded = self._decoders.film(
                            path, budget, fps=draft.fps, max_frames=draft.max_frames, go_on=go_on
                        )
                except MediaError as error:
                    raise PartError(medium.part, f"{error.reason}.") from error
            made[medium.kind].append(decoded)
        made |= {"fps": draft.fps, "max_frames": draft.max_frames, "instruction": draft.instruction}
        return {key: value for key, value in made.items() if value not in (None, [])}

    def close(self) -> None:
        """End the decoding processes."""
        self._decoders.close()


# Parsing, in the order of use

_TOKENS = (
    "token ids are not taken: those of another model mean nothing to this one. Send the text. "
    "(LangChain: check_embedding_ctx_length=False.)"
)


def _is_tokens(raw: object) -> bool:
    return isinstance(raw, list) and bool(raw) and all(type(one) is int for one in raw)


def _object(raw: Mapping[str, Any], part: str) -> Draft:
    """An object with parts as its keys, with a "content", or with a "type"."""
    instruction = raw.get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise PartError(f"{part}.instruction", f"must be a text, not {_kind(instruction)}.")
    if "content" in raw:
        _check_keys(raw, ("content", "instruction", *_OPTIONS), part)
        draft = _joined(_content(raw["content"], f"{part}.content"), _options(raw, part))
    else:
        draft = _part(raw, part, extra=("instruction",))
    return replace(draft, part=part, instruction=instruction)


def _content(raw: object, part: str) -> Draft:
    """The content of a message or an input: a text, a part, or a list of parts."""
    if isinstance(raw, str):
        return Draft(part, (raw,) if raw else ())
    if isinstance(raw, dict):
        return _part(raw, part)
    if not isinstance(raw, list):
        raise PartError(part, f"must be a text or a list of parts, not {_kind(raw)}.")
    whole = Draft(part)
    for i, one in enumerate(raw):
        here = f"{part}[{i}]"
        if isinstance(one, str):
            whole = _joined(whole, Draft(here, (one,) if one else ()))
        elif isinstance(one, dict):
            whole = _joined(whole, _part(one, here))
        else:
            raise PartError(
                here, f'must be a part such as {{"type": "text", "text": ...}}, not {_kind(one)}.'
            )
    return whole


def _part(raw: Mapping[str, Any], part: str, *, extra: tuple[str, ...] = ()) -> Draft:
    """One part: {"type", "text"}, {"image_url": {"url"}} and the like, or several of them as keys at once."""
    wanted = raw.get("type")
    _check_keys(raw, ("type", "text", *_MEDIA, *_OPTIONS, *extra), part)
    held = [key for key in ("text", *_MEDIA) if raw.get(key) is not None]
    if wanted is not None and held != [wanted]:
        raise PartError(part, f"must hold a {_shown(wanted)} and nothing else, as its type says.")
    if not held:
        raise PartError(part, "holds neither text nor image nor video.")
    texts: list[str] = []
    media: list[Medium] = []
    for key in held:
        here = f"{part}.{key}"
        many = isinstance(raw[key], list)
        for i, value in enumerate(raw[key] if many else [raw[key]]):
            place = f"{here}[{i}]" if many else here
            if key == "text":
                texts += [text for text in [_text(value, place)] if text]
            else:
                media.append(Medium(_MEDIA[key], _address(value, place), place))
    return _joined(Draft(part, tuple(texts), tuple(media)), _options(raw, part))


def _text(value: object, part: str) -> str:
    if not isinstance(value, str):
        raise PartError(part, f"must be a text, not {_kind(value)}.")
    return value


def _address(value: object, part: str) -> str:
    if isinstance(value, dict):
        # OpenAI's "detail" asks for a resolution; here the model's own is taken.
        _check_keys(value, ("url", "detail"), part)
        if not isinstance(value.get("detail"), str | None):
            raise PartError(f"{part}.detail", f"must be a text, not {_kind(value['detail'])}.")
        value = value.get("url")
        part = f"{part}.url"
    if not isinstance(value, str) or not value:
        raise PartError(part, f"must be a data URI, base64 or an address, not {_kind(value)}.")
    return value


def _options(raw: Mapping[str, Any], part: str) -> Draft:
    """How films are looked at."""
    fps, frames = raw.get("fps"), raw.get("max_frames")
    if fps is not None and (
        isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= _MOST_FPS
    ):
        raise PartError(f"{part}.fps", f"must be a number above 0, up to {_MOST_FPS:g}.")
    if frames is not None and (type(frames) is not int or not 1 <= frames <= _MOST_FRAMES):
        raise PartError(f"{part}.max_frames", f"must be a whole number from 1 to {_MOST_FRAMES}.")
    return Draft(part, fps=None if fps is None else float(fps), max_frames=frames)


def _joined(first: Draft, second: Draft) -> Draft:
    """Both as one input, at the place of the first."""
    for name in _OPTIONS:
        one, other = getattr(first, name), getattr(second, name)
        if one is not None and other is not None and not math.isclose(one, other):
            raise PartError(f"{second.part}.{name}", "the videos of one input must ask for the same.")
    return Draft(
        first.part,
        first.texts + second.texts,
        first.media + second.media,
        first.instruction,
        first.fps if second.fps is None else second.fps,
        first.max_frames if second.max_frames is None else second.max_frames,
    )


def _check_keys(raw: Mapping[str, Any], known: Iterable[str], part: str) -> None:
    for key, value in raw.items():
        if key not in known and value is not None:
            raise PartError(part, f"the key {_shown(key)} is unknown. Known keys: {', '.join(known)}.")


def _root(part: str) -> str:
    """The request's field that a part lies in."""
    return part.partition("[")[0].partition(".")[0]


def _shown(value: object) -> str:
    """What a client wrote, for an error: short and harmless."""
    return ascii(value)[:40]


def _kind(value: object) -> str:
    """A JSON value's kind in words."""
    names: dict[type, str] = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "an empty text" if value == "" else "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "something else")
