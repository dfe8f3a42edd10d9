"""Whether an address answers neighbour solicitations right now: what `arp` asks for IPv4 (RFC 4861, section 4.3)."""

import socket
import struct

from cnictl.core import rtnetlink
from cnictl.core.rtnetlink import Netlink
from cnictl.probe.hearing import heard

_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK_ADDRESS = 1
_HOPS = 255  # neighbours discard what came through a router


def answers(address: str, link: str, source: str, wait: float = 0.3) -> bool:
    """Ask on `link`, from our address `source`, who has `address`; wait at most `wait` seconds.

    Raises OSError if the link is gone or has no such source.
    """
    target = socket.inet_pton(socket.AF_INET6, address)
    index = socket.if_nametoindex(link)
    with Netlink() as netlink:
        found = rtnetlink.get_link(netlink, link)
    mac = rtnetlink.parse_mac(found.mac if found is not None else "")
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as asking:
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        if source:
            asking.bind((source, 0, 0, index))
        body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + target + bytes((_SOURCE_LINK_ADDRESS, 1)) + mac
        asking.sendto(body, (f"ff02::1:ff{target[13]:02x}:{target[14]:02x}{target[15]:02x}", 0, 0, index))
        return heard(asking, lambda message: is_answer(message, address), wait)


def is_answer(message: bytes, address: str) -> bool:
    """Whether an ICMPv6 message is a neighbour advertisement of `address`."""
    return (
        len(message) >= 24
        and message[0] == _ADVERTISEMENT
        and message[8:24] == socket.inet_pton(socket.AF_INET6, address)
    )
