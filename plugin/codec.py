"""Stands for the standard library's `encodings` while the interpreter starts: UTF-8, which is all that starting needs.

The library's own package, with `codecs` and some 300 aliases, is an eighth of what an empty interpreter takes to
start. It comes in place of this one as soon as anybody asks for more.
"""

import sys
from _codecs import register, utf_8_decode, utf_8_encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class Encoder:
    """For the text side of standard output and error (io.TextIOWrapper's encoder)."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors

    def encode(self, text: str, final: bool = False) -> bytes:  # noqa: ARG002
        """The bytes of `text`; UTF-8 keeps nothing back."""
        return utf_8_encode(text, self.errors)[0]

    def reset(self) -> None:
        """There is nothing to forget."""

    def setstate(self, state: object) -> None:
        """There is no state."""


class Decoder:
    """For the text side of standard input (io.TextIOWrapper's decoder)."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors
        self.rest = b""

    def decode(self, data: bytes, final: bool = False) -> str:
        """The text of `data`; a character's first bytes are kept for the next call."""
        data = self.rest + data
        text, used = utf_8_decode(data, self.errors, final)
        self.rest = data[used:]
        return text

    def reset(self) -> None:
        """Forget what was kept."""
        self.rest = b""

    def getstate(self) -> "tuple[bytes, int]":
        """What was kept."""
        return self.rest, 0

    def setstate(self, state: "tuple[bytes, int]") -> None:
        """Keep this."""
        self.rest = state[0]


class Utf8(tuple):  # type: ignore[type-arg]  # a subscript would be evaluated at each start
    """What `codecs.CodecInfo` is to the registry."""

    name = "utf-8"
    incrementalencoder = Encoder
    incrementaldecoder = Decoder
    _is_text_encoding = True


def decode(data: bytes, errors: str = "strict") -> "tuple[str, int]":
    """The text of `data`, whole."""
    return utf_8_decode(data, errors, True)


def search_function(name: str) -> "Any":
    """What the codec registry asks for each encoding it doesn't know yet."""
    if name in ("utf_8", "utf8", "utf-8"):
        return Utf8((utf_8_encode, decode, None, None))
    return _library().search_function(name)


def __getattr__(name: str) -> object:
    """What else the library's package has: `locale` asks for it, and that is loaded to run a program."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_library(), name)


def _library() -> "ModuleType":
    """The library's own package, from now on in this one's place."""
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
"""Where this one is found in place of the library's: by the time that is wanted, other folders may come before it."""

# modules of the library's package are found by its name in this one too
__path__.extend(f"{folder}/encodings" for folder in sys.path[1:])  # type: ignore[name-defined]  # noqa: F821
register(search_function)
