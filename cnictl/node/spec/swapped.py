"""Recognize arguments in the wrong order, and return them in the right one. Pure."""

from cnictl.core.cidr import AddressError, Cidr, format_address, parse_address, parse_interface
from cnictl.node.spec.node_spec import Peer


def peer(pod_cidr: str, via: str) -> Peer | None:
    """Return the right peer if its address and its pod CIDR are swapped; else None.

    `10.0.10.51%eth0` and a pod CIDR with host bits count too.
    """
    address, _, link = pod_cidr.partition("%")
    cidr = _cidr(via)
    if cidr is None or "/" in address:
        return None
    try:
        packed = parse_address(address)
    except AddressError:
        return None
    # 10.244.1.0 and 10.0.10.51/24: only the prefix length is in the wrong place
    if cidr != cidr.network and Cidr(packed, cidr.prefix) == Cidr(packed, cidr.prefix).network:
        return None
    return Peer(str(cidr.network), format_address(packed), link)


def _cidr(text: str) -> Cidr | None:
    if "/" not in text:
        return None
    try:
        return parse_interface(text)
    except AddressError:
        return None


def is_cidr(text: str) -> bool:
    """Return whether a text is a CIDR, or an address with a prefix length."""
    return _cidr(text) is not None


def is_name(text: str) -> bool:
    """Return whether a text is more like a name than like a mistyped address or CIDR."""
    return text[:1].isalpha() and not any(letter in text for letter in ":/")
