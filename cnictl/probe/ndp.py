"""Whether an address answers neighbour solicitations right now: what `arp` asks for IPv4 (RFC 4861, section 4.3)."""

import errno
import os
import socket
import struct

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.probe.hearing import heard

_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2
_OPTIONS = 24
"""Bytes of an advertisement before its options."""
_HOPS = 255  # neighbours discard what came through a router


def answers(address: str, link: str, source: str, wait: float = 0.3) -> bool:
    """Ask on `link`, from our address `source`, who has `address`; wait at most `wait` seconds.

    Raises OSError if the link is gone or has no such source.
    """
    with asked(address, link, source) as asking:
        return heard(asking, lambda message: is_answer(message, address), wait)


def asked(address: str, link: str, source: str) -> socket.socket:
    """A socket that has just asked on `link`, from our address `source`, who has `address`. Raises OSError."""
    target = socket.inet_pton(socket.AF_INET6, address)
    index = socket.if_nametoindex(link)
    with Netlink() as netlink:
        found = rtnetlink.get_link(netlink, link)
    if found is None or found.mac.count(":") != 5:
        number = errno.ENODEV if found is None else errno.EAFNOSUPPORT  # a link without Ethernet addresses
        raise OSError(number, os.strerror(number))
    mac = rtnetlink.parse_mac(found.mac)
    asking = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        if source:
            asking.bind((source, 0, 0, index))
        body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + target + bytes((_SOURCE_LINK_ADDRESS, 1)) + mac
        asking.sendto(body, (f"ff02::1:ff{target[13]:02x}:{target[14]:02x}{target[15]:02x}", 0, 0, index))
    except BaseException:
        asking.close()
        raise
    return asking


def is_answer(message: bytes, address: str) -> bool:
    """Whether an ICMPv6 message is a neighbour advertisement of `address`."""
    return (
        len(message) >= _OPTIONS
        and message[0] == _ADVERTISEMENT
        and message[8:24] == socket.inet_pton(socket.AF_INET6, address)
    )


def answering_mac(message: bytes, address: str) -> bytes:
    """The MAC that an ICMPv6 message says to have `address`; empty if it is no such answer (RFC 4861, section 4.4)."""
    if not is_answer(message, address):
        return b""
    offset = _OPTIONS
    while offset + 8 <= len(message):
        kind, units = message[offset], message[offset + 1]
        if kind == _TARGET_LINK_ADDRESS and units == 1:
            return message[offset + 2 : offset + 8]
        if not units:
            break
        offset += units * 8
    return b""
