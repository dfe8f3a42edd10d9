"""A resolver's configuration (resolv.conf(5)) as the `dns` of a result: what host-local's resolvConf asks for."""

from cnictl.core import durable
from cnictl.core.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_resolv_conf(path: str) -> "dict[str, Any]":
    """Its nameservers, domain, search list and options. Raises CniError 7 if it can't be read."""
    try:
        text = durable.contents(path).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise CniError(
            INVALID_CONFIG, f"ipam.resolvConf: {path!r}: {getattr(error, 'strerror', None) or error}", "name a file"
        ) from None
    found: dict[str, Any] = {}
    for line in text.splitlines():
        word, *values = line.split() or [""]
        if not values or word.startswith(("#", ";")):
            continue
        if word == "nameserver":
            found.setdefault("nameservers", []).append(values[0])
        elif word == "domain":
            found["domain"] = values[0]
        elif word in ("search", "options"):
            found.setdefault(word, []).extend(values)
    return found
