"""Read the host's uplink, addresses, and the links to the peers. Changes nothing."""

import glob
from collections.abc import Mapping
from dataclasses import dataclass

from cnictl.core import durable
from cnictl.core.bridge import DEFAULT_MTU
from cnictl.core.cidr import Cidr, parse_address, parse_interface
from cnictl.core.errors import Problem
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.host import reading, route_lookup, uplinks
from cnictl.node.host.route_lookup import Packet, RouteResult
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6
from cnictl.node.spec.peers import is_link_local


def uplink(spec: NodeSpec) -> str:
    """Return the uplink: the one in the spec, else the default route's link, else the first peer's; empty without one.

    Peers may be on other links: `links_to_others` returns all of them.
    """
    return spec.uplink or default_link(spec) or next(filter(None, peer_links(spec).values()), "")


def default_link(spec: NodeSpec) -> str:
    """Return the link of the main table's default route, IPv6's for a node of IPv6 alone; empty without one.

    Policy rules don't count, so that a VPN with its own policy rule does not change the uplink.
    """
    routes = route_lookup.others_routes()
    for subnet in spec.subnets:
        for destination, route in routes:
            is_default = destination.prefix == 0 and (destination.bits == 128) == is_ipv6(subnet)
            if (
                is_default
                and route.table == route_lookup.MAIN_TABLE
                and route.kind == route_lookup.UNICAST
                and not route.dead
            ):
                return route.dev
    return ""


def peer_links(spec: NodeSpec) -> dict[Peer, str]:
    """Return the link to each peer: the spec's, else the one that the peer is on, else the spec's uplink, or empty.

    A policy rule may divert the peer's address by a shorter prefix than the main table's, as a VPN's default route
    does. Then the main table's link counts: the peer is on the link that has its subnet.
    """
    return reading.cached(f"links of {spec.uplink} {hash(spec.known_peers)}", lambda: _peer_links(spec))


def _peer_links(spec: NodeSpec) -> dict[Peer, str]:
    asked = [peer.via for peer in spec.known_peers if not peer.dev]
    route_by_address = reading.known_each(
        "routes to peers", asked, lambda vias: route_lookup.look_up_all([Packet(via) for via in vias])
    )
    connected = _connected() if asked else []
    link_by_peer = {}
    for peer in spec.known_peers:
        link_by_peer[peer] = peer.dev or _on_link(peer.via, route_by_address[peer.via], connected) or spec.uplink
    return link_by_peer


@dataclass(frozen=True)
class _Connected:
    """A route of the main table without a gateway."""

    subnet: Cidr
    dev: str
    first: int
    last: int

    def holds(self, packed: bytes) -> bool:
        return len(packed) * 8 == self.subnet.bits and self.first <= int.from_bytes(packed, "big") <= self.last


def _on_link(address: str, route: RouteResult, connected: list[_Connected]) -> str:
    packed = parse_address(address)
    around = max((near for near in connected if near.holds(packed)), key=lambda near: near.subnet.prefix, default=None)
    if route.kind == route_lookup.UNICAST and route.dev and not route.gateway:
        prefix = int(route.destination.partition("/")[2])
        return route.dev if around is None or prefix >= around.subnet.prefix else around.dev
    if route.gateway and route.table in (0, route_lookup.MAIN_TABLE):
        return ""  # the main table itself has a route to it through a gateway
    return around.dev if around is not None else ""


def _connected() -> list[_Connected]:
    """Return the main table's routes without a gateway, except default routes."""
    return [
        _Connected(destination, route.dev, destination.first, destination.last)
        for destination, route in route_lookup.others_routes()
        if route.table == route_lookup.MAIN_TABLE
        and route.kind == route_lookup.UNICAST
        and route.dev
        and not route.gateway
        and destination.prefix
        and not route.dead
    ]


def default_gateways() -> set[str]:
    """Return the gateways of the main table's default routes."""
    return {
        gateway
        for destination, route in route_lookup.others_routes()
        if not destination.prefix and route.table == route_lookup.MAIN_TABLE
        for _, gateway in route.hops
        if gateway
    }


def link_of_subnet(address: str) -> str:
    """Return the link on which this host has an address in the same subnet, up or down; empty without one."""
    packed = parse_address(address)
    own = [(parse_interface(text), dev) for text, dev in own_interfaces().items()]
    held = [(cidr.prefix, dev) for cidr, dev in own if cidr.holds(packed) and not cidr.address.startswith("fe80:")]
    return max(held, default=(0, ""))[1]


