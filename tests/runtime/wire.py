"""Protocol buffers' wire format, as much as the CRI's messages need: messages by field number, without generated code.

https://protobuf.dev/programming-guides/encoding: a message is a row of (field number, wire type, value); here a
dict of field numbers. Wire type 0 is a varint (numbers, booleans), 2 a length and bytes (text, bytes, messages).
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "int | str | bytes | Mapping[int, Value] | Sequence[str | Mapping[int, Value]]"
Message: TypeAlias = Mapping[int, Value]


def encode(message: Message) -> bytes:
    """The message's bytes. A list makes a repeated field; zero and empty values are left out, as proto3 does."""
    return b"".join(_field(number, value) for number, value in message.items())


class Fields(dict[int, list[int | bytes]]):
    """A decoded message: for each field number its values in order, not yet taken apart."""

    def text(self, number: int) -> str:
        """The field's text; empty if the message lacks it."""
        return self.raw(number).decode()

    def raw(self, number: int) -> bytes:
        """The field's bytes; empty if the message lacks it."""
        value = self.get(number, [b""])[-1]
        assert isinstance(value, bytes)
        return value

    def number(self, number: int) -> int:
        """The field's number; 0 if the message lacks it."""
        value = self.get(number, [0])[-1]
        assert isinstance(value, int)
        return value

    def message(self, number: int) -> "Fields":
        """The message in the field; an empty one if it is lacking."""
        return decode(self.raw(number))

    def messages(self, number: int) -> "list[Fields]":
        """All messages of a repeated field."""
        return [decode(value) for value in self.get(number, []) if isinstance(value, bytes)]


def decode(data: bytes) -> Fields:
    """Take a message apart. Raises ValueError on a wire type that no message of the CRI uses."""
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
        return b"".join(_field(number, one) for one in value)
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
