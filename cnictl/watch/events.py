"""Receive the kernel's events: links, addresses, routes, forwarding, and nftables' rule set generations.

Sources: linux/rtnetlink.h (groups), linux/netfilter/nfnetlink.h and nf_tables.h (NFT_MSG_NEWGEN names the process).
The old kernel interface of iptables sends no events: only a comparison finds changes there.
"""

import errno
import select
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Protocol

from cnictl.core.netlink.messages import attributes
from cnictl.node.host.route_lookup import LEARNED_PROTOCOL, PROTOCOL

_HEADER = Struct("=IHHII")
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE, _IPV4_CONF, _IPV6_CONF = 1, 5, 7, 9, 11, 24, 25
_GROUPS = (_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE, _IPV4_CONF, _IPV6_CONF)
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE, _NEWNETCONF = 16, 17, 20, 21, 24, 25, 80
_NFTABLES_GROUP = 7
_NEWGEN = 10 << 8 | 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN
_GEN_PID, _GEN_NAME = 2, 3
_IFLA_IFNAME = 3
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_ROUTE_PROTOCOL_AT = 5
_BUFFER = 1 << 20


LINK, ADDRESS, ROUTE, FORWARDING, RULES = "link ", "address", "route", "forwarding", "rules"
"""What events are about; the name of the link follows `LINK`."""


@dataclass(frozen=True)
class Event:
    """One change that may concern the node."""

    about: str
    """`link cni0`, `address`, `route`, `forwarding`, `rules`; `overflow` if the kernel dropped events."""
    pid: int
    """The id of the process that made the change; 0 if the kernel does not say."""
    process: str
    """That process's name; empty if the kernel does not say."""


class HasFileno(Protocol):
    """What select(2) takes."""

    def fileno(self) -> int:
        """Return a descriptor."""


class Events:
    """The sockets that receive events. Raises OSError."""

    def __init__(self) -> None:
        self._route = _listen(socket.NETLINK_ROUTE, _GROUPS)
        self._rules = _listen(12, (_NFTABLES_GROUP,))  # NETLINK_NETFILTER

    def close(self) -> None:
        """Close the sockets."""
        self._route.close()
        self._rules.close()

    def wait(self, seconds: float, wakeup: int, links: set[str], others: Iterable[HasFileno] = ()) -> list[Event]:
        """Wait for events and return them: up to `seconds`, less if `wakeup` or one of `others` becomes readable.

        Link events are returned only for `links`.
        """
        descriptors = [each.fileno() for each in others]
        ready, _, _ = select.select([self._route.fileno(), self._rules.fileno(), wakeup, *descriptors], [], [], seconds)
        events: list[Event] = []
        for receiver in (self._route, self._rules):
            if receiver.fileno() in ready:
                events += _received(receiver, links)
        return events


def _listen(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    made.bind((0, 0))
    for group in groups:
        made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return made


def _received(receiver: socket.socket, links: set[str]) -> Iterator[Event]:
    while True:
        try:
            data = receiver.recv(1 << 17)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield Event("overflow", 0, "")
            continue
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, _, port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            event = read(kind, data[offset + _HEADER.size : offset + length], port, links)
            if event is not None:
                yield event
            offset += (length + 3) & ~3


def read(kind: int, body: bytes, port: int, links: set[str]) -> Event | None:
    """Return a message's event; None if it does not concern the node, such as changes of pods' links and routes."""
    if kind in (_NEWLINK, _DELLINK):
        name = attributes(body, 16).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")
        return Event(f"{LINK}{name}", port, "") if name in links else None
    if kind in (_NEWADDR, _DELADDR):
        return Event(ADDRESS, port, "") if kind == _DELADDR else None
    if kind in (_NEWROUTE, _DELROUTE):
        ours = body[_ROUTE_PROTOCOL_AT] in (PROTOCOL, LEARNED_PROTOCOL)
        return Event(ROUTE, port, "") if ours or kind == _NEWROUTE else None
    if kind == _NEWNETCONF:
        return Event(FORWARDING, port, "")
    if kind == _NEWGEN:
        parts = attributes(body, 4)
        name = parts.get(_GEN_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
        return Event(RULES, int.from_bytes(parts.get(_GEN_PID, b""), "big"), name)
    return None
