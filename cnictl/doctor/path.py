"""The way to the other nodes: uplink, addresses, sizes, and what comes through."""

from collections.abc import Iterable
from itertools import combinations

from netaddr import INET_PTON, IPAddress, IPNetwork, valid_ipv4, valid_ipv6

from cnictl.core.cidr import format_address
from cnictl.doctor import echo
from cnictl.doctor.before import preflight_check
from cnictl.doctor.check import Check, Finding, Remedy, Seen, typed
from cnictl.doctor.facts import Facts, counters, said_by, text_of
from cnictl.node import lookup, pod_ways
from cnictl.node.resources.bridge import OWNER_MARK, gateways
from cnictl.node.spec import Peer, is_ipv6
from cnictl.probe import arp, owning

_OPERSTATE_UP, _OPERSTATE_UNKNOWN = 6, 0
_ANYWHERE = pod_ways.OUTSIDE[0]
_VENDOR = "/sys/class/dmi/id/sys_vendor"


def _uplink_down(facts: Facts) -> Iterable[Seen]:
    if facts.spec is None:
        return
    if facts.spec.uplink and facts.spec.uplink not in facts.links:
        yield Seen(facts.spec.uplink, "there is no such link, and node.toml names it as the uplink",
                   f"`ip link` lists them; cnictl init-node --uplink LINK --subnet {facts.spec.subnet}")  # fmt: skip
    elif facts.spec.peers and not facts.others:
        yield Seen("uplink", "no link leads to the peers: there is no default route, and none of them is on a link",
                   "ip -br link; ip link set LINK up; ip route", False)  # fmt: skip
    for name in facts.others:
        link = facts.links.get(name)
        if link is not None and (not link.up or link.operstate not in (_OPERSTATE_UP, _OPERSTATE_UNKNOWN)):
            state = "has no carrier" if link.up else "is down"
            peers = [peer.via for peer, other in facts.peer_links.items() if other == name]
            lost = "nothing leaves this node" if facts.others == [name] else f"nothing reaches {', '.join(peers[:3])}"
            if not peers and facts.others != [name]:
                lost = "nothing reaches the outside"
            yield Seen(name, f"{state}: {lost}", f"ip link set {name} up; cnictl apply")


def _up_again(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(typed("ip", "link", "set", finding.subject, "up"),))


def _same_pods(facts: Facts) -> Iterable[Seen]:
    spec = facts.spec
    if spec is None:
        return
    for one, other in combinations(spec.peers, 2):
        if _overlap(one.pod_cidr, other.pod_cidr):
            yield Seen(other.pod_cidr, f"peers {one.via} and {other.via} are both said to have it",
                       f"cnictl route del-peer {other.pod_cidr}")  # fmt: skip
    for name in facts.others:
        link = facts.links.get(name)
        if link is not None and link.up:
            yield from _shared_addresses(facts, name)


def _shared_addresses(facts: Facts, link: str) -> Iterable[Seen]:
    """Ask on a link who else has the bridge's address."""
    source = _own_address(facts, link)
    for gateway in gateways(facts.spec) if facts.spec is not None else ():
        address = format_address(gateway.packed)
        if not source or is_ipv6(address) or not arp.answers(address, link, source):
            continue
        # a router that answers for everybody (proxy ARP) answers for one that nobody has, too
        if not arp.answers(str(IPNetwork(str(gateway.network))[-2]), link, source):
            yield Seen(address, f"another host on {link} has this address too: it has the same pod CIDR",
                       "give one of the two another --subnet; cnictl init-node --subnet …")  # fmt: skip


def _own_address(facts: Facts, link: str) -> str:
    """The IPv4 address that the kernel sends from on a link: to a peer on it, or to its gateway; empty without."""
    there = [peer.via for peer, name in facts.peer_links.items() if name == link and not is_ipv6(peer.via)]
    gateway = lookup.way(lookup.Packet(_ANYWHERE, oif=link), entries=False)
    for target in (*there[:1], *([gateway.gateway] if gateway.gateway else []), _ANYWHERE):
        source = lookup.source_to(target, link)
        if source:
            return source
    return ""


def _overlap(one: str, other: str) -> bool:
    return IPNetwork(one) in IPNetwork(other) or IPNetwork(other) in IPNetwork(one)


