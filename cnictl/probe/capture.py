"""Capture our echo messages on the host's links: how far a request got, with which source, and whether a reply came.

The packet socket covers all links of the namespace (packet(7)); a kernel filter passes only ICMP and ICMPv6. It sees
outgoing packets after every NAT and firewall hook, and incoming packets before any hook.
"""

import ctypes
import socket
import struct
from dataclasses import dataclass

from cnictl.probe import icmp6
from cnictl.probe.icmp import ECHO_REPLY, ECHO_REQUEST, kind_of, token

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD  # linux/if_ether.h; only ETH_P_ALL sees outgoing packets
_PACKET_OUTGOING = 4  # linux/if_packet.h
_IS_ICMP = (
    (0x28, 0, 0, 0xFFFFF000),  # ldh [SKF_AD_OFF + SKF_AD_PROTOCOL], linux/filter.h
    (0x15, 0, 2, _ETH_P_IP),  # jeq
    (0x30, 0, 0, 9),  # ldb [9]: the IP header's protocol
    (0x15, 3, 4, 1),  # jeq #1
    (0x15, 0, 3, _ETH_P_IPV6),
    (0x30, 0, 0, 6),  # ldb [6]: IPv6's next header
    (0x15, 0, 1, icmp6.NEXT_HEADER),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


@dataclass(frozen=True)
class Sighting:
    """One of our echo messages, seen on one link."""

    link: str
    leaving: bool
    reply: bool
    source: str
    destination: str
    series: int


class Capture:
    """Collects sightings as soon as it is created. Read `sightings` when the pings are over."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL)
        )
        code = b"".join(struct.pack("HBBI", *step) for step in _IS_ICMP)
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HP", len(_IS_ICMP), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._seen: list[Sighting] = []

    def close(self) -> None:
        """Stop collecting. The sightings so far are kept."""
        self.sightings()
        self._socket.close()

    def sightings(self) -> list[Sighting]:
        """Return all sightings so far."""
        while self._socket.fileno() >= 0:
            try:
                packet, (link, _, kind, _, _) = self._socket.recvfrom(256)
            except BlockingIOError:
                break
            sighting = read_sighting(packet, link, kind == _PACKET_OUTGOING)
            if sighting is not None:
                self._seen.append(sighting)
        return self._seen


def read_sighting(packet: bytes, link: str, leaving: bool) -> Sighting | None:
    """Return an IP packet as a sighting; None if it is not one of our echo messages."""
    if len(packet) < 28:
        return None
    ipv6 = packet[0] >> 4 == 6
    message = packet[icmp6.HEADER_BYTES if ipv6 else (packet[0] & 15) * 4 :]
    ours = token(message)
    if ours is None or kind_of(message, ipv6)[0] not in (ECHO_REPLY, ECHO_REQUEST):
        return None
    source, destination = (
        icmp6.addresses(packet) if ipv6 else (socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]))
    )
    return Sighting(link, leaving, kind_of(message, ipv6)[0] == ECHO_REPLY, source, destination, ours[0])
