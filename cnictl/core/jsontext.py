"""Read and write JSON with the interpreter's C code alone: `import json` costs a plugin call 9 ms (it loads re).

If the private module is missing or has another shape, the public one does the same work, only slower.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

WHITESPACE = " \t\n\r"
DEEPEST = 100
"""Levels of nested arrays and objects. Deeper ones can be read, but not always be written again."""


class JsonError(ValueError):
    """A text is not a JSON document; the message says where."""


def _refuse_constant(name: str) -> object:
    raise JsonError(f"{name} is not a JSON value")


def _finite(number: str) -> float:
    value = float(number)
    if value - value != 0.0:
        raise JsonError(f"{number[:20]} is too large a number")
    return value


def _refuse_unknown(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


class _Context:
    """The attributes that the C scanner reads from its decoder (CPython Modules/_json.c, scanner_new)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


_scan: "Callable[[str, int], tuple[Any, int]]"
_encode: "Callable[[Any, int], Iterable[str]]"
try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Context)  # type: ignore[arg-type]
    _encode = make_encoder(None, _refuse_unknown, encode_basestring_ascii, None, ": ", ", ", False, False, False)
except (ImportError, TypeError, AttributeError):
    import json

    _decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
    _scan = _decoder.scan_once  # type: ignore[attr-defined]
    _encode = json.JSONEncoder(allow_nan=False).iterencode  # type: ignore[assignment]


def loads(data: bytes, replacing: bool = False) -> "Any":
    """Return the one JSON document in `data` (UTF-8, no byte order mark). Raises JsonError.

    With `replacing`, U+FFFD replaces bytes that are not UTF-8 and half surrogate pairs, as in Go's decoder.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if not replacing:
            raise JsonError(f"byte {error.start} is not UTF-8") from None
        text = data.decode("utf-8", "replace")
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
        raise JsonError(f"unexpected text after the document, at character {len(text) - len(rest)}")
    if "\\u" in text or text.count("{") + text.count("[") > DEEPEST:
        return _checked(value, replacing)
    return value


def _checked(value: "Any", replacing: bool) -> "Any":
    """Refuse a value that is nested too deeply, or has half a surrogate pair, which no system call accepts.

    Surrogates that represent a byte that is not UTF-8 are accepted: a path may have one, and ADD's result repeats
    paths.
    """
    level, halves = [value], False
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str):
                try:
                    item.encode("utf-8", "surrogateescape")
                except UnicodeEncodeError:
                    if not replacing:
                        raise JsonError("a string in it has half a surrogate pair") from None
                    halves = True
            elif isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
        if not inner:
            return _without_halves(value) if halves else value
        level = inner
    raise JsonError("it is nested too deeply")


def _without_halves(value: "Any") -> "Any":
    """Return the value with U+FFFD for each half of a surrogate pair; it has at most `DEEPEST` levels."""
    if isinstance(value, str):
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" else c for c in value)
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_halves(item) for item in value]
    return value


def _words(text: str) -> str:
    """Return what is wrong with `text`. The C scanner leaves the message to the public module (raise_errmsg)."""
    import json

    try:
        json.loads(text)
    except ValueError as error:
        return str(error)
    return "it is malformed"


def dumps(value: "Any") -> str:
    """Return `value` as one line of ASCII JSON."""
    return "".join(_encode(value, 0))
