"""Send neighbour solicitations for an address and read the answers, as `arp` does for IPv4 (RFC 4861)."""

import errno
import os
import socket
import struct

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink

_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2
_OPTIONS = 24
"""Length of an advertisement without its options, in bytes."""
HOPS = 255  # a neighbour discards a lower value: such a packet came through a router


def asked(address: str, link: str, source: str) -> socket.socket:
    """Send a solicitation for `address` on `link` from our address `source`; return the socket. Raises OSError."""
    index = socket.if_nametoindex(link)
    with Netlink() as netlink:
        known_link = rtnetlink.get_link(netlink, link)
    if known_link is None or known_link.mac.count(":") != 5:
        number = errno.ENODEV if known_link is None else errno.EAFNOSUPPORT  # a link without Ethernet addresses
        raise OSError(number, os.strerror(number))
    mac = rtnetlink.parse_mac(known_link.mac)
    asking = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        if source:
            asking.bind((source, 0, 0, index))
        asking.sendto(solicitation(address, mac), (group(address), 0, 0, index))
    except BaseException:
        asking.close()
        raise
    return asking


def solicitation(address: str, mac: bytes) -> bytes:
    """Return the ICMPv6 message, without its checksum, that asks for `address` from our MAC."""
    target = socket.inet_pton(socket.AF_INET6, address)
    return struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + target + bytes((_SOURCE_LINK_ADDRESS, 1)) + mac


def group(address: str) -> str:
    """Return the solicited-node multicast address of `address` (RFC 4291, section 2.7.1)."""
    target = socket.inet_pton(socket.AF_INET6, address)
    return f"ff02::1:ff{target[13]:02x}:{target[14]:02x}{target[15]:02x}"


def target(message: bytes) -> str:
    """Return the target address of a neighbour advertisement; empty if the ICMPv6 message is not one."""
    if len(message) < _OPTIONS or message[0] != _ADVERTISEMENT:
        return ""
    return socket.inet_ntop(socket.AF_INET6, message[8:24])


def answering_mac(message: bytes, address: str) -> bytes:
    """Return the MAC in an advertisement of `address` (RFC 4861, section 4.4); empty for other messages."""
    if target(message) != socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address)):
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
