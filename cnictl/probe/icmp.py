"""ICMP echo of both families from inside a pod: raw sockets that belong to its namespace, all series in one loop.

No `ping`. Sources: RFC 792, linux/icmp.h, linux/ip.h; for IPv6 RFC 4443 and RFC 3542, which has the kernel fill in
the checksum and take the IP header off.
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

from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import icmp6
from cnictl.probe.netns_thread import inside

ECHO_REPLY, UNREACHABLE, REDIRECT, ECHO_REQUEST, TIME_EXCEEDED = 0, 3, 5, 8, 11
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h: when each packet arrived, however late we read it
_HEADER = struct.Struct("!BBHHH")
_TOKEN = struct.Struct("!8sHH")  # this run, series, sequence: survives a NAT that changes the ICMP identifier

UNREACHABLE_WORDS = {
    0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
    9: "network administratively prohibited", 10: "host administratively prohibited",
    13: "communication administratively prohibited",
}  # fmt: skip


@functools.cache
def _run() -> bytes:
    """Return what tells this process's requests from others'. It is drawn at the first one, not at the import."""
    return os.urandom(8)


@dataclass(frozen=True)
class Refusal:
    """An ICMP error that came instead of a reply: who sent it, type and code (ICMPv6's as ICMP's of that meaning)."""

    by: str
    type: int
    code: int

    @property
    def words(self) -> str:
        """`host unreachable`, as ping says it."""
        if self.type == TIME_EXCEEDED:
            return "time to live exceeded"
        if self.type == REDIRECT:
            return "redirect to another router"
        return UNREACHABLE_WORDS.get(self.code, f"unreachable, code {self.code}")

    @property
    def unrouted(self) -> bool:
        """Whether the sender has no route to the target, or only one back to where the packet came from."""
        return self.type == REDIRECT or (self.type == UNREACHABLE and self.code == 0)

    @property
    def no_host(self) -> bool:
        """Whether the sender is on the target's subnet and got no answer to ARP, or to neighbour solicitations."""
        return self.type == UNREACHABLE and self.code == 1


@dataclass(eq=False)
class Series:
    """Echo requests from one namespace to one address, and what came of them."""

    sender: socket.socket
    to: str
    count: int = 3
    ttl: int = 64
    scope: str = ""
    """The link of a link-local target."""
    number: int = field(default_factory=itertools.count().__next__)
    """Tells the series of this process apart."""
    sent: dict[int, float] = field(default_factory=dict)
    """When each sequence number left, in seconds since the epoch: the clock of the kernel's time stamps."""
    rtts: dict[int, float] = field(default_factory=dict)
    """Round-trip time of each one answered, in seconds."""
    refusals: list[Refusal] = field(default_factory=list)
    send_error: str = ""
    """The kernel's word where it would not even send."""

    @property
    def received(self) -> int:
        """Requests that were answered."""
        return len(self.rtts)

    @property
    def answered(self) -> bool:
        """Whether any request was."""
        return bool(self.rtts)

    @property
    def heard(self) -> bool:
        """Whether anything came back, an answer or an error."""
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
        """Whether nothing more is awaited."""
        if len(self.sent) < self.count:
            return False
        final = sum(refusal.type != REDIRECT for refusal in self.refusals)
        if self.whole or self.send_error or final >= self.count:
            return True
        return all(seq in self.rtts or now - at >= timeout for seq, at in self.sent.items())


def echo_socket(netns: str, ipv6: bool = False) -> socket.socket:
    """A socket that sends and hears ICMP, or ICMPv6, in a namespace (empty: our own)."""
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ipv6 else (socket.AF_INET, socket.IPPROTO_ICMP)

    def make() -> socket.socket:
        made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        return made

    return inside(netns, make)


def ping(series: Sequence[Series], interval: float, timeout: float, wanted: Sequence[Series] = ()) -> None:
    """Send every series' requests, `interval` seconds apart, and wait `timeout` seconds for each answer.

    Ends sooner once all of `wanted` (by default all) are wholly answered.
    """
    wanted = wanted or series
    start = time.monotonic()
    rounds, most = 0, max(one.count for one in series)
    with _Ears(series) as ears:
        while True:
            now = time.monotonic()
            if rounds < most and now >= start + rounds * interval:
                for one in series:
                    if rounds < one.count:
                        _send(one, rounds)
                rounds += 1
                continue
            if all(one.whole for one in wanted):
                return
            if rounds == most and all(one.settled(time.time(), timeout) for one in series):
                return
            due = start + rounds * interval if rounds < most else now + 0.01
            ears.hear(due - now)


