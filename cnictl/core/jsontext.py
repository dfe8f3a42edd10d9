"""JSON through the interpreter's C scanner and encoder alone: `import json` costs a plugin call 9 ms (it loads re).

Where a private module is missing or has another shape, the public one does the same work, slower.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

WHITESPACE = " \t\n\r"


class JsonError(ValueError):
    """Text that is no JSON document; the message says where."""


def _refuse_constant(name: str) -> object:
    raise JsonError(f"{name} is not a JSON value")


def _refuse_unknown(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


class _Context:
    """What the C scanner asks of its decoder (CPython Modules/_json.c, scanner_new)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: "dict[str, str]" = {}


_scan: "Callable[[str, int], tuple[Any, int]]"
_encode: "Callable[[Any, int], Iterable[str]]"
try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Context)  # type: ignore[arg-type]
    _encode = make_encoder(None, _refuse_unknown, encode_basestring_ascii, None, ": ", ", ", False, False, False)
except (ImportError, TypeError, AttributeError):
    import json

    _scan = json.JSONDecoder(parse_constant=_refuse_constant).scan_once  # type: ignore[attr-defined]
    _encode = json.JSONEncoder(allow_nan=False).iterencode  # type: ignore[assignment]


def loads(data: bytes) -> "Any":
    """The one JSON document in `data` (UTF-8, no byte order mark). Raises JsonError."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise JsonError(f"byte {error.start} is not UTF-8") from None
    start = len(text) - len(text.lstrip(WHITESPACE))
    if start == len(text):
        raise JsonError("it is empty")
    try:
        value, end = _scan(text, start)
    except StopIteration as error:
        raise JsonError(f"no JSON value at character {error.value}") from None
    except RecursionError:
        raise JsonError("it is nested too deeply") from None
    except JsonError:
        raise
    except SystemError:
        raise JsonError(_words(text)) from None
    except ValueError as error:
        raise JsonError(str(error)) from None
    rest = text[end:].lstrip(WHITESPACE)
    if rest:
        raise JsonError(f"something follows the document at character {len(text) - len(rest)}")
    return value


def _words(text: str) -> str:
    """What is wrong with `text`: the C scanner can say it only where the public module is loaded (raise_errmsg)."""
    import json

    try:
        json.loads(text)
    except ValueError as error:
        return str(error)
    return "it is malformed"


def dumps(value: "Any") -> str:
    """`value` as one line of ASCII JSON."""
    return "".join(_encode(value, 0))
