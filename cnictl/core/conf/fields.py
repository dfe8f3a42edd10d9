"""Read typed values of a configuration: each function returns the value, or raises CniError 7 naming key and value."""

from cnictl.core.cidr import AddressError, Cidr, parse_address
from cnictl.core.cidr import show as show
from cnictl.core.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RUNTIME_KEYS = frozenset(("ips", "mac", "ipRanges"))
"""The keys of `runtimeConfig` that are read: what a runtime requests for one pod. `args.cni` has the first two."""


def text(document: "dict[str, Any]", key: str, shown: str = "") -> str:
    """Return a string; empty if the key is missing or null. `shown` is the key's full name, here and below."""
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is not a string")
    return value


def flag(document: "dict[str, Any]", key: str, default: bool, shown: str = "") -> bool:
    """Return true or false; `default` if the key is missing or null."""
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is neither true nor false")
    return value


def number(document: "dict[str, Any]", key: str, least: int, most: int, shown: str = "") -> int | None:
    """Return a whole number from `least` to `most`; None if the key is missing or null."""
    value = document.get(key)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is not a number from {least} to {most}")
    return value


def member(document: "dict[str, Any]", key: str, shown: str = "") -> "dict[str, Any]":
    """Return an object; empty if the key is missing or null."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is not an object")
    return value


def members(document: "dict[str, Any]", key: str, shown: str = "") -> "list[Any]":
    """Return a list; empty if the key is missing or null."""
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise CniError(INVALID_CONFIG, f"{shown or key}: {show(value)} is not a list")
    return value


def texts(document: "dict[str, Any]", key: str, shown: str = "") -> list[str]:
    """Return one string or a list of them as a list, without empty ones."""
    value = document.get(key)
    listed = value if isinstance(value, list) else [value]
    for item in listed:
        if not (item is None or isinstance(item, str)):
            raise CniError(INVALID_CONFIG, f"{shown or key}: {show(item)} is not a string")
    return [item for item in listed if item]


def spelled(document: "dict[str, Any]", known: "frozenset[str]") -> "dict[str, Any]":
    """Return the document with its keys spelled as in `known`: the reference's JSON decoder ignores case.

    As there, the last of two spellings counts, unless it is null.
    """
    if known.issuperset(document):
        return document
    spelling = {key.lower(): key for key in known}
    respelled: dict[str, Any] = {}
    for key, value in document.items():
        meant = key if key in known else spelling.get(key.lower(), key)
        if value is not None or meant not in respelled:
            respelled[meant] = value
    return respelled


def cidr(written: str, subject: str, parse: "Callable[[str, str], Cidr]") -> Cidr:
    """Return a CIDR, read by one of `cnictl.core.cidr`'s parsers."""
    try:
        return parse(written, subject)
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None


def address(written: str, subject: str) -> bytes:
    """Return an address, packed."""
    try:
        return parse_address(written, subject)
    except AddressError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None
