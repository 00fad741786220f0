"""What travels between the indexing process and a decoding process.

A task goes to the decoder as a pickle: it comes from us. What comes back is another matter, since a hostile
file may have taken the decoder over. Answers are therefore plain: two lengths of 8 bytes, a JSON header, and
the raw bytes of pictures behind it. Every field of a header is checked for its type and range, every array
for its size, before anybody sees it; reading an answer runs nothing but this.
"""

from __future__ import annotations

import json
import math
import pickle
import unicodedata
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model.video import VideoFrames
from .decode import DecodeTask, Description, Piece
from .records import MediaInfo

LARGEST_HEADER = 2**20
LARGEST_BODY = 2**28
"""Bytes; a scene of 64 frames at the largest budget of the models is below 50 million."""

LARGEST_PICTURE = 2**26
"""Bytes of a thumbnail, or of a strip: a JPEG of such a scene. They are kept until their file is written."""

_LARGEST_TEXT = 10_000
_LARGEST_SIDE = 2**31
_LARGEST_MS = 2**53
_UNSHOWN = ("Cc", "Cf")


class MessageError(Exception):
    """What came from a decoding process is no message: it does not work for us any more."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started and waits for a task."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The task is being worked on; there is nothing to hand over yet."""


@dataclass(frozen=True, slots=True)
class Part:
    """One value that a task yielded."""

    value: Piece | Description


@dataclass(frozen=True, slots=True)
class Done:
    """The task has yielded everything."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task cannot be done; `reason` says why in one line.

    `is_access`: the system refused the file, so that trying again may end differently.
    """

    reason: str
    is_access: bool = False


Message = Ready | Beat | Part | Done | Failed


def write_task(file: BinaryIO, task: DecodeTask) -> None:
    """Give a decoding process a task, and flush."""
    body = pickle.dumps(task, protocol=5)
    file.write(len(body).to_bytes(8, "little"))
    file.write(body)
    file.flush()


def read_task(file: BinaryIO) -> Any:
    """The next task, in the decoding process; None when the other side is gone."""
    head = _read(file, 8)
    body = None if head is None else _read(file, int.from_bytes(head, "little"))
    return None if body is None else pickle.loads(body)


def write_message(file: BinaryIO, message: Message) -> None:
    """Write one message, in the decoding process, and flush.

    Raises:
        ValueError: it is larger than a message may be, or holds what none can hold; nothing was written.
    """
    header, blobs = _encoded(message)
    try:
        text = json.dumps(header, allow_nan=False).encode("ascii")
    except ValueError as error:
        raise ValueError("what was decoded holds a number that is none") from error
    count = sum(len(blob) for blob in blobs)
    if len(text) > LARGEST_HEADER or count > LARGEST_BODY:
        raise ValueError("what was decoded is too large to be handed over")
    file.write(len(text).to_bytes(8, "little") + count.to_bytes(8, "little") + text)
    for blob in blobs:
        file.write(blob)
    file.flush()


def read_message(file: BinaryIO) -> Message | None:
    """Read one message; None when the other side is gone.

    Raises:
        MessageError: what came is none.
    """
    lengths = _read(file, 16)
    if lengths is None:
        return None
    header_bytes, body_bytes = (int.from_bytes(part, "little") for part in (lengths[:8], lengths[8:]))
    if header_bytes > LARGEST_HEADER or body_bytes > LARGEST_BODY:
        raise MessageError("a message larger than any")
    header, body = _read(file, header_bytes), _read(file, body_bytes)
    if header is None or body is None:
        return None
    try:
        fields = _Fields(json.loads(header), _Body(body))
        message = _decoded(fields)
    except (ValueError, RecursionError, InputError) as error:  # InputError: frames that are no video
        raise MessageError(str(error)) from error
    fields.body.check_end()
    return message


def _read(file: BinaryIO, count: int) -> bytes | None:
    try:
        body = file.read(count)
    except OSError:
        return None
    return body if len(body) == count else None


# Writing


def _encoded(message: Message) -> tuple[dict[str, Any], list[bytes | memoryview]]:
    match message:
        case Part(value=Piece() as piece):
            return _encoded_piece(piece)
        case Part(value=Description(info=info, thumbnail=thumbnail)):
            taken_at = None if info.taken_at is None else info.taken_at.isoformat()
            described = {**asdict(info), "taken_at": taken_at}
            return {"is": "description", "info": described, "thumbnail": _size(thumbnail)}, [thumbnail]
        case Failed(reason=reason, is_access=is_access):
            return {"is": "failed", "reason": reason[:_LARGEST_TEXT], "is_access": is_access}, []
        case Ready():
            return {"is": "ready"}, []
        case Beat():
            return {"is": "beat"}, []
        case Done():
            return {"is": "done"}, []
        case _:
            what = message.value if isinstance(message, Part) else message
            raise ValueError(f"a {type(what).__name__} is nothing that can be handed over")


def _encoded_piece(piece: Piece) -> tuple[dict[str, Any], list[bytes | memoryview]]:
    if isinstance(piece.pixels, VideoFrames):
        pixels, times_s = piece.pixels.frames, [float(time) for time in piece.pixels.times_s]
    else:
        pixels, times_s = piece.pixels, None
    strip = piece.strip
    header = {
        "is": "piece",
        "t0_ms": piece.t0_ms,
        "t1_ms": piece.t1_ms,
        "shape": list(pixels.shape),
        "times_s": times_s,
        "strip": None if strip is None else _size(strip),
    }
    blobs: list[bytes | memoryview] = [np.ascontiguousarray(pixels).data.cast("B")]
    return header, blobs if strip is None else [*blobs, strip]


