"""The node's addresses against those that the host has already: bridge, routes, peers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from socket import AF_INET, AF_INET6

from netaddr import IPAddress, IPNetwork

from cnictl.core import rtnetlink
from cnictl.core.cidr import Cidr, parse_address, parse_cidr
from cnictl.core.rtnetlink import Link, Netlink
from cnictl.node import hint, host
from cnictl.node.addressing import MTU_MIN_IPV6
from cnictl.node.hint import Hint
from cnictl.node.meant import first_free
from cnictl.node.peers import is_link_local
from cnictl.node.preflight.finding import Finding, error, warning
from cnictl.node.resources import sysctl
from cnictl.node.resources.bridge import gateways
from cnictl.node.resources.route import PROTOCOL
from cnictl.node.spec import NodeSpec, Peer, is_ipv6, of_family

_RT_TABLE_LOCAL = 255
_RTN_UNICAST = 1
_RTN_REFUSING = (6, 7, 8)  # blackhole, unreachable, prohibit (linux/rtnetlink.h)
_OUR_ALIAS = "cnictl:"
_IPV6_CONF = "/proc/sys/net/ipv6/conf"
_OTHERS_ROUTE = hint.advice(
    "give that node another pod CIDR, or take the route out of the set-up that it comes from",
    because="the route is another program's or the operator's, and what goes through it is not known here",
)


@dataclass(frozen=True)
class HostRoute:
    """A route of the host's that leads to a part of the address space."""

    destination: str
    gateway: str
    dev: str

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        return f"{self.destination}{via}{f' dev {self.dev}' if self.dev else ''}"


