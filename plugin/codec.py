"""A replacement for the standard library's `encodings` with UTF-8 only, which is all that an interpreter starts with.

The library's own package, with `codecs` and some 300 aliases, takes an eighth of an empty interpreter's start. It
replaces this one as soon as anything else is needed.
"""

import sys
from _codecs import register, utf_8_decode, utf_8_encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class Encoder:
    """The encoder of standard output and error (for io.TextIOWrapper)."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors

    def encode(self, text: str, final: bool = False) -> bytes:  # noqa: ARG002
        """Return the bytes of `text`; UTF-8 keeps nothing for the next call."""
        return utf_8_encode(text, self.errors)[0]

    def reset(self) -> None:
        """Do nothing: there is no state."""

    def setstate(self, state: object) -> None:
        """Do nothing: there is no state."""


class Decoder:
    """The decoder of standard input (for io.TextIOWrapper)."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors
        self.rest = b""

    def decode(self, data: bytes, final: bool = False) -> str:
        """Return the text of `data`; the first bytes of an incomplete character are kept for the next call."""
        data = self.rest + data
        text, used = utf_8_decode(data, self.errors, final)
        self.rest = data[used:]
        return text

    def reset(self) -> None:
        """Drop the kept bytes."""
        self.rest = b""

    def getstate(self) -> "tuple[bytes, int]":
        """Return the kept bytes."""
        return self.rest, 0

    def setstate(self, state: "tuple[bytes, int]") -> None:
        """Set the kept bytes."""
        self.rest = state[0]


class Utf8(tuple):  # type: ignore[type-arg]  # a subscript would be evaluated at each start
    """A codec in the form that the registry expects, as `codecs.CodecInfo`."""

    name = "utf-8"
    incrementalencoder = Encoder
    incrementaldecoder = Decoder
    _is_text_encoding = True


def decode(data: bytes, errors: str = "strict") -> "tuple[str, int]":
    """Return the text of `data`, which must be complete."""
    return utf_8_decode(data, errors, True)


def search_function(name: str) -> "Any":
    """Return the codec of an encoding; the registry calls this for each new one."""
    if name in ("utf_8", "utf8", "utf-8"):
        return Utf8((utf_8_encode, decode, None, None))
    return _library().search_function(name)


def __getattr__(name: str) -> object:
    """Return any other attribute of the library's package: `locale` needs some, which is loaded to run a program."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_library(), name)


def _library() -> "ModuleType":
    """Return the library's own package, after putting it in this one's place."""
    present = sys.modules["encodings"]
    if present.__dict__ is not globals():
        return present
    paths = sys.path[:]
    sys.path[:] = [folder for folder in paths if folder != _HERE]
    del sys.modules["encodings"]
    try:
        import encodings
    finally:
        sys.path[:] = paths
    return encodings


_HERE = sys.path[0]
"""The folder of this package; later, other folders may precede it in sys.path."""

# let imports of `encodings.NAME` find the modules of the library's package
__path__.extend(f"{folder}/encodings" for folder in sys.path[1:])  # type: ignore[name-defined]  # noqa: F821
register(search_function)
