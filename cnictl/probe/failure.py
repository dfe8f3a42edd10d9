"""Hold a failed check and everything that was observed during it; the causes are found in this."""

from collections.abc import Callable
from dataclasses import dataclass

from cnictl.core.cidr import Cidr, parse_address, parse_cidr
from cnictl.node.hint import Hint
from cnictl.node.host.route_lookup import Way
from cnictl.node.spec.node_spec import Peer
from cnictl.probe.capture import Sighting
from cnictl.probe.host import Host
from cnictl.probe.icmp import Series
from cnictl.probe.pods import CheckedPod

OWN_HOST, SAME_HOST_POD = "own-host", "pod-same-host"
OTHER_HOST, OTHER_HOST_POD, EXTERNAL = "other-host", "pod-other-host", "external"
STAYS = (OWN_HOST, SAME_HOST_POD)
"""Checks whose packets do not leave this node."""


@dataclass(frozen=True)
class Cause:
    """The cause of a failure: a short name for programs, the evidence in words, and the hint."""

    name: str
    words: str
    mend: Hint


@dataclass
class PeerEvidence:
    """The other pings to the peer, sent at the same time as the one that failed."""

    peer: Peer
    node: Series
    """From this node to the peer's node address."""
    gateway: Series
    """From this node to the first address of the peer's pod CIDR: needs no route back to our pods."""
    gateway_from_pod: Series
    """From our pod to that address: needs one, but no forwarding on the peer."""
    expiring: Series | None = None
    """From our pod to theirs, to live one hop past us: a peer that forwards says that it expired there, before its
    FORWARD chain is asked."""
    pod_from_node: Series | None = None
    """From this node to their pod, to live one hop past the peer: where the peer's bridge is gone it sends this on by
    another route, and says so by a redirect, or the router there reports that it expired."""


@dataclass
class Failure:
    """A check without an answer, and what was observed meanwhile."""

    check: str
    pod: CheckedPod
    series: Series
    host: Host
    sightings: list[Sighting]
    resend: Callable[[], None]
    """Sends one more request, so that the firewall can trace it."""
    from_host: Series | None = None
    """The ping from this node itself to the same target."""
    at_peer: PeerEvidence | None = None

    @property
    def target(self) -> str:
        """The address that did not answer."""
        return self.series.to

    @property
    def route(self) -> Way:
        """The route that this node uses for the pod's packet."""
        return self.host.route(self.target, self.pod.address, self.host.spec.bridge)

    @property
    def left_as(self) -> str:
        """The source address with which the request left by the uplink; empty if it didn't."""
        inner = (self.host.spec.bridge, self.pod.host_veth)
        return next((s.source for s in self.sightings if s.leaving and not s.reply and s.link not in inner), "")

    @property
    def reply_links(self) -> list[str]:
        """The links by which the reply reached this node."""
        return list(dict.fromkeys(one.link for one in self.sightings if one.reply and not one.leaving))

    @property
    def reply_came(self) -> bool:
        """Whether the reply reached this node."""
        return bool(self.reply_links)

    @property
    def within_network(self) -> bool:
        """Whether the target is a pod's address of this cluster, which is never masqueraded."""
        return parse_cidr(self.host.spec.network).holds(parse_address(self.target))


def gateway_of(pod_cidr: str) -> str:
    """Return the first address of a pod CIDR, which its node's bridge has."""
    cidr = parse_cidr(pod_cidr)
    return Cidr(cidr.nth(1), cidr.prefix).address
