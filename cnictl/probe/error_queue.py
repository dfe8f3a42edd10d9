"""Read the ICMP error for a connection or a datagram: its sender and its meaning.

The kernel keeps it in the socket's error queue if the socket requested that. Sources: ip(7) and ipv6(7), IP_RECVERR;
linux/errqueue.h.
"""

import socket
import struct

from cnictl.probe import icmp6
from cnictl.probe.icmp import TOO_BIG, UNREACHABLE, Refusal

_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
_EXTENDED = struct.Struct("=IBBBBII")  # sock_extended_err: errno, origin, type, code, padding, info, data
_LOCAL, _ICMP, _ICMP6 = 1, 2, 3  # SO_EE_ORIGIN_*
_EMSGSIZE = 90


def ask_for_errors(asking: socket.socket) -> None:
    """Make the kernel keep ICMP errors for this socket."""
    if asking.family == socket.AF_INET6:
        asking.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        asking.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def reported(asking: socket.socket) -> Refusal | None:
    """Return the oldest error that waits in the queue, and remove it; None if there is none.

    `by` is empty if this host's kernel refused to send a packet larger than its link's MTU.
    """
    try:
        _, ancillary, _, _ = asking.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for _, _, data in ancillary:
        refusal = read_error(data)
        if refusal is not None:
            return refusal
    return None


def read_error(data: bytes) -> Refusal | None:
    """Return the error in a control message with a `sock_extended_err`; None if it is not an ICMP error."""
    if len(data) < _EXTENDED.size:
        return None
    number, origin, kind, code, _, info, _ = _EXTENDED.unpack_from(data)
    if origin == _LOCAL and number == _EMSGSIZE:
        return Refusal("", UNREACHABLE, TOO_BIG, info)
    if origin not in (_ICMP, _ICMP6) or len(data) < _EXTENDED.size + 16:
        return None
    if origin == _ICMP6:
        kind, code = icmp6.as_icmp(kind, code)
    too_big = (kind, code) == (UNREACHABLE, TOO_BIG)
    return Refusal(_sender(data[_EXTENDED.size :]), kind, code, info if too_big else 0)


def _sender(address: bytes) -> str:
    """Return the address in a `sockaddr_in` or `sockaddr_in6`."""
    (family,) = struct.unpack_from("=H", address)
    if family == socket.AF_INET6 and len(address) >= 24:
        return socket.inet_ntop(socket.AF_INET6, address[8:24])
    return socket.inet_ntop(socket.AF_INET, address[4:8]) if family == socket.AF_INET else ""
