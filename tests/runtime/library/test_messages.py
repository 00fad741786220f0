"""What a decoding process may say, and what becomes of everything else that it says."""

from __future__ import annotations

import json
import math
import pickle
import unicodedata
from datetime import datetime
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qvl_local.runtime.library import messages
from qvl_local.runtime.library.decode import Description, Piece
from qvl_local.runtime.library.messages import (
    LARGEST_BODY,
    LARGEST_HEADER,
    Beat,
    Done,
    Failed,
    Message,
    MessageError,
    Part,
    Ready,
    read_message,
    write_message,
)
from qvl_local.runtime.library.records import MediaInfo
from qvl_local.runtime.model.video import VideoFrames

PHOTO = {"is": "piece", "t0_ms": 0, "t1_ms": 0, "shape": [2, 2, 3], "times_s": None, "strip": None}
INFO: dict[str, Any] = {"kind": "photo", "width": 2, "height": 2}
DESCRIPTION = {"is": "description", "info": INFO, "thumbnail": 4}
FILM = {**PHOTO, "shape": [2, 2, 2, 3], "times_s": [0.0, 0.5], "strip": 4}


def passed(message: Message) -> Any:
    pipe = BytesIO()
    write_message(pipe, message)
    pipe.seek(0)
    answer = read_message(pipe)
    assert pipe.read() == b""
    return answer


def wire(header: object, body: bytes = b"") -> BytesIO:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return BytesIO(len(text).to_bytes(8, "little") + len(body).to_bytes(8, "little") + text + body)


@pytest.mark.parametrize(
    "message", [Ready(), Beat(), Done(), Failed("torn"), Failed("caf\udce9: denied", is_access=True)]
)
def test_small_messages_pass(message: Message) -> None:
    assert passed(message) == message


def test_descriptions_pass() -> None:
    taken = datetime(2024, 5, 3, 18, 30, 1, 250_000)
    info = MediaInfo("video", 640, 480, taken, 12.25, -33.5, 151.25, "Canon EOS \udcff")
    assert passed(Part(Description(info, b"jpeg"))) == Part(Description(info, b"jpeg"))
    bare = Description(MediaInfo("photo", 1, 1), b"")
    assert passed(Part(bare)) == Part(bare)


def test_pixels_pass() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    photo = passed(Part(Piece(0, 0, pixels[0][:, ::2]))).value
    assert np.array_equal(photo.pixels, pixels[0][:, ::2])
    assert photo.strip is None
    film = Piece(2000, 4500, VideoFrames(pixels, np.array([0, 0.1, 0.2, 0.3, 0.4])), b"strip")
    answer = passed(Part(film)).value
    assert (answer.t0_ms, answer.t1_ms, answer.strip) == (2000, 4500, b"strip")
    assert np.array_equal(answer.pixels.frames, pixels)
    assert answer.pixels.times_s.tolist() == [0, 0.1, 0.2, 0.3, 0.4]


