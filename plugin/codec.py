"""Stands for the standard library's `encodings` while the interpreter starts: UTF-8, which is all that starting needs.

The library's own package is three files with some 300 aliases, an eighth of what an empty interpreter takes to start.
It comes in place of this one as soon as another encoding is asked for.
"""

import codecs
import sys
from _codecs import utf_8_decode, utf_8_encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class IncrementalEncoder(codecs.IncrementalEncoder):
    """For the text side of standard output and error."""

    def encode(self, text: str, final: bool = False) -> bytes:  # noqa: ARG002
        """The bytes of `text`; UTF-8 keeps nothing back."""
        return utf_8_encode(text, self.errors)[0]


class IncrementalDecoder(codecs.BufferedIncrementalDecoder):
    """For the text side of standard input."""

    _buffer_decode = staticmethod(utf_8_decode)  # type: ignore[assignment]  # as the library's own has it


def decode(data: bytes, errors: str = "strict") -> tuple[str, int]:
    """The text of `data`, whole."""
    return utf_8_decode(data, errors, True)


def search_function(name: str) -> codecs.CodecInfo | None:
    """What the codec registry asks for each encoding it doesn't know yet."""
    if name in ("utf_8", "utf8"):
        return codecs.CodecInfo(
            utf_8_encode,
            decode,  # type: ignore[arg-type]  # bytes are all it is given
            incrementalencoder=IncrementalEncoder,
            incrementaldecoder=IncrementalDecoder,
            name="utf-8",
        )
    return _library().search_function(name)  # type: ignore[no-any-return]


def __getattr__(name: str) -> object:
    """What else the library's package has: `locale` asks for it, and that is loaded to run a program."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_library(), name)


def _library() -> "ModuleType":
    """The library's own package, from now on in this one's place."""
    here = sys.path.pop(0)  # where this one is found in place of the library's
    del sys.modules["encodings"]
    try:
        import encodings
    finally:
        sys.path.insert(0, here)
    return encodings


# modules of the library's package are found by its name in this one too
__path__.extend(f"{folder}/encodings" for folder in sys.path[1:])  # type: ignore[name-defined]  # noqa: F821
codecs.register(search_function)
