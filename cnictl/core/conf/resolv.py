"""The `dns` of a result: a configuration's own, or what resolv.conf(5) says where host-local's resolvConf names it."""

from posix import stat
from stat import S_ISREG

from cnictl.core import durable
from cnictl.core.conf import fields
from cnictl.core.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DNS_KEYS = frozenset(("nameservers", "domain", "search", "options"))


def read_dns(given: "dict[str, Any]") -> "dict[str, Any]":
    """A configuration's `dns`, checked: a runtime that can't read it in the result would lose the attachment.

    Raises CniError 7 (spec 1.1.0, section 1, "dns").
    """
    given = fields.spelled(given, _DNS_KEYS)
    fields.text(given, "domain", "dns.domain")
    for key in ("nameservers", "search", "options"):
        for place, one in enumerate(fields.members(given, key, f"dns.{key}")):
            if not isinstance(one, str):
                raise CniError(INVALID_CONFIG, f"dns.{key}[{place}]: {fields.show(one)} is no text")
    return {key: value for key, value in given.items() if value is not None}


def read_resolv_conf(path: str) -> "dict[str, Any]":
    """Its nameservers, domain, search list and options. Raises CniError 7 if it can't be read, or is no file."""
    try:
        if not S_ISREG(stat(path).st_mode):  # a pipe would hold us, a device never end
            raise ValueError("it is no regular file")
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
