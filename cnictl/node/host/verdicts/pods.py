"""Describe the packets that a node's pods send and receive, by the kind of accept rule that they need."""

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from cnictl.core.cidr import parse_cidr
from cnictl.node.host.verdicts.model import Packets, Ruleset
from cnictl.node.spec.node_spec import NodeSpec, Peer, by_family, is_ipv6

SENT, AMONG, RECEIVED = "sent", "among", "received"
"""Packets from pods; packets from pods to other pods; packets to pods that the pods need."""
KINDS = (SENT, AMONG, RECEIVED)
COVERS = {SENT: (SENT, AMONG), AMONG: (AMONG,), RECEIVED: (RECEIVED,)}
"""The kinds that an accept rule of each kind covers."""

_NEW, _OLD = frozenset({"new"}), frozenset({"established", "related"})


@dataclass(frozen=True)
class Traffic:
    """Packets of one kind."""

    flows: tuple[Packets, ...]
    """The flows that pods need: if one of them is dropped as a whole, pods lose connections."""
    every: Packets
    """All possible packets of this kind, of new connections or not."""


def merge_equivalent_peers(spec: NodeSpec, ruleset: Ruleset) -> NodeSpec:
    """Return `spec` with one peer of each group that all rules treat alike: there may be thousands of peers."""
    peers: dict[Hashable, Peer] = {}
    for peer in spec.known_peers:
        boundaries = ruleset.boundaries[128 if is_ipv6(peer.pod_cidr) else 32]
        between: Hashable = 0
        if boundaries:
            cidr = parse_cidr(peer.pod_cidr)
            before, within = bisect_right(boundaries, cidr.first), bisect_right(boundaries, cidr.last)
            between = before if before == within else peer.pod_cidr  # a rule names a part of this one
        peers.setdefault((is_ipv6(peer.pod_cidr), peer.dev, between), peer)
    return replace(spec, peers=tuple(peers.values()), learned=())


def traffic(spec: NodeSpec, family: str, links: Sequence[str], bridged: bool = False) -> dict[str, Traffic]:
    """Return the packets of an address family (`ip`, `ip6`) by kind; none if the node has no pods of that family.

    `links` are the links to other hosts: the uplink and the links to peers; empty if none is known. `bridged` selects
    packets between two ports of the pods' bridge, as nftables' bridge family sees them.
    """
    traffic_by_kind: dict[str, Traffic] = {}
    for node in by_family(spec):
        if is_ipv6(node.subnet) == (family == "ip6"):
            flows = _bridged(node, family) if bridged else _routed(node, family, list(links) or [None])
            for kind, every in _every(node, family, bridged).items():
                traffic_by_kind[kind] = Traffic(tuple(flow for its_kind, flow in flows if its_kind == kind), every)
    return traffic_by_kind


def _routed(node: NodeSpec, family: str, links: Sequence[str | None]) -> list[tuple[str, Packets]]:
    """Return routed packets, and packets between two pods of the node, which the bridge passes to iptables."""
    bridge, subnet = node.bridge, node.subnet
    flows = [(AMONG, Packets(family, bridge, bridge, subnet, subnet))]
    for link in links:
        flows += [
            (SENT, Packets(family, bridge, link, subnet)),
            (RECEIVED, Packets(family, link, bridge, target=subnet, states=_OLD)),
            (RECEIVED, Packets(family, link, bridge, target=subnet, translated=True)),
        ]
        peers = [peer for peer in node.known_peers if link is None or peer.dev in ("", link)]
        if peers:  # from a peer's own address: a rule that drops all new incoming packets drops these too
            flows.append((RECEIVED, Packets(family, link, bridge, target=subnet)))
        for peer in peers:
            flows += [
                (AMONG, Packets(family, bridge, link, subnet, peer.pod_cidr)),
                (RECEIVED, Packets(family, link, bridge, peer.pod_cidr, subnet)),
            ]
    return flows


def _bridged(node: NodeSpec, family: str) -> list[tuple[str, Packets]]:
    return [
        (SENT, Packets(family, source=node.subnet, bridge=node.bridge)),
        (RECEIVED, Packets(family, source=node.network, target=node.subnet, bridge=node.bridge)),
    ]


def _every(node: NodeSpec, family: str, bridged: bool) -> dict[str, Packets]:
    states = _NEW | _OLD
    if bridged:
        return {
            SENT: Packets(family, source=node.subnet, states=states, bridge=node.bridge),
            RECEIVED: Packets(family, target=node.subnet, states=states, bridge=node.bridge),
        }
    return {
        SENT: Packets(family, node.bridge, source=node.subnet, states=states),
        AMONG: Packets(family, node.bridge, source=node.subnet, target=node.network, states=states),
        RECEIVED: Packets(family, outgoing=node.bridge, target=node.subnet, states=states),
    }


def peers_addresses(spec: NodeSpec, subnet: str) -> tuple[str, ...]:
    """Return the peers' own addresses in the family of `subnet`, without IPv6 link-local addresses.

    Forwarded packets never have a link-local address.
    """
    addresses = {peer.via for peer in spec.known_peers if is_ipv6(peer.via) == is_ipv6(subnet)}
    return tuple(sorted(address for address in addresses if not address.startswith("fe80:")))


def families(spec: NodeSpec) -> Iterator[str]:
    """Return nftables' names of the pods' address families."""
    return ("ip6" if is_ipv6(subnet) else "ip" for subnet in spec.subnets)