def linger(series: Sequence[Series], until: float, settled: Callable[[], bool]) -> None:
    """Go on listening, until the monotonic clock shows `until` or what came for `series` has it `settled`."""
    with _Ears(series) as ears:
        while (left := until - time.monotonic()) > 0 and not settled():
            ears.hear(left)


class _Ears:
    """Takes in what arrives for some series."""

    def __init__(self, series: Sequence[Series]) -> None:
        self._by_number = {one.number: one for one in series}
        self._selector = selectors.DefaultSelector()
        for sender in {one.sender for one in series}:
            self._selector.register(sender, selectors.EVENT_READ)

    def __enter__(self) -> "_Ears":
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def hear(self, seconds: float) -> None:
        for key, _ in self._selector.select(max(0.0, seconds)):
            assert isinstance(key.fileobj, socket.socket)
            _receive(key.fileobj, self._by_number)


def identifier(number: int) -> int:
    """The ICMP identifier of a series: not 0, not another series'."""
    return (int.from_bytes(_run()[:2], "big") + number) & 0xFFFF or 0xFFFF


def _send(one: Series, sequence: int) -> None:
    payload = _TOKEN.pack(_run(), one.number, sequence).ljust(48, b"\0")
    ipv6 = is_ipv6(one.to)
    kind = icmp6.ECHO_REQUEST6 if ipv6 else ECHO_REQUEST
    header = _HEADER.pack(kind, 0, 0, identifier(one.number), sequence)
    sum_ = 0 if ipv6 else checksum(header + payload)
    packet = _HEADER.pack(kind, 0, sum_, identifier(one.number), sequence) + payload
    one.sent[sequence] = time.time()
    level, option = (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT) if ipv6 else (socket.SOL_IP, socket.IP_TTL)
    try:
        to = (one.to, 0, 0, socket.if_nametoindex(one.scope) if one.scope else 0) if ipv6 else (one.to, 0)
        one.sender.sendmsg([packet], [(level, option, struct.pack("i", one.ttl))], 0, to)
    except OSError as error:
        one.send_error = os.strerror(error.errno or 0)


def _receive(sender: socket.socket, by_number: dict[int, Series]) -> None:
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
            found = token(message)
            one = by_number.get(found[0]) if found else None
            if found and one and one.sender is sender and found[1] in one.sent:
                one.rtts.setdefault(found[1], max(0.0, now - one.sent[found[1]]))
        elif kind in (UNREACHABLE, REDIRECT, TIME_EXCEEDED):
            one = _refused(message[_HEADER.size :], sender, by_number)
            if one is not None:
                one.refusals.append(Refusal(source, kind, code))


def kind_of(message: bytes, ipv6: bool) -> tuple[int, int]:
    """Type and code of an ICMP message; of an ICMPv6 one those of the same meaning."""
    return icmp6.as_icmp(message[0], message[1]) if ipv6 else (message[0], message[1])


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) >= 16:
            seconds, nanoseconds = struct.unpack_from("=qq", data)
            return float(seconds + nanoseconds / 1e9)
    return time.time()


def _refused(original: bytes, sender: socket.socket, by_number: dict[int, Series]) -> Series | None:
    """Whose request an ICMP error quotes; at least its IP header and 8 bytes are there (RFC 792)."""
    ipv6 = sender.family == socket.AF_INET6
    length = icmp6.HEADER_BYTES if ipv6 else (original[:1] or b"\0")[0] % 16 * 4
    quoted = original[length : length + _HEADER.size]
    if len(original) < 28 or len(quoted) < _HEADER.size or kind_of(quoted, ipv6)[0] != ECHO_REQUEST:
        return None
    destination = icmp6.addresses(original)[1] if ipv6 else socket.inet_ntoa(original[16:20])
    ident = _HEADER.unpack(quoted)[3]
    for one in by_number.values():
        if one.sender is sender and one.to == destination and identifier(one.number) == ident:
            return one
    return None


def token(message: bytes) -> tuple[int, int] | None:
    """Series and sequence number of an echo message of this run; None if it is anybody else's."""
    if len(message) < _HEADER.size + _TOKEN.size:
        return None
    run, number, sequence = _TOKEN.unpack_from(message, _HEADER.size)
    return (number, sequence) if run == _run() else None


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
