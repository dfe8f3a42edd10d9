"""Choose the pings of `test-connectivity`: a pod's targets in one address family, and pings that distinguish causes."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cnictl.core.cidr import parse_address, parse_cidr
from cnictl.node.host import pod_routes
from cnictl.node.host.route_lookup import LOCAL
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6, of_family
from cnictl.node.spec.peers import is_link_local
from cnictl.probe.failure import (
    EXTERNAL,
    OTHER_HOST,
    OTHER_HOST_POD,
    OWN_HOST,
    SAME_HOST_POD,
    PeerEvidence,
    gateway_of,
)
from cnictl.probe.host import Host
from cnictl.probe.icmp import Series
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import Attempt

DEFAULT_EXTERNALS = pod_routes.OUTSIDE


def external_address(spec: NodeSpec, externals: Sequence[str] = ()) -> str:
    """Return the address outside the cluster to ping: the first of `externals`, else of node.toml, else the default."""
    return of_family((*externals, *spec.externals, *DEFAULT_EXTERNALS), spec.subnet)


def own_address(spec: NodeSpec, host: Host, external: str) -> str:
    """Return this node's address towards its peers, else towards the external address, else its bridge's address."""
    for to in (*(peer.via for peer in spec.known_peers), external):
        source = host.route(to).source
        if source and not is_link_local(parse_address(source)):  # a pod can't reach a link-local address
            return source
    return gateway_of(spec.subnet)


@dataclass(frozen=True)
class Wanted:
    """What to check in addition to node.toml."""

    count: int = 3
    """Echo requests per check."""
    timeout: float = 1.0
    """Seconds to wait for each answer."""
    pods: tuple[str, ...] = ()
    """Addresses of pods on other hosts."""
    externals: tuple[str, ...] = ()
    """Addresses outside the cluster, at most one per address family."""
    peers: tuple[Peer, ...] = ()
    """Peers that node.toml does not name."""


@dataclass
class Planned:
    """A planned check. Without a series it is skipped; `skip` gives the reason."""

    check: str
    series: Series | None
    skip: str = ""
    from_host: Series | None = None
    at_peer: PeerEvidence | None = None
    gateway_only: bool = False
    attempts: tuple[Attempt, ...] = ()
    """TCP and UDP to the same address."""
    pod: CheckedPod | None = None
    """The pod of this node that is pinged."""


class Targets:
    """The pings of one address family."""

    def __init__(
        self,
        spec: NodeSpec,
        host: Host,
        other: CheckedPod | None,
        wanted: Wanted,
        inside: socket.socket,
        outside: socket.socket,
    ) -> None:
        self._spec, self._host, self._other, self._wanted = spec, host, other, wanted
        self._inside, self._outside = inside, outside
        self._pods = [pod for pod in wanted.pods if is_ipv6(pod) == host.ipv6]
        self._evidence = {peer: self._peer_evidence(peer) for peer in spec.known_peers}

    def all_checks(self) -> list[Planned]:
        """Return every check, in the order of `CHECKS`."""
        return [
            Planned(OWN_HOST, self._main(own_address(self._spec, self._host, self._external_address()))),
            *self._same_host(),
            *self._other_hosts(),
            *self._other_host_pods(),
            self._external(),
        ]

    def check_of(self, address: str) -> Planned:
        """Return the check of any address, with the pings that distinguish causes."""
        packed = parse_address(address)
        if self._host.route(address).kind == LOCAL:
            return Planned(OWN_HOST, self._main(address))
        if parse_cidr(self._spec.subnet).holds(packed):
            return Planned(SAME_HOST_POD, self._main(address), pod=self._other)
        evidence = next((self._evidence[peer] for peer in self._evidence if peer.via == address), None)
        if evidence is not None:
            return Planned(OTHER_HOST, self._main(address), "", evidence.node, evidence)
        return self._to_pod(address) or Planned(
            EXTERNAL, self._main(address), "", None if self._from_host else Series(self._outside, address, 2)
        )

    def _to_pod(self, address: str) -> Planned | None:
        """Return the check of a pod of another node; None if the address is in no peer's pod CIDR."""
        peer = next((p for p in self._evidence if parse_cidr(p.pod_cidr).holds(parse_address(address))), None)
        if peer is None:
            return None
        expiring = Series(self._inside, address, 2, ttl=1 if self._from_host else 2)
        from_node = Series(self._outside, address, 1, ttl=2)
        evidence = replace(self._evidence[peer], expiring=expiring, pod_from_node=from_node)
        return Planned(OTHER_HOST_POD, self._main(address), at_peer=evidence)

    @property
    def _from_host(self) -> bool:
        """Whether this host itself pings, not a pod."""
        return self._inside is self._outside

    def _same_host(self) -> list[Planned]:
        own = parse_cidr(self._spec.subnet)
        named = [address for address in self._pods if own.holds(parse_address(address))]
        addresses = named or ([self._other.address] if self._other and self._other.address else [])
        if not addresses:
            return [Planned(SAME_HOST_POD, None, "this node has no other pod to ping")]
        return [Planned(SAME_HOST_POD, self._main(address), pod=self._pod_with(address)) for address in addresses]

    def _pod_with(self, address: str) -> CheckedPod | None:
        return self._other if self._other is not None and address in self._other.addresses else None

    def _other_hosts(self) -> list[Planned]:
        if not self._evidence:
            why = self._host.peer_hints.no_peers("no peer in node.toml: use cnictl route add-peer or --peer CIDR=VIA")
            return [Planned(OTHER_HOST, None, why)]
        return [
            Planned(OTHER_HOST, self._main(peer.via), "", evidence.node, evidence)
            if not evidence.node.scope
            else Planned(OTHER_HOST, None, f"{peer.via} is link-local: this node reaches it, a pod can't")
            for peer, evidence in self._evidence.items()
        ]

    def _other_host_pods(self) -> list[Planned]:
        own = parse_cidr(self._spec.subnet)
        planned = []
        visited = set()
        for address in self._pods:
            if own.holds(parse_address(address)):
                continue
            check = self._to_pod(address) or Planned(OTHER_HOST_POD, self._main(address))
            planned.append(check)
            if check.at_peer is not None:
                visited.add(check.at_peer.peer)
        for peer, evidence in self._evidence.items():
            if peer not in visited:
                main = self._main(evidence.gateway.to)
                evidence = replace(evidence, gateway_from_pod=main)
                planned.append(Planned(OTHER_HOST_POD, main, "", evidence.gateway, evidence, gateway_only=True))
        if not planned:
            return [Planned(OTHER_HOST_POD, None, "no peer and no --pod given")]
        return planned

    def _external(self) -> Planned:
        address = self._external_address()
        if address == DEFAULT_EXTERNALS[1] and not self._host.route(address).dev:
            why = f"this host has no IPv6 route to {address}: name an address that should answer with --external"
            return Planned(EXTERNAL, None, why)
        return Planned(EXTERNAL, self._main(address), "", Series(self._outside, address, 2))

    def _external_address(self) -> str:
        return external_address(self._spec, self._wanted.externals)

    def _main(self, to: str) -> Series:
        return Series(self._inside, to, self._wanted.count)

    def _peer_evidence(self, peer: Peer) -> PeerEvidence:
        gateway = gateway_of(peer.pod_cidr)
        return PeerEvidence(
            peer,
            Series(self._outside, peer.via, 2, scope=peer.dev if is_link_local(parse_address(peer.via)) else ""),
            Series(self._outside, gateway, 2),
            Series(self._inside, gateway, 2),
        )