def bridge(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:
    """The bridge's name is free, ours, or a hand-made bridge with the right address, which is adopted."""
    with Netlink() as netlink:
        link = rtnetlink.get_link(netlink, spec.bridge)
        present = rtnetlink.addresses(netlink, link.index) if link is not None else []
    if link is None:
        return []
    if link.kind != "bridge":
        kind = link.kind or "physical"
        return [error("bridge", spec.bridge, f"is no bridge but a {kind} link", _another_bridge())]
    if previous is not None and previous.bridge == spec.bridge:
        return []
    if link.alias.startswith(_OUR_ALIAS) and not _has_ports(link):
        what = hint.command(f"ip link del {spec.bridge}", f"it is left from a former set-up ({link.alias})")
    else:
        what = _another_bridge()
    found = []
    for gateway in gateways(spec):
        there = [Cidr(packed, prefix) for packed, prefix in present if len(packed) == len(gateway.packed)]
        # a link has several IPv6 addresses by nature; only one in our subnet is in the way
        in_the_way = [one for one in there if gateway.bits == 32 or gateway.overlaps(one)]
        if in_the_way and gateway not in there:
            has = ", ".join(map(str, in_the_way))
            found.append(error("bridge", spec.bridge, f"has the address {has}, not {gateway}", what))
    return found


def _has_ports(link: Link) -> bool:
    with Netlink() as netlink:
        return any(other.master == link.index for other in rtnetlink.all_links(netlink))


def _another_bridge() -> Hint:
    with Netlink() as netlink:
        taken = {link.name for link in rtnetlink.all_links(netlink)}
    return hint.option(f"--bridge {next(name for name in map('cni{}'.format, count()) if name not in taken)}")


def subnet_overlap(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:
    """No route of the host's but our own leads into this node's pod CIDR or a peer's."""
    foreign = list(_foreign_routes(spec, previous))
    found = []
    for route in foreign:
        for subnet in spec.subnets:
            if _overlap(route.destination, subnet):
                message = f"overlaps the host's route {route}"
                found.append(error("subnet-overlap", subnet, message, _suggest(spec, subnet, foreign)))
        for peer in spec.peers:
            if _overlap(route.destination, peer.pod_cidr):
                message = f"the pod CIDR of peer {peer.via} overlaps the host's route {route}"
                found.append(error("subnet-overlap", peer.pod_cidr, message, _OTHERS_ROUTE))
    return found


def network_overlap(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:
    """The host's own addresses lie outside the pod network, within which nothing is masqueraded."""
    bridges = {spec.bridge, previous.bridge if previous else spec.bridge}
    return [
        warning(
            "network-overlap",
            address,
            f"this host's address on {dev} lies in the pod network {network}: pods' traffic to its neighbours "
            "leaves with the pods' own addresses",
            hint.advice(
                "choose a --network that no node's address lies in",
                because="the pod network is the same on all nodes, and their addresses are not known here",
            ),
        )
        for address, dev in host.own_addresses().items()
        for network in spec.networks
        if dev not in bridges and IPAddress(address) in IPNetwork(network)
    ]


def peer_link(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """Each peer is on the link: a plain route to its pods needs it as the next hop."""
    own = host.own_addresses()
    found = []
    for peer in spec.peers:
        subject = f"{peer.pod_cidr} via {peer.via}"
        if peer.via in own:
            message = f"{peer.via} is this host's own address, on {own[peer.via]}"
            what = hint.advice("give the other node's address", because="only the operator knows it")
            found.append(error("peer-link", subject, message, what))
            continue
        reached = host.reach(peer.via, peer.dev if is_link_local(parse_address(peer.via)) else "")
        asked = peer.dev or spec.uplink
        if reached is None:
            what = hint.advice(
                f"give this host an address on the link that {peer.via} is on{_or_link_local(spec, peer)}",
                because="the host's addresses are its own network set-up's to give",
            )
            found.append(error("peer-link", subject, f"the host has no route to {peer.via}", what))
        elif reached.gateway:
            message = (
                f"not on the same link, reached through {reached.gateway}: plain routes can't carry pod traffic there"
            )
            what = hint.advice(
                f"give an address of that node on a link both share (`ip route get {peer.via}` then names no gateway)"
                f"{_or_link_local(spec, peer)}",
                because="only the operator knows the other node's addresses",
            )
            found.append(error("peer-link", subject, message, what))
        elif asked and asked != reached.dev:
            message = f"{peer.via} is reached over {reached.dev}, not over {asked}"
            what = hint.advice(
                f"name {reached.dev}, or none, as the link to {peer.via}",
                because="it takes the place of what the operator named",
            )
            found.append(error("peer-link", subject, message, what))
    return found


def _or_link_local(spec: NodeSpec, peer: Peer) -> str:
    """The other way where the uplink has no IPv6 address but its link-local one: over that."""
    if not is_ipv6(peer.via):
        return ""
    link = peer.dev or host.uplink(spec)
    if not link:
        return f", or name its link-local one, with the link to it: {peer.pod_cidr}=fe80::…%LINK"
    own = [parse_address(address) for address, dev in host.own_addresses().items() if dev == link]
    if any(len(address) == 16 and not is_link_local(address) for address in own):
        return ""
    return (
        f" ({link} has no IPv6 address of its own), or name the peer's link-local one: {peer.pod_cidr}=fe80::…%{link}"
    )


def ipv6(spec: NodeSpec, previous: NodeSpec | None) -> list[Finding]:  # noqa: ARG001
    """Where the node has an IPv6 subnet: the host speaks IPv6, and its links carry it."""
    if not any(map(is_ipv6, spec.subnets)):
        return []
    subnet = next(filter(is_ipv6, spec.subnets))
    without = f"or leave out --subnet {subnet}"
    try:
        disabled = sysctl.read(f"{_IPV6_CONF}/all/disable_ipv6") != "0"
    except FileNotFoundError:
        message = "the kernel runs without IPv6"
        what = hint.advice(
            f"remove ipv6.disable=1 from the kernel's command line (a kernel with CONFIG_IPV6), {without}",
            because="it takes a reboot",
        )
        return [error("ipv6", subnet, message, what)]
    if disabled:
        what = hint.command("sysctl -w net.ipv6.conf.all.disable_ipv6=0", f"and in /etc/sysctl.d; {without}")
        return [error("ipv6", subnet, "IPv6 is off on this host: net.ipv6.conf.all.disable_ipv6 is 1", what)]
    mtu = host.mtu(spec)
    if mtu < MTU_MIN_IPV6:
        message = f"the uplink's MTU is {mtu}, and the kernel turns IPv6 off below {MTU_MIN_IPV6}"
        what = hint.advice(f"raise it, {without}", because="the uplink belongs to the host's own network set-up")
        return [error("ipv6", host.uplink(spec), message, what)]
    return []


def _foreign_routes(spec: NodeSpec, previous: NodeSpec | None) -> Iterator[HostRoute]:
    """Routes of every table but the local one, without defaults, our bridge's, and those to our peers.

    A route with our protocol number to nobody's peer is left from before, and removed with the first run.
    """
    bridges = {spec.bridge} | ({previous.bridge} if previous else set())
    wanted = {(peer.pod_cidr, peer.via) for peer in spec.peers}
    former = {peer.pod_cidr for peer in previous.peers} if previous else set()
    for route in _routes():
        if route.dev in bridges or route.destination in former or (route.destination, route.gateway) in wanted:
            continue
        yield route


def _routes() -> Iterator[HostRoute]:
    from pyroute2 import IPRoute

    with IPRoute() as iproute:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in iproute.get_links()}
        for route in [one for family in (AF_INET, AF_INET6) for one in iproute.get_routes(family=family)]:
            destination = route.get_attr("RTA_DST")
            table = route.get_attr("RTA_TABLE") or route["table"]
            kinds = (_RTN_UNICAST, *_RTN_REFUSING)
            passed = destination is None or table == _RT_TABLE_LOCAL or route["type"] not in kinds
            if passed or route["proto"] == PROTOCOL:
                continue
            dev = names.get(route.get_attr("RTA_OIF"), "")
            yield HostRoute(f"{destination}/{route['dst_len']}", route.get_attr("RTA_GATEWAY") or "", dev)


def _overlap(one: str, other: str) -> bool:
    return parse_cidr(one).overlaps(parse_cidr(other))


def _suggest(spec: NodeSpec, subnet: str, foreign: list[HostRoute]) -> Hint:
    """A pod CIDR of the same size, inside the network, that nothing leads into."""
    network = of_family(spec.networks, subnet)
    taken = [*(route.destination for route in foreign), *(peer.pod_cidr for peer in spec.peers)]
    free = first_free(network, parse_cidr(subnet).prefix, taken)
    if free:
        return hint.option(f"--subnet {free}", f"it is free within {network} on this host")
    return hint.advice(
        f"nothing of this size is free within {network}: choose another --network",
        because="the pod network is the same on all nodes",
    )
