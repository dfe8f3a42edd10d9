"""Read the kernel's neighbour table: which addresses answer on their link. Source: linux/neighbour.h."""

from collections.abc import Iterator
from struct import Struct

from cnictl.core.cidr import format_address, parse_address
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import AF_INET, AF_INET6, Netlink, attributes
from cnictl.core.netlink.rtnetlink import format_mac

_RTM_GETNEIGH = 30
_NDMSG = Struct("=BBHiHBB")  # family, pads, link index, state, flags, type
_NDA_DST, _NDA_LLADDR = 1, 2
_STATES = {1: "INCOMPLETE", 2: "REACHABLE", 4: "STALE", 8: "DELAY", 16: "PROBE", 32: "FAILED", 128: "PERMANENT"}


def state_of(address: str) -> str:
    """Return an address's state as `ip neighbour` names it; empty without an entry. Raises NetlinkError."""
    packed = parse_address(address)
    for _, state, attribute in _entries(AF_INET if len(packed) == 4 else AF_INET6):
        if state in _STATES and attribute.get(_NDA_DST) == packed:
            return _STATES[state]
    return ""


def in_words(address: str, link: str) -> str:
    """Return what the kernel knows of an address on a link, such as `52:54:00:12:34:56 REACHABLE`.

    Raises NetlinkError.
    """
    packed = parse_address(address)
    with Netlink() as netlink:
        device = rtnetlink.get_link(netlink, link)
    for index, state, entry in _entries(AF_INET if len(packed) == 4 else AF_INET6):
        if state in _STATES and entry.get(_NDA_DST) == packed and device is not None and index == device.index:
            mac = entry.get(_NDA_LLADDR, b"")
            return f"{format_mac(mac)} {_STATES[state]}" if mac else _STATES[state]
    return "no entry"


def addresses_at(mac: str) -> list[str]:
    """Return the IPv4 addresses that the table has at a MAC. Raises NetlinkError."""
    packed = bytes.fromhex(mac.replace(":", ""))
    return [format_address(entry[_NDA_DST]) for _, _, entry in _entries(AF_INET) if entry.get(_NDA_LLADDR) == packed]


def _entries(family: int) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """Yield each entry's link index, state and attributes."""
    with Netlink() as netlink:
        for payload in netlink.dump(_RTM_GETNEIGH, _NDMSG.pack(family, 0, 0, 0, 0, 0, 0)):
            _, _, _, index, state, _, _ = _NDMSG.unpack_from(payload)
            yield index, state, attributes(payload, _NDMSG.size)
