"""Routes of all tables with their metrics, as the kernel lists them. Source: linux/rtnetlink.h."""

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import RTMSG, U32, Netlink, attributes

try:
    from _struct import Struct
except ImportError:
    from struct import Struct

RT_TABLE_LOCAL = 255

_NEXT_HOP = Struct("=HBBi")  # rtnexthop: length, flags, hops, link index
_RTA_MULTIPATH = 9
_RTPROT_KERNEL = 2
_RTNH_F_ONLINK = 4


class KernelRoute:
    """A unicast route."""

    __slots__ = ("_gateways", "advmss", "destination", "links", "mtu", "prefix", "priority", "scope", "table")

    def __init__(self, payload: bytes) -> None:
        _, self.prefix, _, _, table, _, self.scope, _, _ = RTMSG.unpack_from(payload)
        parts = attributes(payload, 12)
        metrics = attributes(parts.get(rtnetlink.RTA_METRICS, b""))
        hops = self._next_hops(parts.get(_RTA_MULTIPATH, b""))
        self._gateways = [parts.get(rtnetlink.RTA_GATEWAY, b""), *(gateway for gateway, _ in hops)]
        self.links = [_number(parts.get(rtnetlink.RTA_OIF)), *(index for _, index in hops)]
        """Indices of its interfaces."""
        self.destination = parts.get(rtnetlink.RTA_DST, b"")
        """Empty for the default route."""
        self.table = _number(parts.get(rtnetlink.RTA_TABLE)) or table
        self.priority = _number(parts.get(rtnetlink.RTA_PRIORITY))
        self.mtu = _number(metrics.get(rtnetlink.RTAX_MTU))
        self.advmss = _number(metrics.get(rtnetlink.RTAX_ADVMSS))

    def leads_through(self, gateway: bytes) -> bool:
        """Return whether the gateway is its next hop, or one of several."""
        return gateway in self._gateways

    def _next_hops(self, hops: bytes) -> list[tuple[bytes, int]]:
        """Return gateway (empty: none) and link index of each next hop."""
        next_hops, offset = [], 0
        while offset + _NEXT_HOP.size <= len(hops):
            length, _, _, index = _NEXT_HOP.unpack_from(hops, offset)
            if length < _NEXT_HOP.size:
                break
            parts = attributes(hops[offset + _NEXT_HOP.size : offset + length])
            next_hops.append((parts.get(rtnetlink.RTA_GATEWAY, b""), index))
            offset += (length + 3) & ~3
        return next_hops


def listed(netlink: Netlink, family: int) -> list[KernelRoute]:
    """Return a family's unicast routes, except those to the namespace's own addresses."""
    routes = []
    for payload in rtnetlink.dump_routes(netlink, family):
        kind = RTMSG.unpack_from(payload)[7]
        if kind == rtnetlink.RTN_UNICAST:
            route = KernelRoute(payload)
            if route.table != RT_TABLE_LOCAL:
                routes.append(route)
    return routes


def restoring(netlink: Netlink, family: int, index: int) -> list[tuple[int, int, bytes]]:
    """Return the messages that add a link's routes again, except those that the kernel adds with its addresses."""
    messages = []
    for payload in rtnetlink.dump_routes(netlink, family):
        *head, protocol, scope, kind, flags = RTMSG.unpack_from(payload)
        if kind == rtnetlink.RTN_UNICAST and protocol != _RTPROT_KERNEL and index in KernelRoute(payload).links:
            # the kernel refuses the flags that it reports about the link's present state
            message = RTMSG.pack(*head, protocol, scope, kind, flags & _RTNH_F_ONLINK) + payload[RTMSG.size :]
            messages.append((rtnetlink.RTM_NEWROUTE, rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL, message))
    return messages


def _number(raw: bytes | None) -> int:
    return int(U32.unpack(raw)[0]) if raw else 0
