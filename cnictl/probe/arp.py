"""Send ARP requests for an address (RFC 826) and read the answers. `wire` and `neighbours` wait for them."""

import socket
import struct

ETH_P_ARP = 0x0806
_REQUEST, _REPLY = 1, 2
_BODY = struct.Struct("!HHBBH6s4s6s4s")
_ARPHRD_ETHER, _ETH_P_IP = 1, 0x0800


def asked(address: str, link: str, source: str) -> socket.socket:
    """Send an ARP request for `address` on `link` from our address `source`; return the socket. Raises OSError."""
    asking = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
    try:
        asking.bind((link, ETH_P_ARP))
        asking.send(request(address, source, asking.getsockname()[4]))
    except BaseException:
        asking.close()
        raise
    return asking


def request(address: str, source: str, mac: bytes) -> bytes:
    """Return the Ethernet frame that asks for `address`, from our address `source` and our MAC."""
    body = _BODY.pack(
        _ARPHRD_ETHER, _ETH_P_IP, 6, 4, _REQUEST, mac, socket.inet_aton(source), bytes(6), socket.inet_aton(address),
    )  # fmt: skip
    return b"\xff" * 6 + mac + struct.pack("!H", ETH_P_ARP) + body


def sender(frame: bytes) -> str:
    """Return the sender's address of an ARP reply; empty if the Ethernet frame is not an ARP reply."""
    if len(frame) < 14 + _BODY.size:
        return ""
    fields = _BODY.unpack_from(frame, 14)
    return socket.inet_ntoa(fields[6]) if fields[4] == _REPLY else ""


def answering_mac(frame: bytes, address: str) -> bytes:
    """Return the MAC in an ARP reply from `address`; empty if the frame is not such a reply."""
    return frame[22:28] if sender(frame) == socket.inet_ntoa(socket.inet_aton(address)) else b""
