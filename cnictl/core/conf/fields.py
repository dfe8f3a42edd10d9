"""Typed readers of a configuration's keys: each returns the value or names key and value in a CniError 7."""

from cnictl.core.cidr import AddressError, Cidr, parse_address
from cnictl.core.cidr import show as show
from cnictl.core.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RUNTIME_KEYS = frozenset(("ips", "mac", "ipRanges"))
"""What a runtime may ask for one pod in `runtimeConfig`, and in `args.cni` but for the last, that is read here."""


def text(document: "dict[str, Any]", key: str, shown: str = "") -> str:
    """A text, empty where the key is missing or null. `shown` is the key's full name, here and below."""
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is no text")
    return value


def flag(document: "dict[str, Any]", key: str, default: bool, shown: str = "") -> bool:
    """True or false, `default` where the key is missing or null."""
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is neither true nor false")
    return value


def number(document: "dict[str, Any]", key: str, least: int, most: int, shown: str = "") -> int | None:
    """A whole number from `least` to `most`, None where the key is missing or null."""
    value = document.get(key)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is not a number from {least} to {most}")
    return value


def member(document: "dict[str, Any]", key: str, shown: str = "") -> "dict[str, Any]":
    """An object, empty where the key is missing or null."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is no object")
    return value


def members(document: "dict[str, Any]", key: str, shown: str = "") -> "list[Any]":
    """A list, empty where the key is missing or null."""
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is no list")
    return value


def texts(document: "dict[str, Any]", key: str, shown: str = "") -> list[str]:
    """One text or a list of them; an empty one counts as none."""
    value = document.get(key)
    listed = value if isinstance(value, list) else [value]
    for one in listed:
        if not (one is None or isinstance(one, str)):
            raise CniError(INVALID_CONFIG, f"{shown or key}: {show(one)} is no text")
    return [one for one in listed if one]


def spelled(document: "dict[str, Any]", known: "frozenset[str]") -> "dict[str, Any]":
    """The document with its keys as `known` spells them: the reference's JSON reader looks at no letter's case.

    As there the last of two spellings counts, unless it is null.
    """
    if known.issuperset(document):
        return document
    spelling = {key.lower(): key for key in known}
    found: dict[str, Any] = {}
    for key, value in document.items():
        meant = key if key in known else spelling.get(key.lower(), key)
        if value is not None or meant not in found:
            found[meant] = value
    return found


def cidr(written: str, what: str, parse: "Callable[[str, str], Cidr]") -> Cidr:
    """A CIDR as one of `cnictl.core.cidr`'s parsers takes it."""
    try:
        return parse(written, what)
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None


def address(written: str, what: str) -> bytes:
    """An address, packed."""
    try:
        return parse_address(written, what)
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None
