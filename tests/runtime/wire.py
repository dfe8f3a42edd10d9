"""Encode and decode the part of the protocol buffers wire format that CRI messages use, without generated code.

https://protobuf.dev/programming-guides/encoding: a message is a sequence of (field number, wire type, value); here it
is a dict by field number. Wire type 0 is a varint (numbers, booleans), 2 a length and bytes (text, bytes, messages).
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "int | str | bytes | Mapping[int, Value] | Sequence[str | Mapping[int, Value]]"
Message: TypeAlias = Mapping[int, Value]


def encode(message: Message) -> bytes:
    """Return the message's bytes. A list makes a repeated field. As in proto3, zero and empty values are left out."""
    return b"".join(_field(number, value) for number, value in message.items())


class Fields(dict[int, list[int | bytes]]):
    """A decoded message: the values of each field number in order. Nested messages are still bytes."""

    def text(self, number: int) -> str:
        """Return the field's text; empty if the message lacks it."""
        return self.raw(number).decode()

    def raw(self, number: int) -> bytes:
        """Return the field's bytes; empty if the message lacks it."""
        value = self.get(number, [b""])[-1]
        assert isinstance(value, bytes)
        return value

    def number(self, number: int) -> int:
        """Return the field's number; 0 if the message lacks it."""
        value = self.get(number, [0])[-1]
        assert isinstance(value, int)
        return value

    def message(self, number: int) -> "Fields":
        """Return the message in the field; empty if the message lacks it."""
        return decode(self.raw(number))

    def messages(self, number: int) -> "list[Fields]":
        """Return all messages of a repeated field."""
        return [decode(value) for value in self.get(number, []) if isinstance(value, bytes)]


def decode(data: bytes) -> Fields:
    """Decode a message. Raises ValueError for a wire type that no CRI message uses."""
    fields = Fields()
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: int | bytes
        if key & 7 == 0:
            value, at = _varint(data, at)
        elif key & 7 == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"field {key >> 3} has wire type {key & 7}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value) if value else b""
    if isinstance(value, Mapping):
        value = encode(value)
    elif isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, bytes):
        return b"".join(_field(number, item) for item in value)
    return _number(number << 3 | 2) + _number(len(value)) + value if value else b""


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
