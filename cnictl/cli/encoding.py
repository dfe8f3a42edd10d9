"""Set the encodings that `cnictl` reads and writes with, once when it starts.

File names and input are UTF-8, whatever the locale. Output has the terminal's encoding. A character that this encoding
lacks is printed in plain ASCII or as an escape, so that it never ends a command.
"""

import codecs
import sys
from io import TextIOWrapper

_FALLBACK = "cnictl"
"""Name of the error handler."""
_TERMINAL = "terminal"
"""Name of the interpreter's `-X` option that passes the terminal's encoding to a restarted interpreter."""

_PLAIN = {
    "…": "...", "→": "->", "←": "<-", "\u2013": "-", "\u2014": "--", "\u00d7": "x", "·": "-", "•": "*", "✔": "+",
    "✘": "X", "“": '"', "”": '"', "\u2018": "'", "\u2019": "'",
    "█": "#", "░": ".",
    **dict.fromkeys("─━┄┈╴╶╸╺═", "-"), **dict.fromkeys("│┃┆┊╷╹╻║", "|"),
}  # fmt: skip
"""Plain forms of characters that cnictl, and the libraries that draw tables and help, print."""


def is_utf8() -> bool:
    """Return whether this interpreter names files in UTF-8."""
    return _normal(sys.getfilesystemencoding()) == "utf-8"


def options() -> list[str]:
    """Return the options with which an interpreter names files in UTF-8 and prints as this one does."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return ["-X", "utf8", "-X", f"{_TERMINAL}={sys._xoptions.get(_TERMINAL, encoding)}"]


def make_lenient() -> None:
    """Make stdout and stderr print any text, whatever their encoding, and stdin read any bytes."""
    codecs.register_error(_FALLBACK, _substitute)
    given = sys._xoptions.get(_TERMINAL)
    for stream, errors in ((sys.stdout, _FALLBACK), (sys.stderr, _FALLBACK), (sys.stdin, "backslashreplace")):
        if isinstance(stream, TextIOWrapper):  # a test may replace the stream
            stream.reconfigure(encoding=given if isinstance(given, str) else None, errors=errors)


def can_encode(stream: object, text: str) -> bool:
    """Return whether a stream's encoding has every letter of a text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def _substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the replacement of characters that the encoding lacks, and the position after them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(letter: str) -> str:
    if letter in _PLAIN:
        return _PLAIN[letter]
    if "\u2500" <= letter <= "\u257f":
        return "+"  # a corner or a crossing of a table's lines
    return letter.encode("ascii", "backslashreplace").decode()


def _normal(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return name
