"""Ask the kernel which route a packet takes (RTM_GETROUTE), many packets over one socket.

The main table alone proves nothing, because policy rules (`ip rule`) and more specific routes come before it. An answer
is valid for a packet with this source, incoming link and mark. Sources:
linux/rtnetlink.h; net/ipv4/route.c, inet_rtm_getroute; net/ipv6/route.c, inet6_rtm_getroute.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct

from cnictl.core.cidr import Cidr, format_address, parse_address
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import AF_INET, AF_INET6, NLMSG_ERROR, attr, attributes, u32_attr
from cnictl.core.netlink.rtnetlink import (
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_TABLE,
    RTAX_MTU,
    RTM_GETROUTE,
    Netlink,
)
from cnictl.node.host import reading

RTA_SRC, RTA_IIF, RTA_PREFSRC, RTA_MULTIPATH, RTA_MARK, RTA_VIA = 2, 3, 7, 9, 16, 18
RTM_F_CLONED, RTM_F_LOOKUP_TABLE, RTM_F_FIB_MATCH = 0x200, 0x1000, 0x2000
RTNH_F_DEAD, RTNH_F_LINKDOWN = 1, 16
UNICAST, LOCAL, BROADCAST = 1, 2, 3
THROW = 9
REFUSING = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
"""Route types and rule actions that drop a packet; rtm_type and fib_rule_hdr.action have the same numbers."""
PROTOCOL = 67
"""The routing protocol number (rtm_protocol) of routes to static peers; any above 4 is free (rtnetlink(7))."""
LEARNED_PROTOCOL = 68
"""The routing protocol number of routes to peers that were learned from a source."""
LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE = 255, 254, 253
_AT_ONCE = 32
"""Requests in one datagram; their answers fit into a receive buffer of the default size."""

_HEADER, _RTMSG, _S32, _U32 = Struct("=IHHII"), Struct("=BBBBBBBBI"), Struct("=i"), Struct("=I")
_NEXT_HOP = Struct("=HBBi")  # rtnexthop: length, flags, weight, link index


@dataclass(frozen=True)
class Packet:
    """The packet to look up. Without `iif`, this host sends it itself."""

    target: str
    source: str = ""
    iif: str = ""
    """The incoming link; it requires `source`."""
    oif: str = ""
    mark: int = 0


@dataclass(frozen=True)
class RouteResult:
    """The route that the kernel chooses for a packet, or its refusal. An entry of a routing table has the same form."""

    hops: tuple[tuple[str, str], ...] = ()
    """Link and gateway of each next hop; the gateway is empty if the target is on the link."""
    source: str = ""
    """The source address that this host would use."""
    kind: int = UNICAST
    table: int = 0
    destination: str = ""
    """The route's destination as a CIDR: `0.0.0.0/0` for a default route."""
    protocol: int = 0
    priority: int = 0
    mtu: int = 0
    """The route's own MTU in bytes; 0 if it has none."""
    dead: bool = False
    """Whether its link is down or has no carrier."""
    errno: int = 0
    """The error number if there is no route."""

    @property
    def dev(self) -> str:
        """The first next hop's link; empty without one."""
        return self.hops[0][0] if self.hops else ""

    @property
    def gateway(self) -> str:
        """The first next hop's gateway; empty without one."""
        return self.hops[0][1] if self.hops else ""

    @property
    def spoofed(self) -> bool:
        """Whether the reverse path filter refuses the source: EXDEV, in newer kernels EINVAL.

        EINVAL is also the answer of a blackhole route.
        """
        return self.errno in (errno.EXDEV, errno.EINVAL)

    def goes(self, dev: str, gateway: str) -> bool:
        """Return whether every packet leaves through this link to this gateway."""
        return self.kind == UNICAST and not self.errno and set(self.hops) == {(dev, gateway)}

    def __str__(self) -> str:
        if self.errno:
            return os.strerror(self.errno).lower()
        if self.kind in REFUSING:
            return REFUSING[self.kind]
        if self.kind == LOCAL:
            return "this host itself"
        hops = [f"{dev}{f' via {gateway}' if gateway else ''}" for dev, gateway in self.hops]
        return " and ".join(hops) or "nowhere"


def look_up_all(packets: Sequence[Packet], entries: bool = True) -> list[RouteResult]:
    """Return the kernel's answer for each packet, in order.

    With `entries` the answer is the routing table's entry, with CIDR, metric and MTU. Without, it is what one packet
    gets: this host's source address, and one of several next hops. Raises OSError.
    """
    if not packets:
        return []
    with Netlink() as netlink:
        names = {link.index: link.name for link in rtnetlink.all_links(netlink)}
    indexes = {name: index for index, name in names.items()}
    answers: list[RouteResult] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as asking:
        asking.settimeout(10)
        for at in range(0, len(packets), _AT_ONCE):
            part = packets[at : at + _AT_ONCE]
            questions = [_question(packet, indexes, entries) for packet in part]
            answers += _answers(asking, questions, names)
    return answers


def look_up(packet: Packet, entries: bool = True) -> RouteResult:
    """Return the kernel's answer for one packet."""
    return look_up_all([packet], entries)[0]


def source_to(target: str, dev: str = "") -> str:
    """Return the source address of this host's packets to `target`, over `dev` if given; empty without a route."""
    return look_up(Packet(target, oif=dev), entries=False).source


def routes() -> list[tuple[Cidr, RouteResult]]:
    """Return every route of every table and both families but clones; lowest metric first for each destination."""
    return reading.cached("routes", lambda: _read_routes(lambda _: True))