def links_to_others(spec: NodeSpec) -> list[str]:
    """Return the links to other hosts: the uplink and the links to the peers."""
    named = [uplink(spec), *peer_links(spec).values()]
    return [name for name in dict.fromkeys(named) if name and name != spec.bridge]


def check_links(spec: NodeSpec) -> None:
    """Raise Problem if a link that the spec names does not exist."""
    names = link_names()
    named = {spec.uplink: "the uplink"} | {peer.dev: f"the link to peer {peer.pod_cidr}" for peer in spec.known_peers}
    for name, role in named.items():
        if name and name not in names:
            raise Problem(f"there is no link {name} ({role})", _links_in_words(spec))


def _links_in_words(spec: NodeSpec) -> str:
    others = uplinks.names(spec.bridge)
    return f"the links to other hosts can be: {', '.join(others)}" if others else "`ip link` lists the links"


def link_names() -> list[str]:
    """Return the names of this host's links."""
    with Netlink() as netlink:
        return [link.name for link in rtnetlink.all_links(netlink)]


@dataclass(frozen=True)
class Narrowest:
    """The smallest MTU over the links to other hosts."""

    mtu: int
    """The MTU in bytes."""
    link: str
    """The link that has this MTU; empty if no link to other hosts is known."""
    peer: Peer | None = None
    """The peer that is reached over the link; None: the link is the uplink."""


def smallest_mtu(spec: NodeSpec) -> Narrowest:
    """Return the smallest MTU over the links to the peers and the default route's link; 1500 if no link is known.

    The MTU of a route (`ip route … mtu 1400`) counts for its link. A path MTU that the kernel has learned does not,
    because it expires after some minutes.
    """
    with Netlink() as netlink:
        sizes = {link.name: link.mtu for link in rtnetlink.all_links(netlink)}
    limits = [Narrowest(sizes[name], name) for name in (spec.uplink, default_link(spec)) if name in sizes]
    links = peer_links(spec)
    routes = route_lookup.look_up_all([Packet(peer.via, oif=links[peer]) for peer in spec.known_peers])
    for peer, route in zip(spec.known_peers, routes, strict=True):
        link = links[peer]
        if link in sizes and link != spec.bridge:
            own = route.mtu if route.dev == link else 0
            limits.append(Narrowest(min(sizes[link], own or sizes[link]), link, peer))
    return min(limits, key=lambda limit: limit.mtu, default=Narrowest(DEFAULT_MTU, ""))


def mtu(spec: NodeSpec) -> int:
    """Return the MTU of bridge and pods in bytes: the spec's, else the smallest over the links to other hosts."""
    return spec.mtu or smallest_mtu(spec).mtu


def own_addresses() -> dict[str, str]:
    """Return every address of this host, and the link that has it."""
    return {interface.partition("/")[0]: link for interface, link in own_interfaces().items()}


def own_interfaces() -> dict[str, str]:
    """Return every address of this host as ADDRESS/PREFIX and its link, link-local ones included."""
    link_by_address = {}
    with Netlink() as netlink:
        names = {link.index: link.name for link in rtnetlink.all_links(netlink)}
        for index, packed, prefix in rtnetlink.all_addresses(netlink):
            link_by_address[str(Cidr(packed, prefix))] = names.get(index, "")
    return link_by_address


def reach_peers(links: Mapping[Peer, str]) -> dict[Peer, RouteResult | None]:
    """Return how this host reaches each peer; None if it has no route. `links`: those of `peer_links`.

    A route has a gateway if and only if the peer is not on the link. If this host's own packets to the peer leave by
    another link (a policy rule, or a second link to the same subnet), the peer still counts as on its link.
    """
    packets = [Packet(peer.via, oif=peer.dev if is_link_local(parse_address(peer.via)) else "") for peer in links]
    connected = _connected()
    reached: dict[Peer, RouteResult | None] = {}
    for (peer, link), route in zip(links.items(), route_lookup.look_up_all(packets, entries=False), strict=True):
        reached[peer] = None if not route.dev or route.errno else route
        elsewhere = link not in ("", route.dev)
        if reached[peer] and elsewhere:
            packed = parse_address(peer.via)
            if any(near.dev == link and near.holds(packed) for near in connected):
                reached[peer] = RouteResult(((link, ""),))
    return reached


def processes() -> set[str]:
    """Return the names of the running processes as in /proc/PID/comm: at most 15 characters."""
    names = set()
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            names.add(durable.contents(path).decode("utf-8", "replace").strip())
        except OSError:
            continue  # the process has just ended
    return names
