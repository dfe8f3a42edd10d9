"""Send ICMP echo requests of any size one by one, and return the outcome of each."""

import errno
import os
import select
import socket
from collections.abc import Iterable

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.host import route_lookup
from cnictl.node.host.route_lookup import Packet
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import icmp
from cnictl.probe.answer import REJECTED, REPLY, TOO_BIG, UNSENT, Answer
from cnictl.probe.icmp import REDIRECT, Series, echo_socket
from cnictl.probe.netns_thread import inside


class EchoRequests:
    """Echo requests from the namespace at path `netns` (empty: our own) to an address."""

    def __init__(self, netns: str, to: str, scope: str = "", size: int = 0) -> None:
        """`scope`: the link of a link-local target. `size`: bytes of the IP packets, which are then not fragmented."""
        self._netns = netns
        self._socket = echo_socket(netns, is_ipv6(to), whole=bool(size))
        self._series = Series(self._socket, to, 0, scope=scope, size=size)
        self._reported: set[int] = set()
        self._refusals_read = 0

    def send(self, sequence: int) -> Answer | None:
        """Send a request (`Requests.send`)."""
        number = icmp.send(self._series, sequence)
        if number == errno.EMSGSIZE:
            return Answer(sequence, TOO_BIG, mtu=first_link_mtu(self._netns, self._series.to))
        return Answer(sequence, UNSENT, words=os.strerror(number)) if number else None

    def waiting(self) -> Iterable[tuple[socket.socket, int]]:
        """Return the one socket (`Requests.waiting`)."""
        return [(self._socket, select.POLLIN)]

    def read(self) -> list[Answer]:
        """Return new answers (`Requests.read`)."""
        series = self._series
        icmp.receive(self._socket, {series.number: series})
        answers = [
            Answer(sequence, REPLY, seconds, series.to)
            for sequence, seconds in series.rtts.items()
            if sequence not in self._reported
        ]
        self._reported.update(series.rtts)
        for refusal in series.refusals[self._refusals_read :]:
            if refusal.type != REDIRECT:
                state = TOO_BIG if refusal.too_big else REJECTED
                answers.append(Answer(refusal.sequence, state, 0.0, refusal.by, refusal.words, refusal.mtu, refusal))
        self._refusals_read = len(series.refusals)
        return answers

    def give_up(self, sequence: int) -> None:
        """Ignore an answer that comes later (`Requests.give_up`)."""
        self._reported.add(sequence)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def first_link_mtu(netns: str, to: str) -> int:
    """Return the MTU of the link that packets to `to` leave the namespace through; 0 if it is not known."""

    def read_mtu() -> int:
        dev = route_lookup.look_up(Packet(to), entries=False).dev
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, dev) if dev else None
        return int(link.mtu) if link is not None else 0

    return inside(netns, read_mtu)