def _resolver_hidden(facts: Facts) -> Iterable[Seen]:
    if facts.spec is None:
        return
    for line in text_of("/etc/resolv.conf").splitlines():
        words = line.split()
        server = words[1].partition("%")[0] if words[:1] == ["nameserver"] and words[1:] else ""
        if not (valid_ipv4(server, INET_PTON) or valid_ipv6(server)):
            continue
        for network in facts.spec.networks:
            if is_ipv6(server) == is_ipv6(network) and IPAddress(server) in IPNetwork(network):
                yield Seen(server, f"this host's name server has an address of the pod network {network}",
                           "choose a --network that it doesn't lie in")  # fmt: skip


def _too_large(facts: Facts) -> Iterable[Seen]:
    """Sizes on this node alone: what is larger than a link to others takes is cut up, or refused."""
    limit = facts.narrowest
    if facts.spec is None or limit is None or not facts.spec.peers:
        return
    bridge = facts.links.get(facts.spec.bridge)
    lasting = bridge is not None and (facts.spec.mtu or not bridge.alias.startswith(OWNER_MARK))  # else it is drift
    if bridge is not None and lasting and bridge.mtu > limit.mtu:
        yield Seen(bridge.name, f"its MTU of {bridge.mtu} is larger than {limit.link}'s of {limit.mtu}",
                   f"cnictl bridge up --mtu {limit.mtu}", False)  # fmt: skip
    for port in facts.ports:
        if port.mtu > limit.mtu and (bridge is None or bridge.mtu <= limit.mtu):
            yield Seen(port.name, f"its pod has an MTU of {port.mtu}, more than {limit.link}'s {limit.mtu}",
                       "restart that pod", False)  # fmt: skip


def _black_hole(facts: Facts) -> Iterable[Seen]:
    """What pods send is what has to arrive: packets of the bridge's MTU, by each peer's own link."""
    if facts.spec is None:
        return
    bridge = facts.links.get(facts.spec.bridge)
    sizes: dict[str, int] = {}
    for peer, name in facts.peer_links.items():
        link = facts.links.get(name)
        if link is not None and link.up and not peer.dev and peer.via in facts.answering:
            sizes[peer.via] = min(link.mtu, bridge.mtu) if bridge is not None else link.mtu
    for address, largest in echo.at_once(lambda via: echo.largest(via, mtu=sizes[via]), sorted(sizes)):
        if largest < sizes[address]:
            yield Seen(
                address,
                f"packets of {sizes[address]} bytes vanish on the way, {largest} pass",
                f"raise the path's MTU to {sizes[address]}; or cnictl bridge up --mtu {largest}, and restart the pods",
            )


def _pods_filtered(facts: Facts) -> Iterable[Seen]:
    """The bridge's own address stands for a pod's: the same subnet, the same way."""
    spec = facts.spec
    if spec is None or not spec.peers:
        return
    sources = {is_ipv6(address): address for address in (format_address(one.packed) for one in gateways(spec))}

    def filtered(peer: Peer) -> bool:
        family, target = is_ipv6(peer.pod_cidr), str(IPNetwork(peer.pod_cidr)[1])
        return not echo.answers(target, sources[family]) and echo.answers(target)  # from what the kernel chooses

    asked = [
        peer
        for peer in spec.peers
        if not peer.dev and is_ipv6(peer.pod_cidr) in sources and peer.via in facts.answering
    ]
    for peer, is_filtered in echo.at_once(filtered, asked):
        if is_filtered:
            vendor = text_of(_VENDOR)
            yield Seen(
                peer.via,
                f"answers this node but not its pods' addresses: it has no route back to {spec.subnet}, or what is "
                f"between drops sources that it doesn't know{f' (a machine by {vendor})' if vendor else ''}",
                f"there: cnictl route add-peer {spec.subnet} …; in a cloud: turn its source/destination check off",
            )


def _pod_cidr_elsewhere(facts: Facts) -> Iterable[Seen]:
    for peer, state in facts.served.items():
        fault, mend = owning.in_words(peer, state)
        if fault:
            yield Seen(peer.pod_cidr, fault, mend)


def _peer_silent(facts: Facts) -> Iterable[Seen]:
    for peer, state in facts.served.items():
        if state == owning.UNKNOWN:
            yield Seen(peer.via, f"does not answer this node's echo requests: nothing is known of {peer.pod_cidr}",
                       f"see that {peer.via} is up, on this link, and accepts ICMP echo")  # fmt: skip


def _bad_checksums(facts: Facts) -> Iterable[Seen]:
    wrong = counters("/proc/net/snmp", "Udp").get("InCsumErrors", 0)
    for link in facts.links.values() if wrong else ():
        if link.kind == "vxlan" and "tx-checksum-ip-generic: on" in said_by(["ethtool", "-k", link.name]):
            yield Seen(link.name, f"{wrong} datagrams came with a wrong checksum, and this link leaves it to the card",
                       f"ethtool -K {link.name} tx-checksum-ip-generic off")  # fmt: skip


