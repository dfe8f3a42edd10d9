"""Send ICMP echo requests of both families from inside a pod, with raw sockets of the pod's namespace.

One loop serves all series; the program `ping` is not used. Sources: RFC 792, linux/icmp.h, linux/ip.h. For IPv6:
RFC 4443 and RFC 3542, by which the kernel fills in the checksum and removes the IP header.
"""

import functools
import itertools
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import icmp6
from cnictl.probe.netns_thread import inside

ECHO_REPLY, UNREACHABLE, REDIRECT, ECHO_REQUEST, TIME_EXCEEDED = 0, 3, 5, 8, 11
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h: the arrival time of each packet, however late we read it
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _PMTUDISC_PROBE = 10, 23, 62, 3  # linux/in.h, linux/in6.h
_IP_BYTES = {False: 20, True: icmp6.HEADER_BYTES}
"""Bytes of an IP header without options, by whether it is IPv6."""
_PAYLOAD = 48
_HEADER = struct.Struct("!BBHHH")
_TOKEN = struct.Struct("!8sHH")  # process, series, sequence: survives a NAT that changes the ICMP identifier

NO_PORT, TOO_BIG = 3, 4
"""Codes of "unreachable": port unreachable; fragmentation needed, in IPv6 packet too big."""
UNREACHABLE_WORDS = {
    0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", NO_PORT: "port unreachable",
    TOO_BIG: "packet too big",
    9: "network administratively prohibited", 10: "host administratively prohibited",
    13: "communication administratively prohibited",
}  # fmt: skip


@functools.cache
def _run() -> bytes:
    """Return the random bytes that mark this process's requests. They are drawn at the first request."""
    return os.urandom(8)


@dataclass(frozen=True)
class Refusal:
    """An ICMP error that came instead of a reply: its sender, type and code. ICMPv6 codes are translated to ICMP."""

    by: str
    type: int
    code: int
    mtu: int = 0
    """The MTU of the link that the packet is too big for; 0 if the sender does not report one."""
    sequence: int = -1
    """The sequence number of the echo request; -1 if it is not known."""

    @property
    def too_big(self) -> bool:
        """Whether the packet is larger than the MTU of a link on its path."""
        return self.type == UNREACHABLE and self.code == TOO_BIG

    @property
    def words(self) -> str:
        """The error in ping's words, such as `host unreachable`."""
        if self.type == TIME_EXCEEDED:
            return "time to live exceeded"
        if self.type == REDIRECT:
            return "redirect to another router"
        return UNREACHABLE_WORDS.get(self.code, f"unreachable, code {self.code}")

    @property
    def no_port(self) -> bool:
        """Whether nothing listens on the port, or a packet filter claims so."""
        return self.type == UNREACHABLE and self.code == NO_PORT

    @property
    def unrouted(self) -> bool:
        """Whether the sender has no route to the target, or only a route back to where the packet came from."""
        return self.type == REDIRECT or (self.type == UNREACHABLE and self.code == 0)

    @property
    def no_host(self) -> bool:
        """Whether the sender is on the target's subnet and got no answer to ARP or neighbour solicitations."""
        return self.type == UNREACHABLE and self.code == 1


@dataclass(eq=False)
class Series:
    """Echo requests from one namespace to one address, and their results."""

    sender: socket.socket
    to: str
    count: int = 3
    ttl: int = 64
    scope: str = ""
    """The link of a link-local target."""
    size: int = 0
    """Bytes of the whole IP packet; 0 for the usual size."""
    number: int = field(default_factory=itertools.count().__next__)
    """Identifies the series within this process."""
    sent: dict[int, float] = field(default_factory=dict)
    """When each request was sent, in seconds since the epoch (the clock of the kernel's time stamps)."""
    rtts: dict[int, float] = field(default_factory=dict)
    """Round-trip time of each answered request, in seconds."""
    refusals: list[Refusal] = field(default_factory=list)
    send_error: str = ""
    """The kernel's error if it refused to send."""

    @property
    def received(self) -> int:
        """The number of answered requests."""
        return len(self.rtts)

    @property
    def answered(self) -> bool:
        """Whether any request was answered."""
        return bool(self.rtts)

    @property
    def heard(self) -> bool:
        """Whether an answer or an error came back."""
        return bool(self.rtts or self.refusals)

    @property
    def rtt_ms(self) -> tuple[float, float, float] | None:
        """Shortest, mean and longest round trip in milliseconds; None if nothing came back."""
        if not self.rtts:
            return None
        times = [value * 1000 for value in self.rtts.values()]
        return min(times), sum(times) / len(times), max(times)

    @property
    def whole(self) -> bool:
        """Whether every request was answered."""
        return self.received == self.count

    def settled(self, now: float, timeout: float) -> bool:
        """Return whether no more answers are expected."""
        if len(self.sent) < self.count:
            return False
        final = sum(refusal.type != REDIRECT for refusal in self.refusals)
        if self.whole or self.send_error or final >= self.count:
            return True
        return all(seq in self.rtts or now - at >= timeout for seq, at in self.sent.items())


