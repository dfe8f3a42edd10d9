"""Read the `dns` of a result from the configuration, or from the resolv.conf(5) that `ipam.resolvConf` names."""

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
    """Check a configuration's `dns` and return it. Raises CniError 7 (spec 1.1.0, section 1, "dns").

    A runtime that can't read it in the result would lose the attachment.
    """
    given = fields.spelled(given, _DNS_KEYS)
    fields.text(given, "domain", "dns.domain")
    for key in ("nameservers", "search", "options"):
        for place, item in enumerate(fields.members(given, key, f"dns.{key}")):
            if not isinstance(item, str):
                raise CniError(INVALID_CONFIG, f"dns.{key}[{place}]: {fields.show(item)} is not a string")
    return {key: value for key, value in given.items() if value is not None}


def read_resolv_conf(path: str) -> "dict[str, Any]":
    """Return a file's nameservers, domain, search list and options. Raises CniError 7 if it can't be read."""
    try:
        if not S_ISREG(stat(path).st_mode):  # a pipe would block, a device never end
            raise ValueError("it is not a regular file")
        text = durable.contents(path).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise CniError(
            INVALID_CONFIG, f"ipam.resolvConf: {path!r}: {getattr(error, 'strerror', None) or error}", "name a file"
        ) from None
    dns: dict[str, Any] = {}
    for line in text.splitlines():
        word, *values = line.split() or [""]
        if not values or word.startswith(("#", ";")):
            continue
        if word == "nameserver":
            dns.setdefault("nameservers", []).append(values[0])
        elif word == "domain":
            dns["domain"] = values[0]
        elif word in ("search", "options"):
            dns.setdefault(word, []).extend(values)
    return dns