def _no_offload(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(typed("ethtool", "-K", finding.subject, "tx-checksum-ip-generic", "off"),))


_OWN_WAY = (
    "uplink-down", "peer-link", "peer-route", "overlap", "reverse-path", "conntrack-full", "forwarding",
    "same-pod-cidr", "mtu-path",
)  # fmt: skip
"""Faults of this node's own way to its peers."""

CHECKS = (
    Check(
        "uplink-down", 34, "error", "IFF_UP and IFLA_OPERSTATE of the uplink and of the links to peers",
        "Setting a link down and up again also deletes every route through it.",
        "ip -br link show eth0\nip link set eth0 up; cnictl apply", _uplink_down, _up_again,
    ),
    Check(
        "peer-link", 33, "error", "RTM_GETROUTE to each peer: RTA_GATEWAY, RTA_OIF; the host's own addresses",
        "A plain route needs the peer as its next hop, on a link both share.",
        "ip route get 10.0.10.51            # names no gateway if it is on the link",
        preflight_check("peer-link"), behind=("uplink-down",),
    ),
    Check(
        "overlap", 35, "error", "RTM_GETROUTE of the main table, the host's addresses and gateways, against pod CIDRs",
        "Addresses that are both a pod's and another host's reach only one of the two.",
        "ip route show\nip route del 10.244.0.128/25", preflight_check("subnet-overlap"),
    ),
    Check(
        "node-in-network",
        35,
        "warning",
        "RTM_GETADDR of every link against the pod network",
        "What pods send to that host's neighbours leaves with the pods' own addresses, for it counts as pods' traffic.",
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
        "the peers in node.toml among themselves; ARP on the links to others for the bridge's own address",
        "Two nodes with one pod CIDR give out the same addresses, and each peer's route leads to one of them.",
        "arping -I eth0 10.244.0.1          # nobody but this node may answer", _same_pods,
        behind=("uplink-down",), waits=True,
    ),
    Check(
        "mtu", 37, "error", "IFLA_MTU of the links to others, of their routes (RTAX_MTU), bridge and ports",
        "What is larger than the next link takes is cut up or refused: small requests work, large answers don't come.",
        "ip -br link; ip -d link show cni0\ncnictl bridge up --mtu 1450", _too_large,
    ),
    Check(
        "mtu-path", 37, "error", "an echo of the pods' MTU to each peer that may not be cut up; then by halves",
        "Where no router says that a packet was too large, connections open and then hang.",
        "ping -M do -s 1472 10.0.10.51\ncnictl bridge up --mtu 1400     # then restart the pods", _black_hole,
        behind=("uplink-down", "peer-link"), waits=True,
    ),
    Check(
        "pods-filtered", 38, "error",
        "an echo to each peer's gateway address from the node's own and from the bridge's; "
        "/sys/class/dmi/id/sys_vendor",
        "Clouds drop what a machine sends with an address they didn't give it, and pods' addresses are such.",
        "ping -I 10.0.0.210 10.244.1.1; ping -I 10.244.0.1 10.244.1.1", _pods_filtered,
        behind=("uplink-down", "peer-link", "peer-route", "masquerade", "bridge", "bridge-address", "forwarding",
                "same-pod-cidr", "reverse-path", "overlap"), waits=True,
    ),
    Check(
        "peer-pods", 38, "error",
        "echo requests with a time to live of 1 to each peer's gateway address, and to the last one of its pod CIDR",
        "A node that was reset, or has another pod CIDR now, answers ping as ever, and drops what pods get.",
        "ping -t 1 10.244.1.1               # answers only if the peer itself has it\n"
        "cnictl route del-peer 10.244.1.0/24",
        _pod_cidr_elsewhere, behind=_OWN_WAY, waits=True,
    ),
    Check(
        "peer-silent", 38, "warning", "echo requests to each peer's own address",
        "Of a peer that does not answer nothing can be said, and no pod of it may be reached.",
        "ping 10.0.10.51\ncnictl test-connectivity", _peer_silent, behind=_OWN_WAY, waits=True,
    ),
    Check(
        "vxlan-checksum", 39, "warning", "Udp InCsumErrors in /proc/net/snmp; ethtool -k of vxlan links",
        "Some cards write a wrong checksum into what they wrap up: the other side drops it.",
        "nstat -az UdpInCsumErrors; ethtool -k flannel.1\nethtool -K flannel.1 tx-checksum-ip-generic off",
        _bad_checksums, _no_offload,
    ),
)  # fmt: skip
