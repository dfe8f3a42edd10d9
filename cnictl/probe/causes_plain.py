"""Find the cause of a failed request from the kernel's state alone: routes, neighbours, the packet trace.

This is for senders and hosts that no node file describes.
"""

import ipaddress
from collections.abc import Callable

from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node import hint
from cnictl.node.host import neighbours, route_lookup
from cnictl.node.host.route_lookup import Packet
from cnictl.probe import trace
from cnictl.probe.drop_hint import for_drop
from cnictl.probe.ends import Origin, Target
from cnictl.probe.failure import FailureCause
from cnictl.probe.netns_thread import inside

Port = tuple[str, int]


def loopback_down(source: Origin, to: Target) -> FailureCause | None:
    """Return the cause if a namespace sends to itself, but its loopback link is down."""
    sends_to_itself = to.address in source.pod.addresses or ipaddress.ip_address(to.address).is_loopback
    if not sends_to_itself or not source.pod.netns:
        return None

    def is_down() -> bool:
        with Netlink() as netlink:
            link = rtnetlink.get_link(netlink, "lo")
        return link is None or not link.up

    if not inside(source.pod.netns, is_down):
        return None
    what_to_do = hint.command(f"nsenter --net={source.pod.netns} ip link set lo up")
    return FailureCause("loopback-down", f"{source.name} sends to itself, but its link lo is down", what_to_do)


def no_route(source: Origin, to: Target) -> FailureCause | None:
    """Return the cause if the sender's own namespace has no route."""
    route = inside(source.pod.netns, lambda: route_lookup.look_up(Packet(to.address, oif=to.scope), entries=False))
    if route.dev:
        return None
    what_to_do = hint.advice(
        f"add a route to {to.address} there: ip route", because="the gateway of that namespace is not known here"
    )
    return FailureCause("no-route", f"{source.name} has no route to {to.address}: {route}", what_to_do)


def neighbour_unresolved(source: Origin, to: Target) -> FailureCause | None:
    """Return the cause if the next hop does not answer ARP or neighbour solicitations."""

    def next_hop() -> tuple[str, str, str]:
        route = route_lookup.look_up(Packet(to.address, oif=to.scope), entries=False)
        hop = route.gateway or to.address
        return hop, route.dev, neighbours.state_of(hop)

    hop, dev, state = inside(source.pod.netns, next_hop)
    if state not in ("FAILED", "INCOMPLETE"):
        return None
    words = f"next hop {hop} does not answer on {dev} (neighbour table: {state})"
    what_to_do = hint.advice(
        f"bring {hop} up, or check that it is on the same link as {dev}",
        because="the fault is on another host or on its link",
    )
    return FailureCause("neighbour-unresolved", words, what_to_do)


def dropped(source: Origin, to: Target, send: Callable[[], object], port: Port | None) -> FailureCause | None:
    """Return the cause if a rule or policy of this host's nftables drops the request or its answer."""
    own = source.source(to.address, to.scope)
    drop = trace.find_drop(own, to.address, send, port) if own else None
    if drop is None:
        return None
    words = f"the request or its answer is dropped on this host by {drop.words}"
    return FailureCause("dropped-here", words, for_drop(drop, own))


def silent(source: Origin, to: Target) -> FailureCause:
    """Return the cause if no other is found: the request has left, and nothing came back."""
    route = inside(source.pod.netns, lambda: route_lookup.look_up(Packet(to.address, oif=to.scope), entries=False))
    words = f"{to.address} does not answer {source.name} (through {route.dev or 'any link'})"
    what_to_do = hint.advice(
        "add --trace to see how far the request gets", because="nothing that was checked stops the request here"
    )
    return FailureCause("silent", words, what_to_do)
