"""Read the kernel's neighbour table: which addresses answer on their link. Source: linux/neighbour.h."""

from struct import Struct

from cnictl.core.cidr import parse_address
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
    header = _NDMSG.pack(AF_INET if len(packed) == 4 else AF_INET6, 0, 0, 0, 0, 0, 0)
    with Netlink() as netlink:
        for payload in netlink.dump(_RTM_GETNEIGH, header):
            state = _NDMSG.unpack_from(payload)[4]
            if state in _STATES and attributes(payload, _NDMSG.size).get(_NDA_DST) == packed:
                return _STATES[state]
    return ""


def in_words(address: str, link: str) -> str:
    """Return what the kernel knows of an address on a link, such as `52:54:00:12:34:56 REACHABLE`.

    Raises NetlinkError.
    """
    packed = parse_address(address)
    header = _NDMSG.pack(AF_INET if len(packed) == 4 else AF_INET6, 0, 0, 0, 0, 0, 0)
    with Netlink() as netlink:
        device = rtnetlink.get_link(netlink, link)
        for payload in netlink.dump(_RTM_GETNEIGH, header):
            _, _, _, index, state, _, _ = _NDMSG.unpack_from(payload)
            parts = attributes(payload, _NDMSG.size)
            if state in _STATES and parts.get(_NDA_DST) == packed and device is not None and index == device.index:
                mac = parts.get(_NDA_LLADDR, b"")
                return f"{format_mac(mac)} {_STATES[state]}" if mac else _STATES[state]
    return "no entry"