def others_routes() -> list[tuple[Cidr, RouteResult]]:
    """Return all routes except cnictl's own, of which there may be thousands."""
    return reading.cached(
        "others' routes", lambda: _read_routes(lambda protocol: protocol not in (PROTOCOL, LEARNED_PROTOCOL))
    )


def routes_but(protocol: int) -> list[tuple[Cidr, RouteResult]]:
    """Return the routes of all routing protocols except this one, as they are now."""
    return _read_routes(lambda its_protocol: its_protocol != protocol)


def _read_routes(wanted: Callable[[int], bool]) -> list[tuple[Cidr, RouteResult]]:
    """Return the routes whose protocol is wanted; the others are not parsed."""
    with Netlink() as netlink:
        names = {link.index: link.name for link in rtnetlink.all_links(netlink)}
        entries = []
        for family in (AF_INET, AF_INET6):
            payloads = netlink.dump(RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
            heads = [(_RTMSG.unpack_from(payload), payload) for payload in payloads]
            entries += [
                _read(payload, names)
                for (_, _, _, _, _, protocol, _, _, flags), payload in heads
                if not flags & RTM_F_CLONED and wanted(protocol)
            ]
    entries.sort(key=lambda entry: entry[1].priority)
    return entries


def _question(packet: Packet, indexes: dict[str, int], entries: bool) -> bytes | None:
    """Return the message without its header; None if it names a link that does not exist."""
    if any(name and name not in indexes for name in (packet.iif, packet.oif)):
        return None
    target = parse_address(packet.target)
    source = parse_address(packet.source) if packet.source else b""
    family, bits = (AF_INET, 32) if len(target) == 4 else (AF_INET6, 128)
    flags = RTM_F_LOOKUP_TABLE | (RTM_F_FIB_MATCH if entries else 0)
    body = _RTMSG.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, flags) + attr(RTA_DST, target)
    if source:
        body += attr(RTA_SRC, source)
    if packet.iif:
        body += u32_attr(RTA_IIF, indexes[packet.iif])
    if packet.oif:
        body += u32_attr(RTA_OIF, indexes[packet.oif])
    return body + (u32_attr(RTA_MARK, packet.mark) if packet.mark else b"")


def _answers(asking: socket.socket, questions: Sequence[bytes | None], names: dict[int, str]) -> Iterator[RouteResult]:
    sent = [(number, body) for number, body in enumerate(questions, 1) if body is not None]
    if sent:
        asking.send(b"".join(_HEADER.pack(16 + len(body), RTM_GETROUTE, 1, number, 0) + body for number, body in sent))
    answered: dict[int, RouteResult] = {}
    while len(answered) < len(sent):
        data = asking.recv(1 << 16)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            body = data[offset + 16 : offset + length]
            if kind == NLMSG_ERROR:
                answered[sequence] = RouteResult(errno=-_S32.unpack_from(body)[0])
            else:
                answered[sequence] = _read(body, names)[1]
            offset += (max(length, 16) + 3) & ~3
    for number in range(1, len(questions) + 1):
        yield answered.get(number, RouteResult(errno=errno.ENODEV))


def _read(payload: bytes, names: dict[int, str]) -> tuple[Cidr, RouteResult]:
    family, prefix, _, _, table, protocol, _, kind, flags = _RTMSG.unpack_from(payload)
    parts = attributes(payload, 12)
    destination = Cidr(parts.get(RTA_DST) or bytes(4 if family == AF_INET else 16), prefix)
    hops, dead = list(_next_hops(parts, names)), bool(flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN))
    if RTA_MULTIPATH in parts:
        alive = [(dev, gateway) for dev, gateway, is_dead in hops if not is_dead]
        dead, hops = not alive, [(dev, gateway, False) for dev, gateway in alive] or hops
    source = parts.get(RTA_PREFSRC, b"")
    return destination, RouteResult(
        hops=tuple((dev, gateway) for dev, gateway, _ in hops),
        source=format_address(source) if source else "",
        kind=kind,
        table=_number(parts, RTA_TABLE) or table,
        destination=str(destination),
        protocol=protocol,
        priority=_number(parts, RTA_PRIORITY),
        mtu=_number(attributes(parts.get(RTA_METRICS, b"")), RTAX_MTU),
        dead=dead,
    )


def _next_hops(parts: dict[int, bytes], names: dict[int, str]) -> Iterator[tuple[str, str, bool]]:
    """Return link and gateway, and whether the next hop is dead."""
    if RTA_OIF in parts:
        yield names.get(_number(parts, RTA_OIF), ""), _gateway(parts), False
    hops = parts.get(RTA_MULTIPATH, b"")
    offset = 0
    while offset + _NEXT_HOP.size <= len(hops):
        length, flags, _, index = _NEXT_HOP.unpack_from(hops, offset)
        inner = attributes(hops[offset : offset + length], _NEXT_HOP.size)
        yield names.get(index, ""), _gateway(inner), bool(flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN))
        offset += (max(length, _NEXT_HOP.size) + 3) & ~3


def _gateway(parts: dict[int, bytes]) -> str:
    packed = parts.get(RTA_GATEWAY) or parts.get(RTA_VIA, b"")[2:]  # RTA_VIA begins with the family
    return format_address(packed) if len(packed) in (4, 16) else ""


def _number(parts: dict[int, bytes], kind: int) -> int:
    return int(_U32.unpack(parts[kind])[0]) if len(parts.get(kind, b"")) == 4 else 0