def test_what_the_hostile_messages_are_made_of_is_sound() -> None:
    assert isinstance(read_message(wire(PHOTO, bytes(12))), Part)
    assert isinstance(read_message(wire(FILM, bytes(28))), Part)
    assert isinstance(read_message(wire(DESCRIPTION, bytes(4))), Part)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"is": "shell"}, b""),
        ({"is": ["done"]}, b""),
        ({}, b""),
        ([], b""),
        (b"null", b""),
        (b"\xff\xfe", b""),
        (b"[" * 100_000, b""),
        (b'{"is": "done"', b""),
        ({"is": "done"}, b"left over"),
        ({"is": "failed", "reason": "x" * 100_000, "is_access": False}, b""),
        ({"is": "failed", "reason": "x", "is_access": 1}, b""),
        # Pixels: too few bytes, too many, sizes that are none, another number of colours or axes.
        (PHOTO, bytes(11)),
        (PHOTO, bytes(13)),
        ({**PHOTO, "shape": [2, 2, 4]}, bytes(16)),
        ({**PHOTO, "shape": [2, 6]}, bytes(12)),
        ({**PHOTO, "shape": [0, 2, 3]}, b""),
        ({**PHOTO, "shape": [-2, -2, 3]}, bytes(12)),
        ({**PHOTO, "shape": [2.0, 2, 3]}, bytes(12)),
        ({**PHOTO, "shape": [True, 4, 3]}, bytes(12)),
        ({**PHOTO, "shape": [2**62, 2**62, 3]}, bytes(12)),
        ({**PHOTO, "shape": None}, bytes(12)),
        ({**PHOTO, "t0_ms": 5}, bytes(12)),
        ({**PHOTO, "t1_ms": 10**30}, bytes(12)),
        ({**PHOTO, "t0_ms": -1}, bytes(12)),
        ({**PHOTO, "strip": -12}, bytes(12)),
        ({**PHOTO, "strip": 2**63}, bytes(12)),
        ({**FILM, "times_s": [0.0]}, bytes(28)),
        ({**FILM, "times_s": [0.0, math.nan]}, bytes(28)),
        ({**FILM, "times_s": [0.0, "1"]}, bytes(28)),
        ({**FILM, "times_s": [0.0, 10**400]}, bytes(28)),
        ({**FILM, "times_s": {}}, bytes(28)),
        ({**FILM, "shape": [2, 2, 3]}, bytes(28)),
        # Descriptions that the database would choke on.
        ({**DESCRIPTION, "info": None}, bytes(4)),
        ({**DESCRIPTION, "info": {**INFO, "kind": "program"}}, bytes(4)),
        ({**DESCRIPTION, "info": {**INFO, "width": 2**70}}, bytes(4)),
        ({**DESCRIPTION, "info": {**INFO, "width": "2"}}, bytes(4)),
        ({**DESCRIPTION, "info": {**INFO, "latitude": math.inf}}, bytes(4)),
        ({**DESCRIPTION, "info": {**INFO, "duration_s": [1]}}, bytes(4)),
        ({**DESCRIPTION, "info": {**INFO, "camera": {"a": 1}}}, bytes(4)),
        ({**DESCRIPTION, "info": {**INFO, "taken_at": "yesterday"}}, bytes(4)),
        ({**DESCRIPTION, "info": {**INFO, "taken_at": "2024-05-03T18:30:00+02:00"}}, bytes(4)),
    ],
)
def test_a_message_that_is_none_is_refused(header: object, body: bytes) -> None:
    with pytest.raises(MessageError):
        read_message(wire(header, body))


@pytest.mark.parametrize("lengths", [(LARGEST_HEADER + 1, 0), (2, LARGEST_BODY + 1), (2**63, 2**63)])
def test_a_huge_message_is_refused_before_it_is_read(lengths: tuple[int, int]) -> None:
    pipe = BytesIO(b"".join(length.to_bytes(8, "little") for length in lengths) + b"x" * 100)
    with pytest.raises(MessageError):
        read_message(pipe)
    assert pipe.tell() == 16


class Attack:
    """Runs when it is unpickled."""

    ran = False

    def __reduce__(self) -> Any:
        return setattr, (Attack, "ran", True)


def test_no_answer_is_ever_unpickled() -> None:
    attack = pickle.dumps(Attack())
    pickle.loads(attack)
    assert Attack.ran
    Attack.ran = False
    for pipe in (wire(attack), wire(PHOTO, attack), BytesIO(len(attack).to_bytes(8, "little") + attack)):
        with pytest.raises(MessageError):
            read_message(pipe)
    assert not Attack.ran


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_none_or_refused(content: bytes) -> None:
    for pipe in (BytesIO(content), wire(content), wire(PHOTO, content)):
        try:
            message = read_message(pipe)
        except MessageError:
            continue
        assert message is None or isinstance(message, Part)


FAILED = {"is": "failed", "reason": "torn", "is_access": False}
FIELDS = sorted({*PHOTO, *DESCRIPTION, *FAILED})
INFO_FIELDS = ["kind", "width", "height", "taken_at", "duration_s", "latitude", "longitude", "camera"]
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["piece", "description", "failed", "done", "photo", "video", "2024-05-03", 0, 1, 2, 3, 4]
    )
    | st.sampled_from([2**31, 2**53, 2**63, 2**70, -1, 90.5, 180, [2, 2, 3], [2, 2, 2, 3], [0.0, 0.5]]),
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), values, max_size=3)
    ),
    max_leaves=5,
)


