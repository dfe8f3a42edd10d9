"""Check the node's addresses against the host's bridge, routes and peers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from cnictl.core import sysctl
from cnictl.core.cidr import Cidr, parse_address, parse_cidr
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import host_links, pod_routes, route_lookup
from cnictl.node.preflight.finding import PreflightFinding, error, warning
from cnictl.node.resources.bridge import gateways
from cnictl.node.spec.addressing import MTU_MIN_IPV6
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6, of_family
from cnictl.node.spec.overlaps import CidrIndex
from cnictl.node.spec.peers import is_link_local
from cnictl.node.spec.suggestions import first_free

_OTHERS_ROUTE = hint.advice(
    "give that node another pod CIDR, or remove the route from the configuration that adds it",
    because="the route belongs to another program or the operator, and its purpose is not known here",
)
_OWN_ADDRESS = hint.advice("give that node another pod CIDR", because="the pod CIDR is set on that node")


@dataclass(frozen=True)
class HostRoute:
    """A route of the host to a part of the address space, or one of the host's own addresses."""

    destination: str
    gateway: str
    dev: str
    kind: str = ""
    """`blackhole`, `unreachable` or `prohibit` for a route that refuses packets."""
    own: bool = False
    """Whether it is one of the host's addresses."""

    def __str__(self) -> str:
        if self.own:
            return f"own address {self.gateway} on {self.dev}"
        return f"route {self._words}"

    @property
    def way_out(self) -> Hint:
        """The hint if it lies in a peer's pod CIDR. The host keeps its own address."""
        return _OWN_ADDRESS if self.own else _OTHERS_ROUTE

    @property
    def _words(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        kind = f"{self.kind} " if self.kind else ""
        return f"{kind}{self.destination}{via}{f' dev {self.dev}' if self.dev and not self.kind else ''}"


def bridge(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:
    """Check the bridge's name: it is free, or the bridge is ours or can be adopted, because its address is right."""
    with Netlink() as netlink:
        link = rtnetlink.get_link(netlink, spec.bridge)
        present = rtnetlink.addresses(netlink, link.index) if link is not None else []
    if link is None:
        return []
    if link.kind != "bridge":
        kind = link.kind or "physical"
        return [error("bridge", spec.bridge, f"is a {kind} link, not a bridge", _another_bridge())]
    if previous is not None and previous.bridge == spec.bridge:
        return []
    if link.alias.startswith(rtnetlink.OWNER_MARK) and not _has_ports(link):
        what_to_do = hint.command(f"ip link del {spec.bridge}", f"it remains from an earlier node ({link.alias})")
    else:
        what_to_do = _another_bridge()
    findings = []
    for gateway in gateways(spec):
        present_addresses = [Cidr(packed, prefix) for packed, prefix in present if len(packed) == len(gateway.packed)]
        # a link usually has several IPv6 addresses; only an address in our subnet conflicts
        conflicting = [address for address in present_addresses if gateway.bits == 32 or gateway.overlaps(address)]
        if conflicting and gateway not in present_addresses:
            has = ", ".join(map(str, conflicting))
            findings.append(error("bridge", spec.bridge, f"has the address {has}, not {gateway}", what_to_do))
    return findings


def _has_ports(link: Link) -> bool:
    with Netlink() as netlink:
        return any(other.master == link.index for other in rtnetlink.all_links(netlink))


def _another_bridge() -> Hint:
    with Netlink() as netlink:
        taken = {link.name for link in rtnetlink.all_links(netlink)}
    return hint.option(f"--bridge {next(name for name in map('cni{}'.format, count()) if name not in taken)}")


def subnet_overlap(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:
    """Check that no foreign route, address or gateway of the host lies in this node's pod CIDR or a peer's.

    A route that covers a pod CIDR is not an obstacle, because the kernel prefers the longest prefix.
    """
    foreign = list(_foreign_routes(spec, previous))
    inside = [*foreign, *_own_addresses(spec, previous)]
    index = _index(spec)
    routes_by_cidr: dict[str, list[HostRoute]] = {}
    for route in inside:
        for pod_cidr in index.covering(parse_cidr(route.destination)):
            routes_by_cidr.setdefault(str(pod_cidr), []).append(route)
    findings = []
    for subnet in spec.subnets:
        for route in _without_links(routes_by_cidr.get(subnet, [])):
            message = f"overlaps the host's {route}"
            findings.append(error("subnet-overlap", subnet, message, _suggest(spec, subnet, inside)))
    for peer in spec.known_peers:
        for route in _without_links(routes_by_cidr.get(peer.pod_cidr, [])):
            message = f"the pod CIDR of peer {peer.via} overlaps the host's {route}"
            findings.append(error("subnet-overlap", peer.pod_cidr, message, route.way_out))
    return findings + _hidden_hosts(spec, foreign, index)


def _index(spec: NodeSpec) -> CidrIndex:
    return CidrIndex(map(parse_cidr, (*spec.subnets, *(peer.pod_cidr for peer in spec.known_peers))))


def _without_links(routes: list[HostRoute]) -> list[HostRoute]:
    """Return the routes and addresses in a pod CIDR. An address is left out if its link's route is there too."""
    by_route = {(route.dev, route.destination) for route in routes if not route.own}
    return [
        route
        for route in routes
        if not route.own or not any(dev == route.dev and _lies_in(route.destination, other) for dev, other in by_route)
    ]


def _hidden_hosts(spec: NodeSpec, foreign: list[HostRoute], index: CidrIndex) -> list[PreflightFinding]:
    """Report gateways and peers' addresses inside a pod CIDR: the route to its pods would hide them."""
    needed = {f"the gateway {route.gateway} of the host's {route}": route.gateway for route in foreign if route.gateway}
    needed |= {f"the default gateway {gateway}": gateway for gateway in host_links.default_gateways()}
    needed |= {f"the address of peer {peer.via}": peer.via for peer in spec.known_peers}
    findings = []
    for obstacle, address in needed.items():
        packed = parse_address(address)
        for pod_cidr in index.covering(Cidr(packed, len(packed) * 8)):
            way_out = hint.advice(
                f"choose a pod CIDR that does not contain {address}",
                because="which addresses this site reserves for pods is not known here",
            )
            message = f"contains {obstacle}, which would become unreachable"
            findings.append(error("subnet-overlap", str(pod_cidr), message, way_out))
    return findings


def policy_rules(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that no policy rule (`ip rule`) diverts pods' packets before the kernel looks in the main table."""
    findings = []
    for diversions in pod_routes.causes(pod_routes.predicted(spec)):
        rule = diversions[0].rule
        subject = f"rule {rule.priority}" if rule is not None else "rules"
        findings.append(warning("policy-rules", subject, diversions[0].words, pod_routes.hint_for(diversions)))
    return findings


def network_overlap(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:
    """Check that the host's own addresses lie outside the pod network, where nothing is masqueraded."""
    bridges = {spec.bridge, previous.bridge if previous else spec.bridge}
    return [
        warning(
            "network-overlap",
            address,
            f"this host's address on {dev} lies in the pod network {network}: packets from pods to other hosts on that "
            "subnet are not masqueraded, because the destination is inside the pod network",
            hint.advice(
                "choose a --network that contains no node's address",
                because="the pod network is the same on all nodes, and their addresses are not known here",
            ),
        )
        for address, dev in host_links.own_addresses().items()
        for network in spec.networks
        if dev not in bridges and parse_cidr(network).holds(parse_address(address))
    ]


def peer_link(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that each peer is on a link of this host: a plain route to its pods needs the peer as next hop."""
    own, names = host_links.own_addresses(), host_links.link_names()
    reached_peers = host_links.reach_peers(host_links.peer_links(spec))
    findings = []
    for peer in spec.known_peers:
        subject = f"{peer.pod_cidr} via {peer.via}"
        if peer.via in own:
            message = f"{peer.via} is this host's own address on {own[peer.via]}"
            what_to_do = hint.advice("give the other node's address", because="only the operator knows it")
            findings.append(error("peer-link", subject, message, what_to_do))
            continue
        if peer.dev and peer.dev not in names:
            what_to_do = hint.advice(
                f"create {peer.dev} or name another link, or none: "
                f"cnictl route add-peer {peer.pod_cidr}={peer.via}%LINK --replace",
                because="only the operator knows which link leads to the peer",
            )
            findings.append(
                error("peer-link", subject, f"there is no link {peer.dev}, which its route has to use", what_to_do)
            )
            continue
        reached = reached_peers[peer]
        wanted_link = peer.dev or spec.uplink
        if reached is None:
            what_to_do = hint.advice(
                f"give this host an address on the link that {peer.via} is on{_or_link_local(spec, peer)}",
                because="the host's own network configuration assigns its addresses",
            )
            findings.append(error("peer-link", subject, f"the host has no route to {peer.via}", what_to_do))
        elif reached.gateway:
            message = (
                f"is not on a network segment of this host, but behind the gateway {reached.gateway}: "
                "plain routes can't carry pods' packets there"
            )
            what_to_do = hint.advice(
                f"give an address of that node on a shared link (`ip route get {peer.via}` then shows no gateway)"
                f"{_or_link_local(spec, peer)}",
                because="only the operator knows the other node's addresses",
            )
            findings.append(error("peer-link", subject, message, what_to_do))
        elif wanted_link and wanted_link != reached.dev:
            message = f"{peer.via} is reached over {reached.dev}, not over {wanted_link}"
            what_to_do = hint.advice(
                f"name {reached.dev} as the link to {peer.via}, or no link",
                because="it replaces the link that the operator named",
            )
            findings.append(error("peer-link", subject, message, what_to_do))
    return findings


def _or_link_local(spec: NodeSpec, peer: Peer) -> str:
    """Return the end of a hint: use the peer's link-local address if the link has no other IPv6 address."""
    if not is_ipv6(peer.via):
        return ""
    link = peer.dev or host_links.uplink(spec)
    if not link:
        return f", or name its link-local address with the link to it: {peer.pod_cidr}=fe80::…%LINK"
    own = [parse_address(address) for address, dev in host_links.own_addresses().items() if dev == link]
    if any(len(address) == 16 and not is_link_local(address) for address in own):
        return ""
    return (
        f" ({link} has no IPv6 address of its own), "
        f"or name the peer's link-local address: {peer.pod_cidr}=fe80::…%{link}"
    )


def ipv6(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that the host and its links support IPv6, if the node has an IPv6 subnet."""
    if not any(map(is_ipv6, spec.subnets)):
        return []
    subnet = next(filter(is_ipv6, spec.subnets))
    without = f"or leave out --subnet {subnet}"
    disabled = sysctl.read("net/ipv6/conf/all/disable_ipv6")
    if not disabled:
        message = "the kernel runs without IPv6"
        what_to_do = hint.advice(
            f"remove ipv6.disable=1 from the kernel's command line and use a kernel with CONFIG_IPV6, {without}",
            because="it needs a reboot",
        )
        return [error("ipv6", subnet, message, what_to_do)]
    if disabled != "0":
        what_to_do = hint.command("sysctl -w net.ipv6.conf.all.disable_ipv6=0", f"also in /etc/sysctl.d; {without}")
        return [error("ipv6", subnet, "IPv6 is off on this host: net.ipv6.conf.all.disable_ipv6 is 1", what_to_do)]
    limit = host_links.smallest_mtu(spec)
    if not spec.mtu and limit.mtu < MTU_MIN_IPV6:
        whose = f" (the link to peer {limit.peer.via})" if limit.peer is not None else ""
        message = f"its MTU is {limit.mtu}{whose}, and the kernel turns off IPv6 below {MTU_MIN_IPV6}"
        what_to_do = hint.advice(
            f"raise the MTU, {without}", because="the link belongs to the host's own network configuration"
        )
        return [error("ipv6", limit.link, message, what_to_do)]
    return []


def _foreign_routes(spec: NodeSpec, previous: NodeSpec | None) -> Iterator[HostRoute]:
    """Yield the main table's routes, except default routes and routes of our bridge or to our peers.

    A route with our protocol number that leads to no peer is left from an earlier run; the next run removes it. Other
    tables matter only if a policy rule leads there; `policy_rules` checks that.
    """
    bridges = {spec.bridge} | ({previous.bridge} if previous else set())
    wanted = {(peer.pod_cidr, peer.via) for peer in spec.known_peers}
    earlier = {peer.pod_cidr for peer in previous.peers} if previous else set()
    for destination, route in route_lookup.routes():
        usable = route.kind == route_lookup.UNICAST or route.kind in route_lookup.REFUSING
        if (
            not destination.prefix
            or route.table != route_lookup.MAIN_TABLE
            or not usable
            or route.protocol in (route_lookup.PROTOCOL, route_lookup.LEARNED_PROTOCOL)
        ):
            continue
        if route.dev in bridges or route.destination in earlier or (route.destination, route.gateway) in wanted:
            continue
        yield HostRoute(route.destination, route.gateway, route.dev, route_lookup.REFUSING.get(route.kind, ""))


def _own_addresses(spec: NodeSpec, previous: NodeSpec | None) -> Iterator[HostRoute]:
    bridges = {spec.bridge} | ({previous.bridge} if previous else set())
    for address, dev in host_links.own_addresses().items():
        if dev not in bridges:
            yield HostRoute(f"{address}/{len(parse_address(address)) * 8}", address, dev, own=True)


def _lies_in(destination: str, pod_cidr: str) -> bool:
    return parse_cidr(pod_cidr).covers(parse_cidr(destination))


def _suggest(spec: NodeSpec, subnet: str, foreign: list[HostRoute]) -> Hint:
    """Return the hint with a free pod CIDR of the same size inside the pod network."""
    network = of_family(spec.networks, subnet)
    within = [route.destination for route in foreign if _lies_in(route.destination, network)]
    taken = [*within, *(peer.pod_cidr for peer in spec.known_peers)]
    free = first_free(network, parse_cidr(subnet).prefix, taken)
    if free:
        return hint.option(f"--subnet {free}", f"it is free within {network} on this host")
    return hint.advice(
        f"choose another --network: no subnet of this size is free within {network}",
        because="the pod network is the same on all nodes",
    )
