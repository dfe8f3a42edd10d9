"""Check whether a peer still has the pod CIDR that this node routes to it.

A node that was reset, or that now has another pod CIDR, still answers a ping to its own address. Two requests with a
time to live of 1 show the difference. The first goes to the pods' gateway and is answered only if the peer itself has
that address; otherwise it expires. The second goes to another address of the pod CIDR, and is reported as expired only
if the peer forwards.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import route_lookup
from cnictl.node.reach.peer_hints import PeerHints
from cnictl.node.spec.node_spec import Peer, is_ipv6
from cnictl.node.spec.peers import is_link_local
from cnictl.probe import neighbours
from cnictl.probe.failure import gateway_of
from cnictl.probe.icmp import TIME_EXCEEDED, Series, echo_socket, ping

ANSWERS, ABSENT, NOT_FORWARDED, UNKNOWN = "answers", "not there", "not forwarded", "unknown"

_INTERVAL, _AGAIN, _WAIT = 0.1, 1.1, 0.5
"""Seconds between two requests in the first and in the second round, and seconds to wait for an answer."""

AT_ONCE = 256
"""Peers that get echo requests at the same time: each takes an entry of the neighbour table."""


@dataclass(frozen=True)
class PeerPings:
    """The echo requests to one peer."""

    node: Series
    """The request to the peer's own address."""
    gateway: Series
    """The request to the gateway of its pods, with a time to live of 1."""
    expiring: Series
    """The request to the last address of its pod CIDR, which expires at the peer."""


def ask(peers: Sequence[Peer]) -> dict[Peer, str]:
    """Return for each peer whether it serves its pod CIDR. Raises OSError.

    Peers that do not answer on their link are `UNKNOWN` and get no echo request. The others are asked in groups, all of
    a group at the same time.

    Peers that are not on a link of this node are left out, because the requests expire before they arrive. So are
    peers whose packets a policy rule of this host diverts.
    """
    routes = (
        route_lookup.look_up_all([route_lookup.Packet(gateway_of(peer.pod_cidr)) for peer in peers]) if peers else []
    )
    reached = [peer for peer, route in zip(peers, routes, strict=True) if {via for _, via in route.hops} == {peer.via}]
    if not reached:
        return {}
    links = {peer: route.dev for peer, route in zip(peers, routes, strict=True)}
    answering = neighbours.answering((peer.via, links[peer]) for peer in reached)
    states = {peer: UNKNOWN for peer in reached if answering[peer.via, links[peer]] is False}
    asked = [peer for peer in reached if peer not in states]
    for at in range(0, len(asked), AT_ONCE):
        states |= _ask(asked[at : at + AT_ONCE], _INTERVAL)
    silent = [peer for peer, state in states.items() if state == NOT_FORWARDED]
    # after six reports of expired packets, a kernel sends this host one a second (icmp_ratelimit)
    for at in range(0, len(silent), AT_ONCE):
        states |= _ask(silent[at : at + AT_ONCE], _AGAIN)
    return states


def _ask(peers: Sequence[Peer], interval: float) -> dict[Peer, str]:
    with ExitStack() as stack:
        families = {is_ipv6(peer.pod_cidr) for peer in peers}
        senders = {ipv6: stack.enter_context(echo_socket("", ipv6)) for ipv6 in families}
        pings_by_peer = {}
        for peer in peers:
            sender, cidr = senders[is_ipv6(peer.pod_cidr)], parse_cidr(peer.pod_cidr)
            scope = peer.dev if is_link_local(parse_address(peer.via)) else ""
            last = format_address((cidr.last - 1).to_bytes(cidr.bits // 8, "big"))
            pings_by_peer[peer] = PeerPings(
                Series(sender, peer.via, 2, scope=scope),
                Series(sender, gateway_of(peer.pod_cidr), 2, ttl=1),
                Series(sender, last, 2, ttl=1),
            )
        requests = [
            series for pings in pings_by_peer.values() for series in (pings.node, pings.gateway, pings.expiring)
        ]
        ping(requests, interval, _WAIT)
        return {peer: judge(pings) for peer, pings in pings_by_peer.items()}


def judge(pings: PeerPings) -> str:
    """Return what the answers show: `ANSWERS`, `ABSENT`, `NOT_FORWARDED`, or `UNKNOWN` if the peer is silent."""
    if pings.gateway.answered:
        expired = any(refusal.type == TIME_EXCEEDED for refusal in pings.expiring.refusals)
        return ANSWERS if expired or pings.expiring.answered else NOT_FORWARDED
    return ABSENT if pings.node.answered else UNKNOWN


def in_words(peer: Peer, state: str, hints: PeerHints) -> tuple[str, Hint]:
    """Return the fault in one sentence that names the peer and its pod CIDR, and the hint; both may be empty."""
    if state == ABSENT:
        return (
            f"peer {peer.via} answers, but does not have the pod CIDR {peer.pod_cidr}: "
            f"no link there has its gateway {gateway_of(peer.pod_cidr)}",
            hints.missing_pod_cidr(peer),
        )
    if state == NOT_FORWARDED:
        return (
            f"peer {peer.via} has the pod CIDR {peer.pod_cidr}, but does not forward packets to it",
            hint.command("cnictl apply", on=peer.via),
        )
    return "", hint.NONE