@given(
    header=st.sampled_from([PHOTO, FILM, DESCRIPTION, FAILED, {"is": "ready"}, {"is": "beat"}]),
    changed=st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=2),
    described=st.dictionaries(st.sampled_from(INFO_FIELDS), ODD, max_size=2),
    body=st.sampled_from([0, 4, 12, 16, 24, 28]).map(bytes) | st.binary(max_size=30),
)
def test_odd_fields_are_refused_or_harmless(
    header: dict[str, Any], changed: dict[str, Any], described: dict[str, Any], body: bytes
) -> None:
    fields = {**header, **changed}
    if isinstance(fields.get("info"), dict):
        fields["info"] = {**fields["info"], **described}
    try:
        message = read_message(wire(fields, body))
    except MessageError:
        return
    match message:
        case Part(value=Piece() as piece):
            assert 0 <= piece.t0_ms <= piece.t1_ms < 2**63
            film = piece.pixels
            pixels = film.frames if isinstance(film, VideoFrames) else film
            assert pixels.dtype == np.uint8
            assert pixels.shape[-1] == 3
            assert pixels.size + len(piece.strip or b"") == len(body)
            if isinstance(film, VideoFrames):
                assert np.isfinite(film.times_s).all()
        case Part(value=Description(info=info, thumbnail=thumbnail)):
            assert info.kind in ("photo", "video")
            assert 0 <= info.width < 2**63
            assert 0 <= info.height < 2**63
            assert info.taken_at is None or info.taken_at.tzinfo is None
            for value in (info.duration_s, info.latitude, info.longitude):
                assert value is None or math.isfinite(value)
            assert info.camera is None or is_line(info.camera)
            assert thumbnail == body
        case Failed(reason=reason, is_access=is_access):
            assert is_line(reason)
            assert isinstance(is_access, bool)
        case _:
            assert isinstance(message, Ready | Beat | Done)


def is_line(text: str) -> bool:
    return not {unicodedata.category(character) for character in text} & {"Cc", "Cf", "Zl", "Zp"}


def test_a_reason_is_one_line_without_control_characters() -> None:
    reason = "torn\n\x1b[31mred\x00\x85at\u2028byte  9\r\x9b\u202e "
    assert passed(Failed(reason)) == Failed("torn [31mred at byte 9")
    info = MediaInfo("photo", 1, 1, camera="Canon\x1b]0;\n EOS")
    assert passed(Part(Description(info, b""))).value.info.camera == "Canon]0; EOS"


@pytest.mark.parametrize("message", [Part("a text"), Part(None), "done", None])
def test_what_is_no_message_is_not_sent(message: Any) -> None:
    pipe = BytesIO()
    with pytest.raises(ValueError, match=r"a (str|NoneType) is nothing that can be handed over"):
        write_message(pipe, message)
    assert pipe.getvalue() == b""


def test_a_number_that_is_none_is_not_sent() -> None:
    pipe = BytesIO()
    info = MediaInfo("video", 1, 1, duration_s=math.nan)
    with pytest.raises(ValueError, match="what was decoded holds a number that is none"):
        write_message(pipe, Part(Description(info, b"")))
    assert pipe.getvalue() == b""


def test_small_pictures_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((1, 1, 3), np.uint8)
    monkeypatch.setattr(messages, "LARGEST_PICTURE", 4)
    for part in (Description(MediaInfo("photo", 1, 1), bytes(5)), Piece(0, 0, pixels, bytes(5))):
        with pytest.raises(ValueError, match="too large to be handed over"):
            write_message(BytesIO(), Part(part))
    for header, body in ((DESCRIPTION, bytes(4)), ({**PHOTO, "strip": 4}, bytes(16))):
        assert isinstance(read_message(wire(header, body)), Part)
    for header, body in (({**DESCRIPTION, "thumbnail": 5}, bytes(5)), ({**PHOTO, "strip": 5}, bytes(17))):
        with pytest.raises(MessageError):
            read_message(wire(header, body))


def test_what_is_too_large_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "LARGEST_BODY", 1000)
    pipe = BytesIO()
    with pytest.raises(ValueError, match="too large"):
        write_message(pipe, Part(Description(MediaInfo("photo", 1, 1), bytes(1001))))
    assert pipe.getvalue() == b""
