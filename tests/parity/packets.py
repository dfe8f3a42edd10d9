"""Send datagrams and read which source the receiver sees, and send single frames.

Client and server are sockets of this process in two namespaces, so nothing must be started or waited for. A probe
lasts until its bound only if nothing arrives.
"""

import select
import socket
import time

from tests.parity.places import Place, inside

NONE = "nothing arrives"
_PORT = 5022
_ETHERTYPE = 0x88B5  # IEEE 802, for local experiments
_BOUND = {4: 1.3, 6: 3.6}
"""Seconds by IP version: ARP and neighbour solicitation repeat each second; an address may be tentative for two."""


def where(place: Place, name: str) -> str:
    """Return the path of the namespace of that name; the host's for an empty name."""
    return place.pod_netns(name) if name else place.netns


def at(place: Place, name: str, family: int) -> socket.socket:
    """Return a datagram socket in the namespace of that name."""
    with inside(where(place, name)):
        return socket.socket(family, socket.SOCK_DGRAM)


def source_seen(place: Place, sender: str, receiver: str, address: str, bound: float = 0.0) -> str:
    """Return the source address that `receiver` (a namespace's name; empty: the host) sees on a datagram of `sender`.

    The answer must come back too. Return the error if the sender can't send.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with at(place, receiver, family) as server, at(place, sender, family) as client:
        try:
            server.bind((address, _PORT))
        except OSError:
            # a tentative address can't be bound: listen on all addresses instead
            server.bind(("", _PORT))
        limit = bound or _BOUND[6 if family == socket.AF_INET6 else 4]
        try:
            client.sendto(b"who am I?", (address, _PORT))
        except OSError as error:
            return error.strerror or str(error)
        if not select.select([server], [], [], limit)[0]:
            return NONE
        _, source = server.recvfrom(64)
        server.sendto(b"you", source)
        if not select.select([client], [], [], limit)[0]:
            return f"{source[0]}, but its answer is lost"
        return str(source[0])


class Frames:
    """Send raw frames from one link and look for them at another."""

    def __init__(self, place: Place, sender: tuple[str, str], receiver: tuple[str, str]) -> None:
        self.sent = _packet_socket(place, *sender)
        self.seen = _packet_socket(place, *receiver)

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *_: object) -> None:
        self.sent.close()
        self.seen.close()

    def send(self, mark: bytes, source: bytes, to: bytes = b"\xff" * 6) -> None:
        """Send a frame, which `mark` identifies."""
        self.sent.send(to + source + _ETHERTYPE.to_bytes(2, "big") + mark.ljust(46, b"\0"))

    def arrived(self, last: bytes, bound: float = 1.0) -> list[str]:
        """Return the marks in order of arrival, until `last` arrives or `bound` seconds have passed."""
        marks = []
        end = time.monotonic() + bound
        while select.select([self.seen], [], [], max(0.0, end - time.monotonic()))[0]:
            data, address = self.seen.recvfrom(2048)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            marks.append(data[14:].rstrip(b"\0").decode())
            if marks[-1] == last.decode():
                break
        return marks


def _packet_socket(place: Place, netns: str, ifname: str) -> socket.socket:
    with inside(where(place, netns)):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE))
        made.bind((ifname, _ETHERTYPE))
    return made