def _size(picture: bytes) -> int:
    if len(picture) > LARGEST_PICTURE:
        raise ValueError("a small picture of it is too large to be handed over")
    return len(picture)


# Reading: nothing is believed


class _Body:
    """The raw bytes behind a header, taken from front to back, each once."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def take(self, count: int) -> memoryview:
        if count > len(self._content) - self._at:
            raise ValueError("more bytes are announced than there are")
        self._at += count
        return self._content[self._at - count : self._at]

    def check_end(self) -> None:
        if self._at != len(self._content):
            raise MessageError("there are more bytes than were announced")


class _Fields:
    """The fields of a JSON object, each asked for by its type and range. Raises ValueError for another."""

    def __init__(self, value: object, body: _Body) -> None:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        self._value = value
        self.body = body

    def object(self, name: str) -> _Fields:
        return _Fields(self._value.get(name), self.body)

    def whole(self, name: str, *, most: int, least: int = 0) -> int:
        value = self._value.get(name)
        # Not isinstance: True is an int to Python.
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name} is no whole number from {least} to {most}")
        return value

    def number(self, name: str, *, limit: float) -> float:
        return _number(self._value.get(name), name, limit)

    def numbers(self, name: str, *, limit: float) -> list[float]:
        value = self._value.get(name)
        if not isinstance(value, list):
            raise ValueError(f"{name} is no list")
        return [_number(entry, name, limit) for entry in value]

    def shape(self, name: str, *, axes: int) -> tuple[int, ...]:
        value = self._value.get(name)
        if not isinstance(value, list) or len(value) != axes:
            raise ValueError(f"{name} has not {axes} axes")
        if any(type(side) is not int or not 0 < side <= LARGEST_BODY for side in value):
            raise ValueError(f"{name} has a side that is none")
        return tuple(value)

    def text(self, name: str) -> str:
        value = self._value.get(name)
        if not isinstance(value, str) or len(value) > _LARGEST_TEXT:
            raise ValueError(f"{name} is no text, or too long")
        return value

    def line(self, name: str) -> str:
        """Text for lists and logs: one line, without control characters and what turns the direction."""
        shown = "".join(c for c in self.text(name) if c.isspace() or unicodedata.category(c) not in _UNSHOWN)
        return " ".join(shown.split())

    def flag(self, name: str) -> bool:
        value = self._value.get(name)
        if not isinstance(value, bool):
            raise ValueError(f"{name} is neither true nor false")
        return value

    def picture(self, name: str) -> bytes:
        return bytes(self.body.take(self.whole(name, most=LARGEST_PICTURE)))

    def has(self, name: str) -> bool:
        return self._value.get(name) is not None


def _number(value: object, name: str, limit: float) -> float:
    # Compared before it is converted: a whole number may be too large for a float; NaN is within nothing.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -limit <= value <= limit:
        raise ValueError(f"{name} is no number within {limit}")
    return float(value)


def _decoded(fields: _Fields) -> Message:
    match fields.text("is"):
        case "ready":
            return Ready()
        case "beat":
            return Beat()
        case "done":
            return Done()
        case "failed":
            return Failed(fields.line("reason"), fields.flag("is_access"))
        case "piece":
            return Part(_decoded_piece(fields))
        case "description":
            return Part(Description(_decoded_info(fields.object("info")), fields.picture("thumbnail")))
        case other:
            raise ValueError(f"there is no message called {other[:40]!r}")


def _decoded_piece(fields: _Fields) -> Piece:
    t0_ms = fields.whole("t0_ms", most=_LARGEST_MS)
    t1_ms = fields.whole("t1_ms", least=t0_ms, most=_LARGEST_MS)
    pixels: NDArray[np.uint8] | VideoFrames
    if fields.has("times_s"):
        times_s = fields.numbers("times_s", limit=_LARGEST_MS)
        pixels = VideoFrames(frames=_pixels(fields, axes=4), times_s=np.array(times_s, np.float64))
    else:
        pixels = _pixels(fields, axes=3)
    return Piece(t0_ms, t1_ms, pixels, fields.picture("strip") if fields.has("strip") else None)


def _pixels(fields: _Fields, *, axes: int) -> NDArray[np.uint8]:
    shape = fields.shape("shape", axes=axes)
    if shape[-1] != 3:
        raise ValueError("pixels have three colours")
    return np.frombuffer(fields.body.take(math.prod(shape)), np.uint8).reshape(shape)


def _decoded_info(fields: _Fields) -> MediaInfo:
    kind = fields.text("kind")
    if kind not in ("photo", "video"):
        raise ValueError("it is neither photo nor video")
    taken_at = datetime.fromisoformat(fields.text("taken_at")) if fields.has("taken_at") else None
    if taken_at is not None and taken_at.tzinfo is not None:
        raise ValueError("taken_at has a time zone")
    return MediaInfo(
        kind="photo" if kind == "photo" else "video",
        width=fields.whole("width", most=_LARGEST_SIDE),
        height=fields.whole("height", most=_LARGEST_SIDE),
        taken_at=taken_at,
        duration_s=fields.number("duration_s", limit=_LARGEST_MS) if fields.has("duration_s") else None,
        latitude=fields.number("latitude", limit=90) if fields.has("latitude") else None,
        longitude=fields.number("longitude", limit=180) if fields.has("longitude") else None,
        camera=fields.line("camera") if fields.has("camera") else None,
    )
