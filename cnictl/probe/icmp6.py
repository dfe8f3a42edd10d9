"""Translate ICMPv6 types and codes (RFC 4443) to those of ICMP (RFC 792), so that checks and causes use one set."""

import socket
import struct

NEXT_HEADER = 58
HEADER_BYTES = 40
"""Length of an IPv6 header without extensions, which our requests have."""
ECHO_REQUEST6, ECHO_REPLY6 = 128, 129
_UNREACHABLE6, _TOO_BIG6, _TIME_EXCEEDED6, _REDIRECT6 = 1, 2, 3, 137
_ECHO_REPLY, _UNREACHABLE, _REDIRECT, _ECHO_REQUEST, _TIME_EXCEEDED = 0, 3, 5, 8, 11
_TOO_BIG = 4
"""ICMP's code of "unreachable" for a packet that is too big; ICMPv6 has its own type for it."""
_CODES = {0: 0, 1: 13, 3: 1, 4: 3, 5: 13, 6: 9}
"""Codes of "unreachable": no route, prohibited, address, port, source policy, reject route."""
_TYPES = {
    ECHO_REQUEST6: _ECHO_REQUEST,
    ECHO_REPLY6: _ECHO_REPLY,
    _TIME_EXCEEDED6: _TIME_EXCEEDED,
    _REDIRECT6: _REDIRECT,
}


def as_icmp(kind: int, code: int) -> tuple[int, int]:
    """Return the ICMP type and code with the same meaning; type -1 if ICMP has none, as for neighbour discovery."""
    if kind == _UNREACHABLE6:
        return _UNREACHABLE, _CODES.get(code, code)
    if kind == _TOO_BIG6:
        return _UNREACHABLE, _TOO_BIG
    return _TYPES.get(kind, -1), code


def addresses(packet: bytes) -> tuple[str, str]:
    """Return source and destination of an IPv6 packet."""
    return socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40])


def pseudo_header(addresses: bytes, length: int) -> bytes:
    """Return the pseudo-header that a message's checksum also covers (RFC 8200, section 8.1).

    `addresses`: source and destination; `length`: the message's, in bytes.
    """
    return addresses + struct.pack("!II", length, NEXT_HEADER)
