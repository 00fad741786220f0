"""Protobuf's wire format: fields written and read without a schema, as far as ONNX files need it.

A field is a key, number << 3 | kind, and then a varint, four or eight bytes, or a length and that many bytes
(protobuf.dev/programming-guides/encoding). What the numbers mean is the business of those who call.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def int_field(number: int, value: int) -> bytes:
    """A whole number; negative int64 values take ten bytes."""
    return _key(number, _VARINT) + _varint(value)


def float_field(number: int, value: float) -> bytes:
    """A float32."""
    return _key(number, _FIXED32) + struct.pack("<f", value)


def bytes_field(number: int, value: bytes | str) -> bytes:
    """Bytes, a text, or an encoded message."""
    data = value.encode() if isinstance(value, str) else value
    return _key(number, _BYTES) + _varint(len(data)) + data


def each_field(number: int, values: Iterable[bytes | str]) -> bytes:
    """A repeated field of bytes, texts or messages."""
    return b"".join(bytes_field(number, value) for value in values)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their values: an int for varints, the bytes of everything else.

    Raises:
        ValueError, IndexError: it is no protobuf, or cut short.
    """
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _read_varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, position = _read_varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("it is not a protobuf")
        if position + size > len(message):
            raise ValueError("it is cut short")
        yield key >> 3, message[position : position + size]
        position += size


def texts(message: bytes, wanted: int) -> tuple[str, ...]:
    """All strings of one field, in order."""
    return tuple(
        value.decode() for number, value in fields(message) if number == wanted and isinstance(value, bytes)
    )


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is not a protobuf")
