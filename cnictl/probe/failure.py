"""Define a failed check with its evidence for the finders, and the cause that they find."""

from collections.abc import Callable
from dataclasses import dataclass

from cnictl.core.cidr import Cidr, parse_address, parse_cidr
from cnictl.node.hint import Hint
from cnictl.node.host.route_lookup import RouteResult
from cnictl.node.spec.node_spec import Peer
from cnictl.probe.capture import Sighting
from cnictl.probe.host import Host
from cnictl.probe.icmp import Series
from cnictl.probe.pods import CheckedPod

OWN_HOST, SAME_HOST_POD = "own-host", "pod-same-host"
OTHER_HOST, OTHER_HOST_POD, EXTERNAL = "other-host", "pod-other-host", "external"
STAYS = (OWN_HOST, SAME_HOST_POD)
"""Checks whose packets stay on this node."""


@dataclass(frozen=True)
class FailureCause:
    """The cause of a failure: a short name for programs, the evidence in words, and the hint."""

    name: str
    words: str
    hint: Hint


@dataclass
class PeerEvidence:
    """The additional pings to the peer of a failed check, sent at the same time."""

    peer: Peer
    node: Series
    """From this node to the peer's node address."""
    gateway: Series
    """From this node to the first address of the peer's pod CIDR. The reply needs no route to this node's pods."""
    gateway_from_pod: Series
    """From this node's pod to that address. The reply needs a route to the pod, but no forwarding on the peer."""
    expiring: Series | None = None
    """From this node's pod to the peer's pod, with a time to live that ends at the peer. A peer that forwards packets
    reports that the request expired, before its FORWARD chain sees it."""
    pod_from_node: Series | None = None
    """From this node to the peer's pod, with a time to live that ends one hop after the peer. A peer without its bridge
    forwards the request by another route: it sends a redirect, or the next router reports that the request expired."""


@dataclass
class Failure:
    """A check that got no answer, with its evidence."""

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
    to_pod: CheckedPod | None = None
    """The pod of this node that has the target's address."""

    @property
    def of_host(self) -> bool:
        """Whether this host itself, not a pod, sent the request."""
        return not self.pod.netns

    @property
    def target(self) -> str:
        """The address that did not answer."""
        return self.series.to

    @property
    def lasting_source(self) -> str:
        """An address to ping back when the command is over: the sender's, or this node's gateway for a probe pod."""
        return gateway_of(self.host.spec.subnet) if self.pod.host_end else self.pod.address

    @property
    def route(self) -> RouteResult:
        """Where this node sends the packet."""
        if self.of_host:
            return self.host.route(self.target)
        return self.host.route(self.target, self.pod.address, self.host.spec.bridge)

    @property
    def left_as(self) -> str:
        """The source address with which the request left through the uplink; empty if it did not leave."""
        inner = (self.host.spec.bridge, self.pod.host_veth)
        return next((s.source for s in self.sightings if s.leaving and not s.reply and s.link not in inner), "")

    @property
    def reply_links(self) -> list[str]:
        """The links through which the reply reached this node."""
        return list(
            dict.fromkeys(sighting.link for sighting in self.sightings if sighting.reply and not sighting.leaving)
        )

    @property
    def reply_came(self) -> bool:
        """Whether the reply reached this node."""
        return bool(self.reply_links)

    @property
    def within_network(self) -> bool:
        """Whether the target is in the pod network, where nothing is masqueraded."""
        return parse_cidr(self.host.spec.network).holds(parse_address(self.target))


def gateway_of(pod_cidr: str) -> str:
    """Return the first address of a pod CIDR, the address of its node's bridge."""
    cidr = parse_cidr(pod_cidr)
    return Cidr(cidr.nth(1), cidr.prefix).address
