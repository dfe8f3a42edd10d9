"""Check which hosts on this node's links answer ARP (IPv4) or neighbour solicitations (IPv6), many at the same time.

The requests are sent through packet sockets. With an echo request, the kernel would resolve each address and keep the
entry of a silent host for seconds. About a thousand such entries fill the neighbour table (`gc_thresh3`), which all
namespaces of a machine share. Sources: RFC 826; RFC 4861, sections 4.3 and 7.2; packet(7).
"""

import contextlib
import selectors
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from typing import Self

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.host import route_lookup
from cnictl.node.host.route_lookup import Packet
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import arp, icmp, icmp6, ndp

WAIT = 0.3
"""Seconds to wait for answers after the last request."""
_TRIES = 2
"""Requests to each silent host, because a request or its answer may be lost."""
_AT_ONCE = 64
"""Requests to send before reading answers, so that these fit into the socket's buffer."""
_BUFFER = 1 << 20
_ETH_P_IPV6 = 0x86DD
_ICMP6_FILTER, _ADVERTISEMENT = 1, 136

Target = tuple[str, str]
"""An address, and the link that it is on."""


def answering(targets: Iterable[Target], wait: float = WAIT) -> dict[Target, bool | None]:
    """Return whether each target answers; None if it can't be asked.

    A target can't be asked if the link is missing, has no address of this host or has no Ethernet addresses, or if the
    kernel reaches the target through a gateway.
    """
    wanted = list(dict.fromkeys(targets))
    answers: dict[Target, bool | None] = dict.fromkeys(wanted)
    with ExitStack() as stack:
        groups = [stack.enter_context(group) for group in _groups(wanted)]
        for group in groups:
            answers.update(dict.fromkeys(group.waiting, False))
        for _ in range(_TRIES):
            _ask(groups, wait / _TRIES)
        for group in groups:
            answers.update(dict.fromkeys(group.answered, True))
    return answers


def _ask(groups: "Collection[_Group]", wait: float) -> None:
    """Send every group's requests, and read answers until all have arrived or `wait` seconds have passed."""
    with selectors.DefaultSelector() as selector:
        for group in groups:
            selector.register(group.receiver, selectors.EVENT_READ, group)
            for at, _ in enumerate(group.send()):
                if at % _AT_ONCE == 0:
                    _read_answers(selector, 0)
        end = time.monotonic() + wait
        while any(group.waiting for group in groups) and (left := end - time.monotonic()) > 0:
            _read_answers(selector, left)


def _read_answers(selector: selectors.BaseSelector, seconds: float) -> None:
    for key, _ in selector.select(seconds):
        key.data.read_answers()


class _Group:
    """The targets of one family on one link."""

    def __init__(self, link: str, mac: bytes, sources: dict[str, str]) -> None:
        """`sources`: for each target, our address that sends the request. Raises OSError."""
        self.link, self.mac = link, mac
        self._sources = sources
        self.waiting: dict[Target, None] = dict.fromkeys((address, link) for address in sources)
        """Targets that have not answered."""
        self.answered: list[Target] = []
        self._sender_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: it receives nothing
        self.receiver = self._sender_socket
        try:
            self._sender_socket.bind((link, 0))
            self.receiver = self._open_receiver()
            self.receiver.setblocking(False)
            self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self._sender_socket.close()
        self.receiver.close()

    def send(self) -> Iterator[None]:
        """Send a request to each target that has not answered."""
        for address, _ in list(self.waiting):
            with contextlib.suppress(OSError):  # the queue is full or the link is gone: the target counts as silent
                self._sender_socket.send(self._frame(address, self._sources[address]))
            yield

    def read_answers(self) -> None:
        """Read the answers that have arrived."""
        with contextlib.suppress(OSError):
            while True:
                target = (self._sender(self.receiver.recv(256)), self.link)
                if target in self.waiting:
                    del self.waiting[target]
                    self.answered.append(target)

    def _open_receiver(self) -> socket.socket:
        raise NotImplementedError

    def _frame(self, address: str, source: str) -> bytes:
        raise NotImplementedError

    def _sender(self, message: bytes) -> str:
        """Return the address that an answer is about; empty if the message is not an answer."""
        raise NotImplementedError


class _Arp(_Group):
    def _open_receiver(self) -> socket.socket:
        receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(arp.ETH_P_ARP))
        receiver.bind((self.link, arp.ETH_P_ARP))
        return receiver

    def _frame(self, address: str, source: str) -> bytes:
        return arp.request(address, source, self.mac)

    def _sender(self, message: bytes) -> str:
        return arp.sender(message)


class _Ndp(_Group):
    def _open_receiver(self) -> socket.socket:
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        passed = [0xFFFFFFFF] * 8  # linux/icmpv6.h: a bit set is a type that is blocked
        passed[_ADVERTISEMENT >> 5] &= ~(1 << (_ADVERTISEMENT & 31))
        receiver.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *passed))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.link.encode())
        return receiver

    def _frame(self, address: str, source: str) -> bytes:
        group = ndp.group(address)
        body = ndp.solicitation(address, self.mac)
        packed = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, group)
        sum_ = icmp.checksum(icmp6.pseudo_header(packed, len(body)) + body)
        header = struct.pack("!IHBB", 6 << 28, len(body), icmp6.NEXT_HEADER, ndp.HOPS) + packed
        to = b"\x33\x33" + packed[-4:]  # RFC 2464, section 7
        return to + self.mac + struct.pack("!H", _ETH_P_IPV6) + header + body[:2] + struct.pack("!H", sum_) + body[4:]

    def _sender(self, message: bytes) -> str:
        return ndp.target(message)


def _groups(targets: list[Target]) -> list[_Group]:
    """Return the groups of the targets that can be asked."""
    with Netlink() as netlink:
        macs = {link.name: link.mac for link in rtnetlink.all_links(netlink)}
    routes = route_lookup.look_up_all([Packet(address, oif=link) for address, link in targets], entries=False)
    sources: dict[tuple[str, bool], dict[str, str]] = {}
    for (address, link), route in zip(targets, routes, strict=True):
        has_source = bool(route.source) and is_ipv6(route.source) == is_ipv6(address)
        if has_source and not route.gateway and macs.get(link, "").count(":") == 5:
            sources.setdefault((link, is_ipv6(address)), {})[address] = route.source
    groups: list[_Group] = []
    for (link, ipv6), by_address in sources.items():
        with contextlib.suppress(OSError):  # the link is gone, or this user is not root
            groups.append((_Ndp if ipv6 else _Arp)(link, rtnetlink.parse_mac(macs[link]), by_address))
    return groups
