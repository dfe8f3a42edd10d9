"""Check the path to the other nodes: uplink, addresses, MTU, and whether packets arrive."""

from collections.abc import Iterable
from dataclasses import replace

from cnictl.core.cidr import AddressError, format_address, parse_address, parse_cidr, parse_interface
from cnictl.core.netlink.rtnetlink import Link
from cnictl.doctor import echo
from cnictl.doctor.before import preflight_check
from cnictl.doctor.check import Check, Finding, HostFault, Remedy, command_action
from cnictl.doctor.facts import Facts, counters, said_by, text_of
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import host_links, neighbours, pod_routes, route_lookup
from cnictl.node.reach.peer_hints import PeerHints
from cnictl.node.resources.bridge import OWNER_MARK, gateways
from cnictl.node.spec.addressing import MTU_MIN_IPV6
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6, of_family
from cnictl.node.spec.overlaps import overlapping
from cnictl.probe import owning, wire
from cnictl.probe.failure import gateway_of

_OPERSTATE_UP, _OPERSTATE_UNKNOWN = 6, 0
_ANYWHERE = pod_routes.OUTSIDE[0]
_VENDOR = "/sys/class/dmi/id/sys_vendor"


def _uplink_down(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None:
        return
    if facts.spec.uplink and facts.spec.uplink not in facts.links:
        yield HostFault(
            facts.spec.uplink,
            "does not exist, but node.toml names it as the uplink",
            _another_uplink(facts.spec),
            False,
        )
    elif facts.spec.known_peers and not facts.others and (down := _down_towards(facts, facts.spec)) is not None:
        yield _no_way_out(down, "nothing leaves this node")
    elif facts.spec.known_peers and not facts.others:
        yield HostFault(
            "uplink",
            "no link leads to the peers: there is no default route, and no peer is on a link here",
            hint.advice(
                "bring up the link to the peers and give it its address: ip -br link; ip route",
                because="only the operator knows which link leads to the peers",
            ),
            False,
        )
    for name in facts.others:
        link = facts.links.get(name)
        if link is not None and (not link.up or link.operstate not in (_OPERSTATE_UP, _OPERSTATE_UNKNOWN)):
            peers = [peer.via for peer, other in facts.peer_links.items() if other == name]
            lost = "nothing leaves this node" if facts.others == [name] else f"nothing reaches {', '.join(peers[:3])}"
            if not peers and facts.others != [name]:
                lost = "nothing reaches outside hosts"
            yield _no_way_out(link, lost)


def _down_towards(facts: Facts, spec: NodeSpec) -> Link | None:
    """Return a link that is down and has an address in a peer's subnet. A link keeps its addresses when down."""
    for interface, name in host_links.own_interfaces().items():
        link = facts.links.get(name)
        own = parse_interface(interface)
        if link is not None and not link.up and any(own.holds(parse_address(peer.via)) for peer in spec.known_peers):
            return link
    return None


def _another_uplink(spec: NodeSpec) -> Hint:
    """Return the hint for an uplink of node.toml that does not exist."""
    if host_links.uplink(replace(spec, uplink="")):
        return hint.command("cnictl init-node --uplink ''", "uses the link of the default route; or name another link")
    return hint.advice(
        "name the link to the other nodes: cnictl init-node --uplink LINK; ip -br link lists them",
        because="no link leads to the peers, so cnictl can't tell which one is meant",
    )


def _no_way_out(link: Link, lost: str) -> HostFault:
    if link.up:
        what_to_do = hint.advice(
            f"check the other end of {link.name}: the cable, the switch port, or the virtual network card",
            because="the other end provides the carrier",
        )
        return HostFault(link.name, f"has no carrier: {lost}", what_to_do, False)
    note = "this also deleted its default route, which the host's network configuration has to restore"
    return HostFault(link.name, f"is down: {lost}", hint.command(f"ip link set {link.name} up; cnictl apply", note))


def _up_again(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(command_action("ip", "link", "set", finding.subject, "up"),))


def _same_pods(facts: Facts) -> Iterable[HostFault]:
    spec = facts.spec
    if spec is None:
        return
    peers = spec.known_peers
    for first, second in overlapping([parse_cidr(peer.pod_cidr) for peer in peers]):
        peer, other = peers[first], peers[second]
        yield HostFault(
            other.pod_cidr,
            f"peers {peer.via} and {other.via} both have it in node.toml",
            hint.advice(
                "remove the wrong one from node.toml, then: cnictl apply",
                because="only the operator knows which node has these pods",
            ),
        )
    for name in facts.others:
        link = facts.links.get(name)
        if link is not None and link.up:
            yield from _shared_addresses(facts, name)


def _shared_addresses(facts: Facts, link: str) -> Iterable[HostFault]:
    """Report another host on a link that has the bridge's address."""
    source = _own_address(facts, link)
    for gateway in gateways(facts.spec) if facts.spec is not None else ():
        address = format_address(gateway.packed)
        macs = wire.answering([address], link, source)[address] if source and not is_ipv6(address) else set()
        if not macs:
            continue
        # a router with proxy ARP also answers for an address that nobody has
        if not wire.answers(format_address(gateway.nth(gateway.last - gateway.first - 1)), link, source):
            yield HostFault(
                address,
                f"{_whose(facts, macs)} on {link} has this address too: it has the same pod CIDR as this node "
                f"({source})",
                hint.advice(
                    "give one of the two hosts another pod CIDR: cnictl init-node --subnet CIDR",
                    because="the pods of the host that gets another one have to restart",
                ),
            )


def _whose(facts: Facts, macs: set[str]) -> str:
    """Return words for the host with a MAC: the peer that has it in the neighbour table, else `another host`."""
    mac = min(macs)
    peers = {peer.via for peer in facts.peer_links}
    known = next((address for address in neighbours.addresses_at(mac) if address in peers), "")
    return f"{f'peer {known}' if known else 'another host'} (MAC {mac})"


def _own_address(facts: Facts, link: str) -> str:
    """Return the IPv4 address from which the kernel sends on a link; empty if there is none."""
    there = [peer.via for peer, name in facts.peer_links.items() if name == link and not is_ipv6(peer.via)]
    gateway = route_lookup.look_up(route_lookup.Packet(_ANYWHERE, oif=link), entries=False)
    for target in (*there[:1], *([gateway.gateway] if gateway.gateway else []), _ANYWHERE):
        source = route_lookup.source_to(target, link)
        if source:
            return source
    return ""


def _resolver_hidden(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None:
        return
    for line in text_of("/etc/resolv.conf").splitlines():
        words = line.split()
        if words[:1] != ["nameserver"] or not words[1:]:
            continue
        server = words[1].partition("%")[0]
        try:
            packed = parse_address(server)
        except AddressError:
            continue
        for network in facts.spec.networks:
            if parse_cidr(network).holds(packed):
                yield HostFault(
                    server,
                    f"this host's name server has an address in the pod network {network}",
                    hint.advice(
                        "choose a --network that does not contain it, or another name server",
                        because="the pod network is the same on all nodes",
                    ),
                )


def _too_large(facts: Facts) -> Iterable[HostFault]:
    """Compare MTUs on this node: packets larger than a link's MTU are fragmented or refused."""
    limit = facts.narrowest
    if facts.spec is None or limit is None or not facts.spec.known_peers:
        return
    bridge = facts.links.get(facts.spec.bridge)
    lasting = bridge is not None and (facts.spec.mtu or not bridge.alias.startswith(OWNER_MARK))  # else it is drift
    if bridge is not None and lasting and bridge.mtu > limit.mtu:
        yield HostFault(
            bridge.name,
            f"its MTU of {bridge.mtu} is larger than {limit.link}'s MTU of {limit.mtu}",
            _smaller_mtu(facts.spec, limit.mtu),
            False,
        )
    for port in facts.ports:
        if port.mtu > limit.mtu and (bridge is None or bridge.mtu <= limit.mtu):
            yield HostFault(
                port.name,
                f"its pod has an MTU of {port.mtu}, more than {limit.link}'s {limit.mtu}",
                hint.advice("restart that pod", because="a pod gets its MTU when it starts"),
                False,
            )


def _smaller_mtu(spec: NodeSpec, mtu: int, note: str = "") -> Hint:
    """Return the hint for pods' packets of at most `mtu` bytes. The host's own links are not changed."""
    if any(map(is_ipv6, spec.subnets)) and mtu < MTU_MIN_IPV6:
        return hint.advice(
            f"raise the path's MTU to at least {MTU_MIN_IPV6} bytes, which IPv6 requires",
            because="the bridge and pods can't have less, and cnictl does not own the links on the path",
        )
    after = "running pods have to be restarted to get it"
    return hint.command(f"cnictl bridge up --mtu {mtu}", f"{after}; {note}" if note else after)


def _black_hole(facts: Facts) -> Iterable[HostFault]:
    """Check that packets of the bridge's MTU arrive at each peer."""
    if facts.spec is None:
        return
    bridge = facts.links.get(facts.spec.bridge)
    sizes: dict[str, int] = {}
    for peer, name in facts.peer_links.items():
        link = facts.links.get(name)
        if link is not None and link.up and _is_way_of_host(peer) and peer.via in facts.answering:
            sizes[peer.via] = min(link.mtu, bridge.mtu) if bridge is not None else link.mtu
    for address, largest in echo.at_once(lambda via: echo.largest(via, mtu=sizes[via]), sorted(sizes)):
        if largest < sizes[address]:
            yield HostFault(
                address,
                f"packets of {sizes[address]} bytes are lost on the path; {largest} bytes pass",
                _smaller_mtu(facts.spec, largest, f"or raise the path's MTU to {sizes[address]}"),
            )


def _is_way_of_host(peer: Peer) -> bool:
    """Return whether a ping from this host to the peer leaves through the link of the peer's route."""
    return not peer.dev or route_lookup.look_up(route_lookup.Packet(peer.via), entries=False).dev == peer.dev


def _pods_filtered(facts: Facts) -> Iterable[HostFault]:
    """Report peers that don't answer pods. The bridge's address stands in for a pod's: same subnet and route."""
    spec = facts.spec
    if spec is None or not spec.known_peers:
        return
    sources = {is_ipv6(address): address for address in (format_address(gateway.packed) for gateway in gateways(spec))}

    def filtered(peer: Peer) -> bool:
        family, target = is_ipv6(peer.pod_cidr), gateway_of(peer.pod_cidr)
        return not echo.answers(target, sources[family]) and echo.answers(
            target
        )  # second: from the source that the kernel chooses

    answering_peers = [
        peer
        for peer in spec.known_peers
        if _is_way_of_host(peer) and is_ipv6(peer.pod_cidr) in sources and peer.via in facts.answering
    ]
    for peer, is_filtered in echo.at_once(filtered, answering_peers):
        if is_filtered:
            vendor = text_of(_VENDOR)
            yield HostFault(
                peer.via,
                f"answers this node but not its pods' addresses: it has no route back to {spec.subnet}, or a device "
                f"on the path drops unknown sources{f' (this machine is from {vendor})' if vendor else ''}",
                _route_back(facts, spec, peer),
            )


def _route_back(facts: Facts, spec: NodeSpec, peer: Peer) -> Hint:
    """Return the command that gives the peer its route to this node's pods."""
    own = route_lookup.source_to(peer.via, facts.peer_links.get(peer, ""))
    cloud = "in a cloud, also turn off the source/destination check of both machines"
    return PeerHints(spec).route_back(peer, of_family(spec.subnets, peer.pod_cidr), own, cloud)


def _pod_cidr_elsewhere(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None:
        return
    hints = PeerHints(facts.spec)
    for peer, state in facts.served.items():
        fault, what_to_do = owning.in_words(peer, state, hints)
        if fault:
            yield HostFault(peer.pod_cidr, fault, what_to_do)


def _peer_silent(facts: Facts) -> Iterable[HostFault]:
    for peer, state in facts.served.items():
        if state == owning.UNKNOWN:
            yield HostFault(
                peer.via,
                f"does not answer this node's echo requests: the state of {peer.pod_cidr} is unknown",
                hint.advice(
                    f"check that {peer.via} is up, on the same network segment, and accepts ICMP echo",
                    because="a peer that does not answer can't be examined from here",
                ),
            )


def _bad_checksums(facts: Facts) -> Iterable[HostFault]:
    wrong = counters("/proc/net/snmp", "Udp").get("InCsumErrors", 0)
    for link in facts.links.values() if wrong else ():
        if link.kind == "vxlan" and "tx-checksum-ip-generic: on" in said_by(["ethtool", "-k", link.name]):
            yield HostFault(
                link.name,
                f"{wrong} datagrams had a wrong checksum, and this link leaves checksums to the network card",
                hint.command(f"ethtool -K {link.name} tx-checksum-ip-generic off"),
            )


def _no_offload(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(command_action("ethtool", "-K", finding.subject, "tx-checksum-ip-generic", "off"),))


_OWN_WAY = (
    "uplink-down", "peer-link", "peer-route", "overlap", "reverse-path", "conntrack-full", "forwarding",
    "same-pod-cidr", "mtu-path",
)  # fmt: skip
"""Checks whose findings explain why this node does not reach its peers."""

CHECKS = (
    Check(
        "uplink-down", 34, "error", "IFF_UP and IFLA_OPERSTATE of the uplink and of the links to peers",
        "Setting a link down and up again also deletes every route through it.",
        "ip -br link show eth0\nip link set eth0 up; cnictl apply", _uplink_down, _up_again,
    ),
    Check(
        "peer-link", 33, "error", "RTM_GETROUTE to each peer: RTA_GATEWAY, RTA_OIF; the host's own addresses",
        "A plain route needs the peer as its next hop, on a shared link.",
        "ip route get 10.0.10.51            # prints no gateway if the peer is on the link",
        preflight_check("peer-link"), behind=("uplink-down",),
    ),
    Check(
        "overlap", 35, "error", "RTM_GETROUTE of the main table, the host's addresses and gateways, against pod CIDRs",
        "If a pod and another host have the same address, only one of them can be reached.",
        "ip route show", preflight_check("subnet-overlap"),
    ),
    Check(
        "node-in-network",
        35,
        "warning",
        "RTM_GETADDR of every link against the pod network",
        "Packets from pods to other hosts on that subnet are not masqueraded, "
        "because the destination is inside the pod network.",
        "ip -br address\ncnictl init-node --network 10.244.0.0/20 …",
        preflight_check("network-overlap"),
        behind=("overlap",),
    ),
    Check(
        "resolver-in-network", 35, "error", "nameserver lines of /etc/resolv.conf against the pod network",
        "A name server with a pod's address can't be reached once the bridge has that network.",
        "cat /etc/resolv.conf", _resolver_hidden,
    ),
    Check(
        "same-pod-cidr", 36, "error",
        "pod CIDRs of the peers in node.toml; ARP for the bridge's own address on the links to other hosts",
        "Two nodes with one pod CIDR assign the same addresses, and each peer's route leads to only one of them.",
        "arping -I eth0 10.244.0.1          # only this node may answer", _same_pods,
        behind=("uplink-down",), waits=True,
    ),
    Check(
        "mtu", 37, "error",
        "IFLA_MTU of the bridge, its ports and the links to other hosts; RTAX_MTU of the routes to peers",
        "Packets above the next link's MTU are fragmented or rejected: small requests work, large replies are lost.",
        "ip -br link; ip -d link show cni0\ncnictl bridge up --mtu 1450", _too_large,
    ),
    Check(
        "mtu-path", 37, "error", "unfragmented echo requests to each peer: as large as the pods' MTU, then smaller",
        "If no router reports that a packet was too large, connections open and then hang.",
        "ping -M do -s 1472 10.0.10.51\ncnictl bridge up --mtu 1400     # then restart the pods", _black_hole,
        behind=("uplink-down", "peer-link"), waits=True,
    ),
    Check(
        "pods-filtered", 38, "error",
        "an echo request to each peer's gateway address from the node's own address and from the bridge's; "
        "/sys/class/dmi/id/sys_vendor",
        "Clouds drop packets with a source address that they did not assign, such as pods' addresses.",
        "ping -I 10.0.0.210 10.244.1.1; ping -I 10.244.0.1 10.244.1.1", _pods_filtered,
        behind=("uplink-down", "peer-link", "peer-route", "masquerade", "bridge", "bridge-address", "forwarding",
                "same-pod-cidr", "reverse-path", "overlap"), waits=True,
    ),
    Check(
        "peer-pods", 38, "error",
        "echo requests with a time to live of 1 to the gateway address and the last address of each peer's pod CIDR",
        "A node that was reset, or now has another pod CIDR, still answers ping but drops packets to the pods.",
        "ping -t 1 10.244.1.1               # answers only if the peer itself has it\n"
        "cnictl route del-peer 10.244.1.0/24",
        _pod_cidr_elsewhere, behind=_OWN_WAY, waits=True,
    ),
    Check(
        "peer-silent", 38, "warning", "echo requests to each peer's own address",
        "The state of a silent peer is unknown, and its pods may be unreachable.",
        "ping 10.0.10.51\ncnictl test-connectivity", _peer_silent, behind=_OWN_WAY, waits=True,
    ),
    Check(
        "vxlan-checksum", 39, "warning", "Udp InCsumErrors in /proc/net/snmp; ethtool -k of vxlan links",
        "Some cards write a wrong checksum into encapsulated packets, and the other side drops them.",
        "nstat -az UdpInCsumErrors; ethtool -k flannel.1\nethtool -K flannel.1 tx-checksum-ip-generic off",
        _bad_checksums, _no_offload,
    ),
)  # fmt: skip