def echo_socket(netns: str, ipv6: bool = False, whole: bool = False) -> socket.socket:
    """Return a socket for ICMP or ICMPv6 in the network namespace at path `netns` (empty: our own).

    `whole`: its packets must not be fragmented on their path.
    """
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ipv6 else (socket.AF_INET, socket.IPPROTO_ICMP)

    def make() -> socket.socket:
        made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if whole:
            forbid_fragments(made)
        return made

    return inside(netns, make)


def forbid_fragments(sender: socket.socket) -> None:
    """Make the kernel send each packet unfragmented up to its link's MTU, despite a known path MTU (ip(7), ipv6(7))."""
    if sender.family == socket.AF_INET6:
        sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
    else:
        sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)


def ping(all_series: Sequence[Series], interval: float, timeout: float, wanted: Sequence[Series] = ()) -> None:
    """Send the requests of all series, `interval` seconds apart, and wait `timeout` seconds for each answer.

    Return sooner once every request of `wanted` (by default of all series) is answered.
    """
    wanted = wanted or all_series
    start = time.monotonic()
    rounds, most = 0, max(series.count for series in all_series)
    with _AnswerReader(all_series) as answers:
        while True:
            now = time.monotonic()
            if rounds < most and now >= start + rounds * interval:
                for series in all_series:
                    if rounds < series.count:
                        send(series, rounds)
                rounds += 1
                continue
            if all(series.whole for series in wanted):
                return
            if rounds == most and all(series.settled(time.time(), timeout) for series in all_series):
                return
            due = start + rounds * interval if rounds < most else now + 0.01
            answers.read(due - now)


def linger(all_series: Sequence[Series], until: float, settled: Callable[[], bool]) -> None:
    """Keep listening until the monotonic clock shows `until` or `settled` returns True."""
    with _AnswerReader(all_series) as answers:
        while (left := until - time.monotonic()) > 0 and not settled():
            answers.read(left)


