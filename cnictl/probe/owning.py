"""Whether a peer still has the pod CIDR that this node routes to it.

A node that was reset, or set up with another pod CIDR, answers ping as ever. Two requests whose time to live is 1 tell
the difference: its pods' gateway answers one only if the peer itself has that address (what is forwarded expires), and
one to another address of the pod CIDR comes back as expired only if the peer forwards.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import route_lookup
from cnictl.node.spec.node_spec import Peer, is_ipv6
from cnictl.node.spec.peers import is_link_local
from cnictl.probe.failure import gateway_of
from cnictl.probe.icmp import TIME_EXCEEDED, Series, echo_socket, ping

SERVED, ABSENT, NOT_FORWARDED, UNKNOWN = "answers", "not there", "not forwarded", "unknown"

_INTERVAL, _AGAIN, _WAIT = 0.1, 1.1, 0.5
"""Seconds between two requests, at first and when asked again, and for each answer."""


@dataclass(frozen=True)
class Asked:
    """The requests to one peer."""

    node: Series
    """To its own address."""
    gateway: Series
    """To its pods' gateway, not to be forwarded."""
    expiring: Series
    """To the last address of its pod CIDR, to expire at the peer."""


def ask(peers: Sequence[Peer]) -> dict[Peer, str]:
    """Return for each peer whether its pod CIDR is served there; all are asked side by side. Raises OSError.

    Only of peers on a link of this node: elsewhere a request expires on the way. Peers that this host's own packets
    don't get to, for a policy rule takes them elsewhere, are left out.
    """
    ways = route_lookup.ways([route_lookup.Packet(gateway_of(peer.pod_cidr)) for peer in peers]) if peers else []
    reached = [peer for peer, way in zip(peers, ways, strict=True) if {via for _, via in way.hops} == {peer.via}]
    if not reached:
        return {}
    said = _ask(reached, _INTERVAL)
    silent = [peer for peer, state in said.items() if state == NOT_FORWARDED]
    # a kernel that just told this host of six expired packets tells it of one a second (icmp_ratelimit)
    return said | (_ask(silent, _AGAIN) if silent else {})


def _ask(peers: Sequence[Peer], interval: float) -> dict[Peer, str]:
    with ExitStack() as stack:
        families = {is_ipv6(peer.pod_cidr) for peer in peers}
        senders = {ipv6: stack.enter_context(echo_socket("", ipv6)) for ipv6 in families}
        asked = {}
        for peer in peers:
            sender, cidr = senders[is_ipv6(peer.pod_cidr)], parse_cidr(peer.pod_cidr)
            scope = peer.dev if is_link_local(parse_address(peer.via)) else ""
            last = format_address((cidr.last - 1).to_bytes(cidr.bits // 8, "big"))
            asked[peer] = Asked(
                Series(sender, peer.via, 2, scope=scope),
                Series(sender, gateway_of(peer.pod_cidr), 2, ttl=1),
                Series(sender, last, 2, ttl=1),
            )
        ping([series for one in asked.values() for series in (one.node, one.gateway, one.expiring)], interval, _WAIT)
        return {peer: judge(one) for peer, one in asked.items()}


def judge(asked: Asked) -> str:
    """Return what the answers say: `SERVED`, `ABSENT`, `NOT_FORWARDED`, or `UNKNOWN` where the peer is silent."""
    if asked.gateway.answered:
        expired = any(refusal.type == TIME_EXCEEDED for refusal in asked.expiring.refusals)
        return SERVED if expired or asked.expiring.answered else NOT_FORWARDED
    return ABSENT if asked.node.answered else UNKNOWN


def in_words(peer: Peer, state: str) -> tuple[str, Hint]:
    """Return what is wrong in one sentence that names peer and pod CIDR, and a hint; empty texts where nothing is."""
    if state == ABSENT:
        return (
            f"peer {peer.via} answers, but does not have the pod CIDR {peer.pod_cidr}: "
            f"nobody there has its gateway {gateway_of(peer.pod_cidr)}",
            hint.advice(
                f"on {peer.via}: cnictl status (reset, or another --subnet?); "
                f"here: cnictl route del-peer {peer.pod_cidr}",
                because="only the operator knows whether that node is to have these pods again",
            ),
        )
    if state == NOT_FORWARDED:
        return (
            f"peer {peer.via} has the pod CIDR {peer.pod_cidr}, but does not forward to it",
            hint.command("cnictl apply", on=peer.via),
        )
    return "", hint.NONE
