"""Open TCP connections, or send UDP datagrams, one by one, and return the outcome of each.

A TCP connection that opens is a reply; it is closed at once. A datagram needs an answer from the service: port 53 gets
a DNS query, other ports a few bytes that few services answer. Port unreachable from the target counts as an answer.
Sources: RFC 9293 (3.10.7.1), RFC 1122 (4.1.3.1).
"""

import errno
import os
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import dns, error_queue
from cnictl.probe.answer import REFUSED, REJECTED, REPLY, TOO_BIG, UNSENT, Answer
from cnictl.probe.echo_requests import first_link_mtu
from cnictl.probe.icmp import Refusal, forbid_fragments
from cnictl.probe.netns_thread import inside
from cnictl.probe.ports import TCP

UDP_HEADERS = {False: 28, True: 48}
"""Bytes of the IP and UDP headers, by whether the family is IPv6."""
_PAYLOAD = b"cnictl-ping"
_DNS_PORT = 53


@dataclass
class _Pending:
    """A request without an outcome so far."""

    socket: socket.socket
    sent_at: float


class PortRequests:
    """Connections or datagrams from the namespace at path `netns` (empty: our own) to a port of an address."""

    def __init__(self, protocol: str, netns: str, to: str, port: int, scope: str = "", size: int = 0) -> None:
        """`protocol` is `ports.TCP` or `ports.UDP`. `size`: bytes of UDP's IP packets, which stay unfragmented."""
        self.protocol, self._netns, self._to, self._port, self._scope = protocol, netns, to, port, scope
        self._ipv6, self._size = is_ipv6(to), size
        self._pending: dict[int, _Pending] = {}

    def send(self, sequence: int) -> Answer | None:
        """Open a connection or send a datagram (`Requests.send`)."""
        try:
            pending = inside(self._netns, self._socket)
        except OSError as error:  # so many requests wait that this process may open no more
            return Answer(sequence, UNSENT, words=error.strerror or "")
        error_queue.ask_for_errors(pending)
        if self._size:
            forbid_fragments(pending)
        self._pending[sequence] = _Pending(pending, time.monotonic())
        number = pending.connect_ex(self._place())
        if number not in (0, errno.EINPROGRESS):
            return self._ended(sequence, number)
        if self.protocol != TCP:
            try:
                pending.send(self._datagram(sequence))
            except OSError as error:
                return self._ended(sequence, error.errno or -1)
        return None

    def waiting(self) -> Iterable[tuple[socket.socket, int]]:
        """Return a socket for each open request (`Requests.waiting`)."""
        events = select.POLLOUT if self.protocol == TCP else select.POLLIN
        return [(pending.socket, events) for pending in self._pending.values()]

    def read(self) -> list[Answer]:
        """Return new answers (`Requests.read`)."""
        answers = [self._read_answer(sequence) for sequence in list(self._pending)]
        return [answer for answer in answers if answer is not None]

    def give_up(self, sequence: int) -> None:
        """Close the request's socket (`Requests.give_up`)."""
        self._pending.pop(sequence).socket.close()

    def close(self) -> None:
        """Close every socket."""
        for sequence in list(self._pending):
            self.give_up(sequence)

    def _socket(self) -> socket.socket:
        kind = socket.SOCK_STREAM if self.protocol == TCP else socket.SOCK_DGRAM
        return socket.socket(socket.AF_INET6 if self._ipv6 else socket.AF_INET, kind | socket.SOCK_NONBLOCK)

    def _place(self) -> tuple[str, int] | tuple[str, int, int, int]:
        if not self._scope:
            return self._to, self._port
        return self._to, self._port, 0, inside(self._netns, lambda: socket.if_nametoindex(self._scope))

    def _datagram(self, sequence: int) -> bytes:
        if self._size:
            return _PAYLOAD.ljust(self._size - UDP_HEADERS[self._ipv6], b"\0")
        return dns.query(".", dns.NS, sequence & 0xFFFF) if self._port == _DNS_PORT else _PAYLOAD

    def _read_answer(self, sequence: int) -> Answer | None:
        pending = self._pending[sequence]
        number = pending.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            if number == 0 and self.protocol == TCP:
                pending.socket.getpeername()  # raises ENOTCONN until it is connected
            elif number == 0:
                pending.socket.recv(512)
        except BlockingIOError:
            return self._if_reported(sequence)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return self._if_reported(sequence)
            number = error.errno or -1
        return self._ended(sequence, number)

    def _if_reported(self, sequence: int) -> Answer | None:
        """Return the answer for an ICMP error that does not end the connection or datagram; None if there is none."""
        refusal = error_queue.reported(self._pending[sequence].socket)
        if refusal is None:
            return None
        self._pending.pop(sequence).socket.close()
        return self._of_refusal(sequence, refusal, 0.0)

    def _ended(self, sequence: int, number: int) -> Answer:
        """Return the outcome of a request that ended with an error number; 0 is success."""
        pending = self._pending.pop(sequence)
        took = time.monotonic() - pending.sent_at
        refusal = error_queue.reported(pending.socket) if number else None
        pending.socket.close()
        if number == 0:
            return Answer(sequence, REPLY, took, self._to)
        if refusal is not None:
            return self._of_refusal(sequence, refusal, took)
        if number == errno.ECONNREFUSED:
            return Answer(sequence, REFUSED, took, self._to, "connection refused")
        if number == errno.EMSGSIZE:
            return Answer(sequence, TOO_BIG, mtu=first_link_mtu(self._netns, self._to))
        return Answer(sequence, UNSENT, words=os.strerror(number))

    def _of_refusal(self, sequence: int, refusal: Refusal, took: float) -> Answer:
        if refusal.too_big:
            mtu = refusal.mtu or (0 if refusal.by else first_link_mtu(self._netns, self._to))
            return Answer(sequence, TOO_BIG, 0.0, refusal.by, refusal.words, mtu)
        # a host resets a TCP connection to a closed port; only a packet filter reports port unreachable for it
        if refusal.no_port and refusal.by == self._to and self.protocol != TCP:
            return Answer(sequence, REFUSED, took, refusal.by, refusal.words)
        return Answer(sequence, REJECTED, 0.0, refusal.by, refusal.words)
