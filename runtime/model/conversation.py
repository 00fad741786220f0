"""Inputs in the form of chat messages, as qwen-vl-utils and transformers take them, turned into ours.

    [{"role": "user", "content": [{"type": "image", "image": "dog.jpg"}, {"type": "text", "text": "night"}]}]
    ->  {"image": ["dog.jpg"], "text": ["night"]}

A conversation, a single message, or its content alone. Parts are put in the order in which the models were
trained: videos, images, texts. Nothing is fetched from any network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import InputError

# What a video's part may say beside its frames; "sample_fps" is how many a second a list of them holds.
_OPTIONS = {"fps": "fps", "sample_fps": "fps", "max_frames": "max_frames"}
_KINDS = ("text", "image", "video", "image_url")
_ADDRESSES = ("http://", "https://", "data:")


def is_conversation(raw: Any) -> bool:
    """Whether an input is in the form of messages, or of parts of one."""
    if isinstance(raw, Mapping):
        return "content" in raw or "type" in raw
    return isinstance(raw, (list, tuple)) and bool(raw) and all(isinstance(one, Mapping) for one in raw)


def from_conversation(raw: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, name: str) -> dict[str, Any]:
    """The input that a conversation says, with the keys of `parse_request`.

    Args:
        raw: messages {"role", "content"}, one of them, or the parts of a content. The system's text is the
            instruction. Parts are {"type": "text", "text"}, {"type": "image", "image"} and
            {"type": "video", "video"}, the last with `fps`, `sample_fps` and `max_frames`.
        name: which input it is, in errors.

    Raises:
        InputError: another role, kind of part or option, or an address on a network.
    """
    made: dict[str, Any] = {"text": [], "image": [], "video": []}
    for role, content in _messages(raw, name):
        parts: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if isinstance(parts, Mapping):
            parts = [parts]
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, Mapping) for part in parts):
            raise InputError(f"{name}: a message's content must be a text or a list of parts.")
        if role == "system":
            made["instruction"] = _instruction(parts, name)
            continue
        for part in parts:
            _add(part, made, name)
    return {key: value for key, value in made.items() if value != []}


def _messages(raw: Any, name: str) -> Iterable[tuple[str, Any]]:
    """Pairs of role and content."""
    for one in [raw] if isinstance(raw, Mapping) else raw:
        if "content" not in one:
            yield "user", one
            continue
        role = one.get("role", "user")
        if role not in ("system", "user"):
            raise InputError(f"{name}: a message of the role {role!r} is nothing to embed. Leave it out.")
        yield role, one["content"]


def _instruction(parts: Sequence[Mapping[str, Any]], name: str) -> str:
    texts = [part.get("text") for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name}: the system's message, the instruction, must be text alone.")
    return "".join(str(text) for text in texts)


def _add(part: Mapping[str, Any], made: dict[str, Any], name: str) -> None:
    kind = part.get("type", next((key for key in _KINDS if key in part), None))
    if kind == "image_url":
        kind, address = "image", part.get("image_url")
        part = {"type": "image", "image": address.get("url") if isinstance(address, Mapping) else address}
    if kind not in ("text", "image", "video") or kind not in part:
        raise InputError(f"{name}: a part must hold a text, an image or a video, not {kind!r}.")
    for option, value in part.items():
        if option in ("type", kind) or value is None:
            continue
        if kind != "video" or option not in _OPTIONS:
            raise InputError(
                f"{name}: the option {option!r} of the {kind} is not taken: sizes are the model's, see "
                "PixelBudget. Or load it with qwen_vl_utils.process_vision_info and give what that returns."
            )
        ours = _OPTIONS[option]
        if made.setdefault(ours, value) != value:
            raise InputError(f"{name}: its videos ask for different {ours}. Make each an input of its own.")
    value = part[kind]
    if kind == "video" and isinstance(value, (list, tuple)):
        made[kind].append([_local(frame, name) for frame in value])
    else:
        made[kind].append(value if kind == "text" else _local(value, name))


def _local(value: Any, name: str) -> Any:
    """A path for the address of a file; what is no text passes as it is."""
    if not isinstance(value, str):
        return value
    if value.startswith("file://"):
        return unquote(urlsplit(value).path)
    if value.startswith(_ADDRESSES):
        raise InputError(
            f"{name}: {value[:40]!r} is an address, and nothing is fetched here. "
            "Give a path, or the picture itself."
        )
    return value