class _AnswerReader:
    """Receives the answers to some series."""

    def __init__(self, all_series: Sequence[Series]) -> None:
        self._by_number = {series.number: series for series in all_series}
        self._selector = selectors.DefaultSelector()
        for sender in {series.sender for series in all_series}:
            self._selector.register(sender, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def read(self, seconds: float) -> None:
        for key, _ in self._selector.select(max(0.0, seconds)):
            assert isinstance(key.fileobj, socket.socket)
            receive(key.fileobj, self._by_number)


def identifier(number: int) -> int:
    """Return the ICMP identifier of a series: unique, and never 0."""
    return (int.from_bytes(_run()[:2], "big") + number) & 0xFFFF or 0xFFFF


def smallest(ipv6: bool) -> int:
    """Return the size in bytes of the smallest IP packet for an echo request with our marks."""
    return _IP_BYTES[ipv6] + _HEADER.size + _TOKEN.size


def send(series: Series, sequence: int) -> int:
    """Send one request of a series. Return 0, or the kernel's error number if it refuses to send."""
    ipv6 = is_ipv6(series.to)
    length = series.size - _IP_BYTES[ipv6] - _HEADER.size if series.size else _PAYLOAD
    payload = _TOKEN.pack(_run(), series.number, sequence).ljust(length, b"\0")
    kind = icmp6.ECHO_REQUEST6 if ipv6 else ECHO_REQUEST
    header = _HEADER.pack(kind, 0, 0, identifier(series.number), sequence)
    sum_ = 0 if ipv6 else checksum(header + payload)
    packet = _HEADER.pack(kind, 0, sum_, identifier(series.number), sequence) + payload
    series.sent[sequence] = time.time()
    level, option = (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT) if ipv6 else (socket.SOL_IP, socket.IP_TTL)
    try:
        to = (series.to, 0, 0, socket.if_nametoindex(series.scope) if series.scope else 0) if ipv6 else (series.to, 0)
        series.sender.sendmsg([packet], [(level, option, struct.pack("i", series.ttl))], 0, to)
    except OSError as error:
        series.send_error = os.strerror(error.errno or 0)
        return error.errno or -1
    return 0


def receive(sender: socket.socket, by_number: dict[int, Series]) -> None:
    """Read every message that waits on a socket, and note the answers in their series."""
    while True:
        try:
            packet, ancillary, _, origin = sender.recvmsg(2048, socket.CMSG_SPACE(16))
        except BlockingIOError:
            return
        now = _arrival(ancillary)
        message = packet if sender.family == socket.AF_INET6 else packet[(packet[0] & 15) * 4 :]
        if len(message) < _HEADER.size:
            continue
        kind, code = kind_of(message, sender.family == socket.AF_INET6)
        source = str(origin[0]).partition("%")[0]
        if kind == ECHO_REPLY:
            number, sequence = token(message) or (-1, -1)
            series = by_number.get(number)
            if series and series.sender is sender and sequence in series.sent:
                series.rtts.setdefault(sequence, max(0.0, now - series.sent[sequence]))
        elif kind in (UNREACHABLE, REDIRECT, TIME_EXCEEDED):
            quoted = _refused(message[_HEADER.size :], sender, by_number)
            if quoted is not None:
                mtu = reported_mtu(message, sender.family == socket.AF_INET6) if code == TOO_BIG else 0
                quoted[0].refusals.append(Refusal(source, kind, code, mtu, quoted[1]))


def kind_of(message: bytes, ipv6: bool) -> tuple[int, int]:
    """Return type and code of an ICMP message. ICMPv6 values are translated to ICMP."""
    return icmp6.as_icmp(message[0], message[1]) if ipv6 else (message[0], message[1])


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) >= 16:
            seconds, nanoseconds = struct.unpack_from("=qq", data)
            return float(seconds + nanoseconds / 1e9)
    return time.time()


def reported_mtu(message: bytes, ipv6: bool) -> int:
    """Return the MTU in an ICMP error for a packet that is too big (RFC 1191, section 4; RFC 4443, section 3.2)."""
    return int.from_bytes(message[4:8] if ipv6 else message[6:8], "big")


def _refused(original: bytes, sender: socket.socket, by_number: dict[int, Series]) -> tuple[Series, int] | None:
    """Return the series, and the sequence number, of the request that an ICMP error quotes.

    An error quotes the IP header and at least 8 more bytes (RFC 792).
    """
    ipv6 = sender.family == socket.AF_INET6
    length = icmp6.HEADER_BYTES if ipv6 else (original[:1] or b"\0")[0] % 16 * 4
    quoted = original[length : length + _HEADER.size]
    if len(original) < 28 or len(quoted) < _HEADER.size or kind_of(quoted, ipv6)[0] != ECHO_REQUEST:
        return None
    destination = icmp6.addresses(original)[1] if ipv6 else socket.inet_ntoa(original[16:20])
    ident, sequence = _HEADER.unpack(quoted)[3:]
    for series in by_number.values():
        if series.sender is sender and series.to == destination and identifier(series.number) == ident:
            return series, sequence
    return None


def token(message: bytes) -> tuple[int, int] | None:
    """Return series and sequence number of an echo message of this process; None for any other message."""
    run, number, sequence = any_token(message) or (b"", 0, 0)
    return (number, sequence) if run == _run() else None


def any_token(message: bytes) -> tuple[bytes, int, int] | None:
    """Return the marks of an echo message: those of the process that sent it, then series and sequence number.

    Return None if the message is too short. If another program sent the message, the values have no meaning.
    """
    if len(message) < _HEADER.size + _TOKEN.size:
        return None
    run, number, sequence = _TOKEN.unpack_from(message, _HEADER.size)
    return run, number, sequence


def own_token() -> str:
    """Return the marks of this process's requests, in hexadecimal digits."""
    return _run().hex()


def checksum(data: bytes) -> int:
    """Return the Internet checksum of `data` (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
